"""A source of image files that lie one by one: reading them."""

import functools
import hashlib
import os
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.errors import DataError, reason
from keras_resnet.input_pipeline.sources.base import RandomAccessSource


class ImageFolder(RandomAccessSource):
    """Files, read when they are needed."""

    labels_at_hand = True

    def __init__(
        self, *, title: str, examples: list[tuple[str, int]], class_names: tuple[str, ...]
    ):
        super().__init__(title=title, num_examples=len(examples), class_names=class_names)
        self._files = [file for file, _ in examples]
        with tf.device("CPU:0"):
            self._file_tensor = tf.constant(list(map(_as_bytes, self._files)))
            self._labels = tf.constant(np.array([label for _, label in examples], np.int32))

    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded = tf.map_fn(tf.io.read_file, tf.gather(self._file_tensor, ids))
        return encoded, tf.gather(self._labels, ids)

    def labels(self) -> np.ndarray:
        return self._labels.numpy()

    def records(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        return ((file, functools.partial(_read, file)) for file in self._files)

    def example_name(self, example_id: Any) -> str:
        return self._files[int(example_id)]

    def encoded_bytes(self) -> int:
        return sum(stat.length for stat in self._stats())

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file, stat in zip(self._files, self._stats(), strict=True):
            digest.update(
                f"{file}\0{stat.length}\0{stat.mtime_nsec}\n".encode(errors="surrogateescape")
            )
        return digest.hexdigest()

    def _stats(self) -> list:
        try:
            with ThreadPoolExecutor(16) as pool:
                return list(pool.map(_stat, self._files))
        except (tf.errors.OpError, OSError) as error:
            raise DataError(f"An image cannot be read: {reason(error)}.") from error


def _as_bytes(file: str) -> bytes:
    """The name of a file, which need not be UTF-8."""
    return file.encode() if "://" in file else os.fsencode(file)


def _stat(file: str) -> Any:
    """What has `length` and `mtime_nsec` of a file."""
    try:
        file.encode()
    except UnicodeEncodeError:  # TensorFlow's own takes names in UTF-8 only
        stat = os.stat(file)
        return types.SimpleNamespace(length=stat.st_size, mtime_nsec=stat.st_mtime_ns)
    return tf.io.gfile.stat(file)


def _read(file: str) -> bytes:
    return tf.io.read_file(file).numpy() if "://" in file else Path(file).read_bytes()
