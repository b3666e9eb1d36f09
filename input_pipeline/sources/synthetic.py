"""The source `synthetic`: random numbers in place of images, to time the step alone.

Every batch is the same one. `batching` makes it once; a trainer may as well ask for it with
`constant_batch` and keep it on the device.
"""

from typing import TYPE_CHECKING

from keras_resnet.input_pipeline.errors import DataError, unknown_name
from keras_resnet.input_pipeline.sources import splits
from keras_resnet.input_pipeline.sources.kind import SourceKind

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.sources.base import Source

# Data set whose sizes are imitated -> classes and examples of each split.
SHAPES: dict[str, tuple[int, dict[str, int]]] = {
    "": (1000, {"train": 1_281_167, "validation": 50_000, "test": 50_000}),
    "cifar10": (10, {"train": 50_000, "test": 10_000}),
    "cifar100": (100, {"train": 50_000, "test": 10_000}),
    "digits": (10, {"train": 1_437, "test": 360}),
    "imagenet2012": (1000, {"train": 1_281_167, "validation": 50_000, "test": 50_000}),
}


def open_split(*, name: str, path: str, split: str) -> "Source":
    """Opens `split` of a set with the sizes of `name`; `path` is not used.

    Raises:
        DataError: no sizes are known for `name`, or it has no such split.
    """
    from keras_resnet.input_pipeline.sources.noise import Synthetic

    if name not in SHAPES:
        raise unknown_name("data set for the source synthetic", name, filter(None, SHAPES))
    classes, sizes = SHAPES[name]

    def size(part: str) -> int:
        if part not in sizes:
            raise unknown_name(f"split of synthetic {name or 'data'}", part, sizes)
        return sizes[part]

    count = sum(len(positions) for _, positions in splits.select(split, size))
    if not count:
        raise DataError(f"The split {split!r} of synthetic {name} selects no images.")
    return Synthetic(title=f"synthetic {name or 'imagenet2012'} {split}", num_examples=count,
                     class_names=tuple(str(label) for label in range(classes)))  # fmt: skip


SOURCE = SourceKind("synthetic", "noise, to time a step alone", open_split)
