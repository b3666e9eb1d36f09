"""Which files are images, and the image files of a folder. Loads TensorFlow for buckets only."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from keras_resnet.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yields (folder, its folders, its files) like os.walk, of buckets too, without hidden ones.

    In a bucket only what does not look like an image costs a request of its own.
    """
    if "://" not in folder:
        for parent, folders, files in os.walk(folder):
            folders[:] = _visible(folders)
            yield parent, folders, _visible(files)
        return
    import tensorflow as tf

    names = _visible(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    others = [name for name in names if not is_image_name(name)]
    folders = [name for name in others if tf.io.gfile.isdir(f"{folder}/{name}")]
    yield folder, folders, [name for name in names if name not in folders]
    for name in folders:
        yield from walk(f"{folder}/{name}")


def list_images(paths: Iterable[str | os.PathLike]) -> Iterator[Path]:
    """The files among `paths` and every image file in the folders among them, sorted by folder.

    Raises:
        UserError: a path does not exist.
    """
    for path in map(Path, paths):
        if path.is_dir():
            for parent, _, files in walk(str(path)):
                yield from (Path(parent, name) for name in files if is_image_name(name))
        elif path.exists():
            yield path
        else:
            raise UserError(f"{path}: no such file or folder")


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))
