"""The source `image_folder`: image files in class folders, or named in a table with their labels.

How they lie is found by `layout_finder.find_layout`. `path` is of this machine or of a bucket (`gs://…`),
from which every image is a request of its own.

Labels number the class names of the training images in sorted order. A split has a fixed order
that does not depend on the machine (`Layout.examples`), so that any slice such as `train[:80%]`
and its rest hold every class in its share. With `multi_label` an image has a set of labels.
Only the splits that are asked for are looked into.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_resnet.input_pipeline import exclusion
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.layout import Example
from keras_resnet.input_pipeline.layout_finder import explain_listing, find_layout
from keras_resnet.input_pipeline.settings import Setting, is_switch
from keras_resnet.input_pipeline.sources import splits
from keras_resnet.input_pipeline.sources.kind import SourceKind

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.sources.base import Source


def open_split(*, name: str, path: str, split: str, exclude: str, multi_label: bool) -> "Source":
    """Opens `split` of the images under `path`; `name` is not used.

    Args:
        exclude: a list of files to leave out (see `exclusion`), or "". They are left out of what
            the split selects, so that no other image moves from one slice to another.
        multi_label: whether an image may have several labels or none (see `find_layout`).

    Raises:
        DataError: see `find_layout` and `Layout`; an unknown or empty split; a bucket that cannot
            be listed; a list that cannot be read or belongs to other data.
    """
    with explain_listing(path):
        return _open_split(path, split, exclude, multi_label)


def _open_split(path: str, split: str, exclude: str, multi_label: bool) -> "Source":
    from keras_resnet.input_pipeline.sources.image_files import ImageFolder

    layout = find_layout(path, multi_label)
    if exclude:
        layout.excluded = exclusion.read(exclude, path)
    listed: dict[str, list[Example]] = {}

    def size(name: str) -> int:
        listed[name] = layout.examples(layout.find(name))
        return len(listed[name])

    examples = [
        listed[name][position]
        for name, positions in splits.select(split, size)
        for position in positions
    ]
    selected = len(examples)
    examples = [one for one in examples if not exclusion.is_excluded(one[0], layout.excluded)]
    if selected and not examples:
        raise DataError(
            f"exclude={exclude} leaves none of the {selected:,} images of the split {split!r}."
        )
    if not examples:
        raise DataError(f"The split {split!r} of {path} selects no images.")
    title = f"{Path(path).resolve().name} {split}"
    source = ImageFolder(
        title=title,
        examples=examples,
        class_names=layout.class_names(),
        multi_label=multi_label,
    )
    source.layout = layout.describe()
    if exclude:
        source.layout += f"; left out by data.exclude: {selected - len(examples):,}"
    return source


SOURCE = SourceKind(
    "image_folder",
    "a folder for each class, or a table of paths and labels",
    open_split,
    exif="apply",
    settings=(
        Setting(
            name="exclude",
            default="",
            help="A file that lists images of image_folder to leave out, as inspect writes it.",
        ),
        Setting(
            name="multi_label",
            default=False,
            help="Whether images of image_folder may have several labels or none (docs/data.md).",
            accepts=is_switch,
            accepted="True or False",
        ),
    ),
)
