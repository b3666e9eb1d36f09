"""Random numbers in place of images, to time the step alone: nothing is read, nothing decoded.

Every batch is the same one. `batching` makes it once; a trainer may as well ask for it with
`constant_batch` and keep it on the device.
"""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.errors import DataError, unknown_name
from keras_resnet.input_pipeline.sources import splits
from keras_resnet.input_pipeline.sources.base import Source

# Data set whose sizes are imitated -> classes and examples of each split.
SHAPES: dict[str, tuple[int, dict[str, int]]] = {
    "": (1000, {"train": 1_281_167, "validation": 50_000, "test": 50_000}),
    "cifar10": (10, {"train": 50_000, "test": 10_000}),
    "cifar100": (100, {"train": 50_000, "test": 10_000}),
    "digits": (10, {"train": 1_437, "test": 360}),
    "imagenet2012": (1000, {"train": 1_281_167, "validation": 50_000, "test": 50_000}),
}


def open_split(*, name: str, path: str, split: str) -> "Synthetic":
    """Opens `split` of a set with the sizes of `name`; `path` is not used.

    Raises:
        DataError: no sizes are known for `name`, or it has no such split.
    """
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


class Synthetic(Source):
    """As many examples as said, all of them noise."""

    is_synthetic = True

    def constant_batch(self, batch_size: int, image_size: int) -> dict[str, tf.Tensor]:
        """{"image": uint8[b, image_size, image_size, 3], "label": int32[b]}, ever the same."""
        rng = np.random.default_rng(0)
        shape = (batch_size, image_size, image_size, 3)
        labels = np.arange(batch_size) % len(self.class_names)
        with tf.device("CPU:0"):
            return {
                "image": tf.constant(rng.integers(0, 256, shape, np.uint8)),
                "label": tf.constant(labels.astype(np.int32)),
            }

    def training_order(self, **options) -> tf.data.Dataset:
        raise DataError("Synthetic data has no order; take train_batches or constant_batch.")

    def evaluation_order(self, **options) -> tf.data.Dataset:
        return self.training_order(**options)

    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise DataError("Synthetic data has no encoded images; take train_batches.")

    def records(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        return iter(())

    def example_name(self, example_id) -> str:
        return self.title
