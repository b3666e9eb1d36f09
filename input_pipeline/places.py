"""Files and folders of this machine or of a bucket. Loads TensorFlow for buckets only."""

import errno
import os
import stat
from pathlib import Path

# A larger image file is not read at all: it would be held in memory as a whole, and a sparse file
# of a few bytes can have any size.
MAX_FILE_BYTES = 2**29


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


def refusal(path: str) -> str | None:
    """Why a local file is not even opened: it is missing, a device or pipe, or too large."""
    if "://" in path:
        return None
    try:
        return unfit(os.stat(path))
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}."


def unfit(found: os.stat_result) -> str | None:
    """Why what was found at a path is not read as an image, None if it may be."""
    if not stat.S_ISREG(found.st_mode):
        return "is no file that can be read: it is a folder, a device or a pipe."
    if found.st_size > MAX_FILE_BYTES:
        return (
            f"has {found.st_size:,} bytes; more than {MAX_FILE_BYTES:,} are not read. Replace or "
            "remove it."
        )
    return None


def read_image(path: str | os.PathLike) -> bytes:
    """The content of a local image file.

    Raises:
        OSError: it cannot be read, or is `unfit`.
    """
    if found := unfit(os.stat(path)):
        raise OSError(errno.EINVAL, found, os.fspath(path))
    return Path(path).read_bytes()


def _gfile():
    import tensorflow as tf

    return tf.io.gfile
