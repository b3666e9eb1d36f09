"""Numbered versions of a model in a bucket, where nothing can be renamed and nothing be locked.

A version is made on a disk of this machine and uploaded when it is whole, its graph first: a server
that looks in between finds a graph, which holds the weights, and not a folder without one, which it
would refuse.
"""

import os
import random
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from keras_resnet.export.versions import list_versions
from keras_resnet.storage import check_bucket, errors_of, explain_bucket_errors

# Servers pass over it, as it is no number. It holds a claim, NUMBER-TOKEN, for each version that is
# being uploaded.
_CLAIMS = ".export-claims"
_GRAPH = "saved_model.pb"


@contextmanager
def new_version_in_bucket(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yields (an empty folder of this machine to fill, an empty list): see `versions.new_version`.

    Raises:
        UserError: the bucket cannot be written.
    """
    finished: list[Path] = []
    check_bucket(folder, "--output")
    with tempfile.TemporaryDirectory(prefix="keras-resnet-export-") as temporary:
        yield Path(temporary), finished
        with explain_bucket_errors(folder), _claimed(folder) as number:
            _upload(Path(temporary), folder / str(number))
            finished.append(folder / str(number))


@contextmanager
def _claimed(folder: Path) -> Iterator[int]:
    """Yields a number that is free, and that no other export takes meanwhile.

    Each writes a claim and looks then who else has one. A bucket shows what was written before, so
    of two at least one sees the other; whoever sees another takes its claim back and tries again.
    """
    token = secrets.token_hex(8)
    claims = folder / _CLAIMS
    claims.mkdir(parents=True, exist_ok=True)
    while True:
        taken = [*list_versions(folder), *(number for number, _ in _list_claims(claims))]
        number = max(taken, default=0) + 1
        claim = claims / f"{number}-{token}"
        claim.write_text("is being uploaded")
        try:
            owners = [owner for other, owner in _list_claims(claims) if other == number]
            if owners == [token] and number not in list_versions(folder):
                yield number
                return
        finally:
            with suppress(*errors_of(folder)):
                claim.unlink()
        time.sleep(random.uniform(0, 1))


def _list_claims(folder: Path) -> list[tuple[int, str]]:
    """(number, token) of each."""
    names = (item.name.partition("-") for item in folder.iterdir())
    return [(int(number), token) for number, _, token in names if number.isdecimal()]


def _upload(source: Path, target: Path) -> None:
    files = [file for file in source.rglob("*") if file.is_file()]
    for file in sorted(files, key=lambda file: (file.name != _GRAPH, file)):
        place = target / os.fspath(file.relative_to(source))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
