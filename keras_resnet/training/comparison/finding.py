"""Which runs are meant: work directories, folders that hold some, and patterns."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from keras_resnet import storage
from keras_resnet.errors import UserError
from keras_resnet.training.workdir import WorkDir


def find_runs(paths: Iterable[str | os.PathLike]) -> tuple[list[WorkDir], list[str]]:
    """Returns the runs that paths name, in their order and each once, and notes on the rest.

    Args:
        paths: work directories, of this machine or of buckets; folders whose folders are some; and
            patterns of those as shells have them.

    Raises:
        UserError: there is no such folder, or a pattern finds nothing.
    """
    runs: dict[str, WorkDir] = {}
    notes: list[str] = []
    for path in paths:
        for place in _matches(path):
            found = _runs_at(place)
            if not found:
                notes.append(
                    f"{place}: is left out; it has no config.json, and no folder in it has one: no "
                    "run was started here"
                )
            for workdir in found:
                runs.setdefault(_identity(workdir.path), workdir)
    return list(runs.values()), notes


def names_of(runs: Iterable[WorkDir]) -> list[str]:
    """Returns a name for each run: its folder's, or as much of its path as tells them apart."""
    places = [workdir.path for workdir in runs]
    paths = [path if storage.in_bucket(path) else path.absolute() for path in places]
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    texts = [os.fspath(path) for path in paths]
    above = os.path.commonpath(texts) if not any("://" in text for text in texts) else ""
    return [os.path.relpath(text, above) if above else text for text in texts]


def _matches(path: str | os.PathLike) -> list[Path]:
    """The path itself, or what it stands for as a pattern."""
    place = WorkDir(path).path
    if storage.in_bucket(path) or place.exists():
        return [place]
    found = sorted(glob.glob(os.fspath(place)))
    if not found:
        what = "nothing has such a name" if glob.has_magic(os.fspath(place)) else "no such folder"
        raise UserError(f"{path}: {what}; give work directories of runs, or a folder of them")
    return [match for match in map(Path, found) if match.is_dir()]


def _runs_at(place: Path) -> list[WorkDir]:
    if WorkDir(place).is_begun():
        return [WorkDir(place)]
    with storage.explain_bucket_errors(place):
        folders = sorted(place.iterdir()) if place.is_dir() else []
        return [WorkDir(folder) for folder in folders if WorkDir(folder).is_begun()]


def _identity(path: Path) -> str:
    return os.fspath(path) if storage.in_bucket(path) else os.path.realpath(path)
