"""A source of image files that lie one by one: reading them."""

import functools
import hashlib
import os
import types
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.errors import DataError, reason
from keras_resnet.input_pipeline.layout import Example
from keras_resnet.input_pipeline.places import read_image
from keras_resnet.input_pipeline.sources.base import RandomAccessSource


class ImageFolder(RandomAccessSource):
    """Files, read when they are needed."""

    labels_at_hand = True

    def __init__(
        self,
        *,
        title: str,
        examples: Sequence[Example],
        class_names: tuple[str, ...],
        multi_label: bool = False,
    ):
        super().__init__(title=title, num_examples=len(examples), class_names=class_names)
        self.multi_label = multi_label
        self._files = [file for file, _ in examples]
        labels = [label for _, label in examples]
        with tf.device("CPU:0"):
            self._file_tensor = tf.constant(list(map(_as_bytes, self._files)))
            self._labels = tf.constant(
                _multi_hot(labels, len(class_names)) if multi_label else np.array(labels, np.int32)
            )

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
        digest.update(self.labels().tobytes())  # a table may have changed without its images
        return digest.hexdigest()

    def _stats(self) -> list:
        try:
            with ThreadPoolExecutor(16) as pool:
                return list(pool.map(_stat, self._files))
        except (tf.errors.OpError, OSError) as error:
            raise DataError(f"An image cannot be read: {reason(error)}.") from error


def _multi_hot(labels: Sequence[Any], classes: int) -> np.ndarray:
    """uint8[n, classes], 1 at the labels of each image."""
    rows = np.zeros((len(labels), classes), np.uint8)
    for row, own in zip(rows, labels, strict=True):
        row[list(own)] = 1
    return rows


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
    return tf.io.read_file(file).numpy() if "://" in file else read_image(file)
