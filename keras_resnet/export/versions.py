"""Numbered versions of a model in a folder that a server watches."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_resnet.errors import UserError

_UNFINISHED = re.compile(r"\.export-(\d+)")


def list_versions(folder: Path) -> list[int]:
    """The version numbers in `folder`, in rising order."""
    if not folder.is_dir():
        return []
    return sorted(int(item.name) for item in folder.iterdir() if item.name.isdecimal())


def newest_version(folder: Path) -> Path:
    """`folder` itself if it is a SavedModel, else its highest version.

    Raises:
        UserError: it is neither.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    versions = list_versions(folder)
    if not versions:
        what = "is a file" if folder.exists() else "no such folder"
        if folder.is_dir():
            what = "is no SavedModel and holds no versions"
        raise UserError(f"{folder}: {what} (a SavedModel has a file saved_model.pb)")
    return folder / str(versions[-1])


@contextmanager
def new_version(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yields (an empty folder to fill, an empty list).

    When the block ends well the folder becomes the next free version, by one renaming: a server
    sees all of it or nothing (TF Serving passes over names that are no numbers). Its final path is
    then in the list. If the block fails, nothing is left.

    Raises:
        UserError: `folder` cannot be written.
    """
    temporary = folder / f".export-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    except OSError as error:
        raise UserError(f"--output={folder}: cannot be written ({error.strerror})") from error
    finished: list[Path] = []
    try:
        yield temporary, finished
        finished.append(_publish(temporary, folder))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, folder: Path) -> Path:
    number = max(list_versions(folder), default=0) + 1
    while True:
        path = folder / str(number)
        try:
            os.rename(temporary, path)
            return path
        except OSError:
            if not path.exists():
                raise
            number += 1  # another export was faster


def _remove_unfinished(folder: Path) -> None:
    """Removes what exports that were killed have left."""
    for item in folder.iterdir():
        match = _UNFINISHED.fullmatch(item.name)
        if match and not Path("/proc", match[1]).exists() and Path("/proc").is_dir():
            shutil.rmtree(item, ignore_errors=True)
