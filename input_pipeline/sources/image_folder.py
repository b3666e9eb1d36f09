"""The source `image_folder`: images in folders, one folder per class.

Two layouts are read, told by what `path` holds:

    path/train/CLASS/….jpg and path/test/CLASS/…  (or val, validation)   splits by folder
    path/CLASS/….jpg                                                     one split, "train"

`path` is a local folder or on a bucket (`gs://…`), from which every image is a request of its own.

Labels number the class names in sorted order. A split has a fixed order that does not depend on
the machine: within a class the images are mixed by a hash of their names, and the classes are
dealt out in proportion, so that any slice such as `train[:80%]` and its rest hold every class in
its share (to within one image).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_resnet.input_pipeline.errors import DataError, reason
from keras_resnet.input_pipeline.sources import splits
from keras_resnet.input_pipeline.sources.kind import SourceKind

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.sources.base import Source


def open_split(*, name: str, path: str, split: str) -> "Source":
    """Opens `split` of the images under `path`; `name` is not used.

    Raises:
        DataError: see `image_files.find_splits` and `list_images`; an unknown or empty
            split; a bucket that cannot be listed.
    """
    import tensorflow as tf

    try:
        return _open_split(path, split)
    except tf.errors.OpError as error:
        raise DataError(f"The image folder {path} cannot be listed: {reason(error)}.") from error


def _open_split(path: str, split: str) -> "Source":
    from keras_resnet.input_pipeline.sources import image_files

    folders = image_files.find_splits(path)
    class_names = image_files.common_classes(folders)
    listed: dict[str, list[tuple[str, int]]] = {}

    def size(name: str) -> int:
        if name not in listed:
            folder = image_files.folder_of(name, folders, path)
            listed[name] = image_files.list_images(folder, class_names)
        return len(listed[name])

    examples = [
        listed[name][position]
        for name, positions in splits.select(split, size)
        for position in positions
    ]
    if not examples:
        raise DataError(f"The split {split!r} of {path} selects no images.")
    title = f"{Path(path).resolve().name} {split}"
    return image_files.ImageFolder(title=title, examples=examples, class_names=tuple(class_names))


SOURCE = SourceKind("image_folder", "a folder for each class", open_split, exif="apply")
