"""Image files in class folders: which there are, in a fixed order, and reading them."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.errors import DataError, did_you_mean, reason
from keras_resnet.input_pipeline.sources.base import RandomAccessSource

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_HELD_OUT = ("test", "val", "validation")
_LITTER = ("desktop.ini", "thumbs.db")


class ImageFolder(RandomAccessSource):
    """Files, read when they are needed."""

    def __init__(
        self, *, title: str, examples: list[tuple[str, int]], class_names: tuple[str, ...]
    ):
        super().__init__(title=title, num_examples=len(examples), class_names=class_names)
        self._files = [file for file, _ in examples]
        with tf.device("CPU:0"):
            self._file_tensor = tf.constant(self._files)
            self._labels = tf.constant(np.array([label for _, label in examples], np.int32))

    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = tf.map_fn(tf.io.read_file, tf.gather(self._file_tensor, ids))
        return encoded, tf.gather(self._labels, ids)

    def records(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        return ((file, functools.partial(_read, file)) for file in self._files)

    def example_name(self, example_id: Any) -> str:
        return self._files[int(example_id)]

    def encoded_bytes(self) -> int:
        return sum(stat.length for stat in self._stats())

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file, stat in zip(self._files, self._stats(), strict=True):
            digest.update(f"{file}\0{stat.length}\0{stat.mtime_nsec}\n".encode())
        return digest.hexdigest()

    def _stats(self) -> list:
        try:
            with ThreadPoolExecutor(16) as pool:
                return list(pool.map(tf.io.gfile.stat, self._files))
        except tf.errors.OpError as error:
            raise DataError(f"An image cannot be read: {reason(error)}.") from error


def _read(file: str) -> bytes:
    return tf.io.read_file(file).numpy() if "://" in file else Path(file).read_bytes()


def find_splits(path: str) -> dict[str, str]:
    """Split name -> folder of classes.

    Raises:
        DataError: `path` is empty, missing, or no folder.
    """
    if not path:
        raise DataError("The source image_folder needs a path: a folder of images (data.path).")
    root = _root(path)
    if not tf.io.gfile.isdir(root):
        problem = "is a file" if tf.io.gfile.exists(root) else "does not exist"
        raise DataError(f"The image folder {path} {problem}; give a folder of class folders.")
    folders = {split: os.path.join(root, split) for split in ("train", *_HELD_OUT)}
    return {split: folder for split, folder in folders.items() if tf.io.gfile.isdir(folder)} or {
        "train": root
    }


def _root(path: str) -> str:
    return path.rstrip("/") if "://" in path else str(Path(path).expanduser())


def list_images(folder: str, class_names: list[str]) -> list[tuple[str, int]]:
    """(file, label) of every image in `folder`, in the fixed stratified order of this source.

    Raises:
        DataError: a class folder holds no images, or something that is no image.
    """
    ordered = []
    for label, class_name in enumerate(class_names):
        files = _class_files(os.path.join(folder, class_name))
        mixed = sorted(files, key=lambda file: hashlib.sha256(file.encode()).digest())
        for rank, file in enumerate(mixed):
            path = os.path.join(folder, class_name, file)
            ordered.append(((rank + 0.5) / len(mixed), label, path))
    return [(file, label) for _, label, file in sorted(ordered)]


def _class_files(folder: str) -> list[str]:
    # Paths relative to the class folder, with forward slashes; folders below it count as well.
    files = []
    for parent, folders, names in _walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(parent, folder)
        for name in names:
            if name.startswith(".") or name.lower() in _LITTER:
                continue
            if not name.lower().endswith(IMAGE_SUFFIXES):
                raise DataError(
                    f"{os.path.join(parent, name)} is no image of a supported format "
                    f"({', '.join(IMAGE_SUFFIXES)}); convert or remove it."
                )
            files.append(name if below == "." else f"{Path(below).as_posix()}/{name}")
    if not files:
        raise DataError(f"The class folder {folder} holds no images.")
    return files


def _walk(folder: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """What os.walk gives, of a bucket too: there without a request for each image."""
    if "://" not in folder:
        yield from os.walk(folder)
        return
    names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    others = [name for name in names if not name.lower().endswith(IMAGE_SUFFIXES)]
    folders = [name for name in others if tf.io.gfile.isdir(f"{folder}/{name}")]
    yield folder, folders, [name for name in names if name not in folders]
    for name in folders:
        yield from _walk(f"{folder}/{name}")


def _class_names(folder: str) -> list[str]:
    _, folders, _ = next(_walk(folder))
    names = sorted(name for name in folders if not name.startswith("."))
    if not names:
        raise DataError(
            f"The image folder {folder} holds no class folders; "
            f"put the images of each class in a folder of their own, as in {folder}/cat/1.jpg."
        )
    return names


def common_classes(folders: dict[str, str]) -> list[str]:
    """The sorted names of the class folders, which every split must have.

    Raises:
        DataError: they differ, or there are none.
    """
    names = {split: _class_names(folder) for split, folder in folders.items()}
    reference, *others = names
    for split in others:
        if names[split] != names[reference]:
            differences = [
                f"only in {one}: {', '.join(only)}"
                for one, other in ((reference, split), (split, reference))
                if (only := sorted(set(names[one]) - set(names[other])))
            ]
            raise DataError(
                f"The classes of {folders[reference]} and {folders[split]} differ: "
                f"{'; '.join(differences)}. Every split must have the same class folders."
            )
    return names[reference]


def folder_of(name: str, folders: dict[str, str], path: str) -> str:
    """The folder of the split `name` among those that `find_splits` found.

    Raises:
        DataError: there is no such split.
    """
    if name in folders:
        return folders[name]
    # One held-out split is the held-out split, whichever of its three names it goes by.
    held_out = [split for split in folders if split in _HELD_OUT]
    if name in _HELD_OUT and len(held_out) == 1:
        return folders[held_out[0]]
    if list(folders.values()) == [_root(path)]:
        raise DataError(
            f"{path} is one folder of classes, so it has no split {name!r}. State two slices of "
            "'train', for instance 'train[:80%]' to train on and 'train[80%:]' to evaluate on."
        )
    raise DataError(
        f"{path} has no split {name!r}.{did_you_mean(name, folders)} "
        f"Its splits: {', '.join(folders)}."
    )
