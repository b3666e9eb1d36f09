"""Files and folders of this machine or of a bucket. Loads TensorFlow for buckets only."""

import os
from pathlib import Path


def in_bucket(path: str) -> bool:
    return "://" in path


def root_of(path: str) -> str:
    """A path from a config or a command line, with a home spelled out."""
    return path.rstrip("/") if in_bucket(path) else str(Path(path).expanduser())


def is_folder(path: str) -> bool:
    return _gfile().isdir(path) if in_bucket(path) else os.path.isdir(path)


def exists(path: str) -> bool:
    return _gfile().exists(path) if in_bucket(path) else os.path.exists(path)


def read_bytes(path: str, count: int = -1) -> bytes:
    """The first `count` bytes of a file, or all.

    Raises:
        OSError: it cannot be read.
    """
    if not in_bucket(path):
        with open(path, "rb") as file:
            return file.read(count)
    import tensorflow as tf

    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read(count)
    except tf.errors.OpError as error:
        raise OSError(error.message or type(error).__name__) from error


def _gfile():
    import tensorflow as tf

    return tf.io.gfile
