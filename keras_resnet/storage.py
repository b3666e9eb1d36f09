"""Files of this machine, and of buckets (`gs://…`) through TensorFlow's file systems.

What is in a bucket appears whole when its writer closes it, and there are no locks.
"""

import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import zipfile
import zlib
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
    backend.require_tensorflow_installed()
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


def check_bucket(path: Path, flag: str) -> None:
    """Makes sure that files can be written below a path of a bucket, by writing one.

    Args:
        flag: that named the path, such as "--workdir".

    Raises:
        UserError: they cannot, or the name is one that TensorFlow takes for a pattern.
    """
    if found := PATTERN.search(os.fspath(path)):
        raise UserError(
            f"{flag}={path}: {found[0]!r} stands for a pattern in the name of a bucket's object; "
            "take a name without it"
        )
    with explain_bucket_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".{secrets.token_hex(8)}"
        probe.write_text("can be written")
        probe.unlink()


def errors_of(path: str | os.PathLike[str]) -> tuple[type[Exception], ...]:
    """Returns what reading and writing `path` raises where it fails."""
    if not in_bucket(path):
        return (OSError,)
    import tensorflow as tf

    return OSError, tf.errors.OpError


def reason_of(error: Exception) -> str:
    """Returns in one line why reading or writing failed."""
    reason = getattr(error, "strerror", None) or str(error)
    return (reason or type(error).__name__).splitlines()[0]


def size_of(path: Path) -> int:
    """Returns the size of a file in bytes."""
    found: Any = path.stat()
    return found.length if in_bucket(path) else found.st_size


def make_executable(path: Path) -> None:
    """Lets everybody run a script of this machine."""
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


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


# What TensorFlow's readers, or those of buckets, take for a pattern.
PATTERN = re.compile(r"[][*?\\]")


@contextmanager
def plainly_named(folder: Path) -> Iterator[Path]:
    """Yields a path to `folder` that TensorFlow can read: itself, or a link with another name.

    TensorFlow's reader of checkpoints takes its argument for a pattern, in which a bracket or a
    backslash does not mean itself, and no escape helps; and it takes no name that is not UTF-8.
    """
    text = os.fspath(folder)
    if in_bucket(folder) or (_is_utf8(text) and not PATTERN.search(text)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as links:
        link = Path(links, "folder")
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """Returns the JSON object in `path`, or None if there is none to read."""
    try:
        value = json.loads(path.read_text())
    # ValueError: no JSON, or no text; RecursionError: JSON of a thousand levels.
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def absolute(path: str | os.PathLike) -> str:
    """Returns a path that means the same wherever a command is started."""
    text = os.fspath(path)
    return text.rstrip("/") if "://" in text else os.path.abspath(os.path.expanduser(text))


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
    temporary = _new_file_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _new_file_beside(path: Path) -> Path:
    """Makes an empty file for what is to become `path`, with a name that nobody foresees."""
    while True:
        temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
        try:  # O_EXCL follows no link that somebody planted
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            continue
        return temporary


def remove_leftovers(path: Path) -> None:
    """Removes what processes that were killed in `replacing(path)` have left beside it.

    Nobody else may be writing `path`.
    """
    if in_bucket(path) or not path.parent.is_dir():
        return
    name = re.compile(rf"\.{re.escape(path.stem)}\.[0-9a-f]+{re.escape(path.suffix)}")
    for entry in path.parent.iterdir():
        if name.fullmatch(entry.name) and entry.is_file():
            entry.unlink(missing_ok=True)


def find_damage_of_keras_file(path: Path) -> str | None:
    """Reads all of a `.keras` file; returns in words why it is not whole, None if it is."""
    if path.is_dir():
        return "is a folder"
    if not path.exists():
        return "missing"
    try:
        with local_copy(path) as file, zipfile.ZipFile(file) as archive:
            missing = {"config.json", "model.weights.h5"} - {*archive.namelist()}
            damaged = archive.testzip()  # reads all, checksums included
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    if missing:
        return f"no {min(missing)} in it"
    return damaged and f"{damaged} in it is damaged"


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
