"""Numbered versions of a model in a folder that a server watches."""

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.staging import staging_folder

XML = "model.xml"  # of a version for OpenVINO, beside model.bin
# Begins the names of folders in which exports are being written.
UNFINISHED = ".export-"


def list_versions(folder: Path) -> list[int]:
    """The version numbers in `folder`, which may be in a bucket, in rising order."""
    if not folder.is_dir():
        return []
    return sorted(int(item.name) for item in folder.iterdir() if item.name.isdecimal())


def newest_version(folder: Path) -> Path:
    """`folder` itself if it is a SavedModel or a version for OpenVINO, else its highest version.

    Raises:
        UserError: it is neither.
    """
    if any((folder / name).is_file() for name in ("saved_model.pb", XML)):
        return folder
    versions = list_versions(folder)
    if not versions:
        what = "is a file" if folder.exists() else "no such folder"
        if folder.is_dir():
            what = "is no SavedModel and holds no versions"
        raise UserError(f"{folder}: {what} (a SavedModel has a file saved_model.pb)")
    return folder / str(versions[-1])


def openvino_file(path: Path) -> Path:
    """The .xml file of a version for OpenVINO, of the highest in a folder of them; else `path`."""
    versions = list_versions(path)
    file = (path / str(versions[-1]) if versions else path) / XML
    return file if file.is_file() else path


def is_name(name: str) -> bool:
    """Whether clients can call a model so."""
    return re.fullmatch(r"[\w.-]+", name) is not None


def check_name(name: str) -> str:
    """Returns it; raises UserError unless clients can call a model so."""
    if not is_name(name):
        raise UserError(f"{name!r} is no name for a model: take letters, digits, '.', '_' and '-'")
    return name


@contextmanager
def new_version(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yields (an empty folder to fill, an empty list).

    When the block ends well the folder becomes the next free version, by one renaming: a server
    sees all of it or nothing (TF Serving passes over names that are no numbers). Its final path is
    then in the list. If the block fails, nothing is left. Any number of processes may do so at
    once, on several machines, too; what killed ones have left is removed.

    Raises:
        UserError: `folder` cannot be written.
    """
    finished: list[Path] = []
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = stack.enter_context(staging_folder(folder, UNFINISHED))
        except OSError as error:
            raise UserError(f"--output={folder}: cannot be written ({error.strerror})") from error
        yield temporary, finished
        finished.append(_publish(temporary, folder))


def _publish(temporary: Path, folder: Path) -> Path:
    number = max(list_versions(folder), default=0) + 1
    while True:
        path = folder / str(number)
        try:
            os.rename(temporary, path)
            return path
        except OSError:
            if not os.path.lexists(path):
                raise
            number += 1  # another export was faster
