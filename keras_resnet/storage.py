"""Files of this machine, and of buckets (`gs://…`) through TensorFlow's file systems.

What is in a bucket appears whole when its writer closes it, and there are no locks.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keras_resnet import backend
from keras_resnet.errors import UsageError, UserError


def in_bucket(path: str | os.PathLike[str]) -> bool:
    """Returns whether `path` is one of a bucket."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike[str]) -> Path:
    """Returns a pathlib.Path, or for a bucket what etils.epath has in its place.

    Only a bucket needs TensorFlow.

    Raises:
        UserError: TensorFlow is not installed, or does not know such addresses.
    """
    if not in_bucket(path):
        return Path(path)
    backend.require_tensorflow()
    from etils import epath

    try:
        return epath.Path(path)
    except KeyError as error:
        raise UserError(f"{path}: an address in a bucket starts with gs://") from error


@contextmanager
def explain_bucket_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what TensorFlow says of a bucket into one line; local paths are left alone.

    Raises:
        UserError: anything in the block failed that reads or writes files.
    """
    if not in_bucket(path):
        yield
        return
    import tensorflow as tf

    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: {reason}. The bucket must exist, and this machine's account be allowed to "
            "list, read, write and delete in it: try `gcloud storage ls`, and where nobody is "
            "logged in `gcloud auth application-default login`"
        ) from error


def remove_folder(folder: Path) -> None:
    """Removes a folder with all that is in it, if it is there and as far as possible."""
    if not in_bucket(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    import tensorflow as tf

    with suppress(tf.errors.OpError, OSError):
        tf.io.gfile.rmtree(os.fspath(folder))


def flush_to_disk(path: Path) -> None:
    """Returns once a file or folder is on the disk; in a bucket it is when it is closed."""
    if in_bucket(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yields a file of this machine with the content and the name of `path`: itself if it is one.

    Raises:
        UserError: it cannot be read from its bucket.
    """
    if not in_bucket(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        with explain_bucket_errors(path):
            copy.write_bytes(path.read_bytes())
        yield copy


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in `path`, or None if there is none to read."""
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):  # ValueError: no JSON, or no text
        return None
    return value if isinstance(value, dict) else None


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path of this machine; what is written there replaces `path` if the block ends well.

    Raises:
        UserError: `path` is one of a bucket, where it cannot be written.
    """
    if in_bucket(path):  # where an object appears whole
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder, path.name)
            yield temporary
            content = temporary.read_bytes()
        with explain_bucket_errors(path):
            path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_keras_file(path: Path) -> Path:
    """The path of a `.keras` file, with `~` resolved.

    Raises:
        UsageError: the name does not end with .keras.
        UserError: there is no such file.
    """
    if path.suffix != ".keras":
        raise UsageError(f"{path}: the name of a model's file should end with .keras")
    resolved = path.expanduser()
    if not resolved.is_file():
        raise UserError(f"{path}: {'is a folder' if resolved.is_dir() else 'no such file'}")
    return resolved
