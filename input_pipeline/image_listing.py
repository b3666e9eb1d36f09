"""Which files are images, and the image files of a folder. Loads TensorFlow for buckets only."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from keras_resnet.errors import UserError

# .jfif and .jpe are other names of JPEG.
IMAGE_SUFFIXES = (".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".webp")


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


def list_images(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    passed_over: Counter[str] | None = None,
    also: tuple[str, ...] = (),
) -> Iterator[Path]:
    """The files among `paths` and every image file in the folders among them, sorted by folder.

    A file that is gone by the time it is read, or a link that leads nowhere, is among them.

    Args:
        paths: one path or several.
        passed_over: counts the files in folders that are left out, by suffix ("" for none).
        also: suffixes that are taken beside those of images.

    Raises:
        UserError: a path does not exist; before the first file is given.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    for path in map(Path, given):
        if not os.path.lexists(path):
            raise UserError(f"{path}: no such file or folder")
    for path in map(Path, given):
        if not path.is_dir():
            yield path
            continue
        for parent, _, files in walk(str(path)):
            for name in files:
                if is_image_name(name) or name.lower().endswith(also):
                    yield Path(parent, name)
                elif passed_over is not None:
                    passed_over[Path(name).suffix.lower()] += 1


def in_words(passed_over: Mapping[str, int]) -> str:
    """Counts of files by suffix, the most frequent first, as "3 .heic, 1 without a suffix"."""
    ordered = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ordered)


def _visible(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith("."))
