"""Reading files of strangers within bounds: sizes and links are looked at before the content is.

What a file unpacks to may take `FACTOR` times its own size and `ALLOWANCE` bytes; trained weights,
which are hard to compress, stay far below. Nothing outside of the file is opened for it.
"""

import contextlib
import io
import json
import math
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from keras_resnet.errors import UserError

FACTOR = 20
ALLOWANCE = 64 * 2**20
# What a library may take besides, such as its code, where only the whole process can be bounded.
_LIBRARY = 512 * 2**20
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack more than they say
_HDF5_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_process = threading.Lock()


class RefusedError(UserError, ValueError):
    """A file is damaged, or does what no honest file does."""


class Budget:
    """How many bytes may still come out of a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path):
        self.path = path
        self.size = path.stat().st_size
        self.left = self.limit = FACTOR * self.size + ALLOWANCE

    def take(self, size: int, what: str) -> None:
        """Counts `size` bytes for `what`; raises RefusedError where that is too much."""
        if size > self.left:
            raise RefusedError(
                f"{self.path} was refused: with {what} it takes {self.limit - self.left + size:,} "
                f"bytes of memory, which no {self.size:,} bytes of weights do (the limit is "
                f"{FACTOR} times the file and {ALLOWANCE // 2**20} MiB)."
            )
        self.left -= size


def parse_json(text: str | bytes) -> Any:
    """What JSON says; raises ValueError for what is none, for too many levels of it, too."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


@contextlib.contextmanager
def opened_zip(budget: Budget) -> Iterator[zipfile.ZipFile]:
    """Yields a zip archive whose members together fit the budget, which they have taken then.

    Raises:
        RefusedError: they do not, or are packed in a way that no writer of weights has.
        zipfile.BadZipFile: it is no archive.
    """
    with zipfile.ZipFile(budget.path) as archive:
        for member in archive.infolist():
            if member.compress_type not in _ZIP_METHODS or member.flag_bits & 1:
                how = "with a password" if member.flag_bits & 1 else "by an unusual method"
                raise RefusedError(
                    f"{budget.path} was refused: {member.filename!r} in it is packed {how}; "
                    "pack it anew, stored or deflated."
                )
            budget.take(member.file_size, repr(member.filename))
        yield archive


@contextlib.contextmanager
def opened_hdf5(file: Any, budget: Budget) -> Iterator[h5py.File]:
    """Yields an HDF5 file without links, data elsewhere, and more data than fit the budget.

    Args:
        file: a path or an open file.
        budget: of the file that `file` is or lies in. It is left as it is: reading takes from it.

    Raises:
        RefusedError: it is none of that kind.
        OSError: it is no HDF5 file.
    """
    content = Budget(budget.path)

    links: list[tuple[str | bytes, Any]] = []

    def visit(name: str | bytes, link: Any) -> None:
        links.append((name, link))

    with h5py.File(file, "r") as opened:
        opened.visititems_links(visit)  # which follows none, and loses what is raised in it
        for name, link in links:
            where = os.fsdecode(name)
            if not isinstance(link, h5py.HardLink):
                raise RefusedError(
                    f"{budget.path} was refused: {where!r} in it points out of the file, or is "
                    "another name for something."
                )
            found = opened[name]
            if isinstance(found, h5py.Dataset):
                _check_dataset(found, where, content)
        yield opened


def _check_dataset(dataset: h5py.Dataset, where: str, budget: Budget) -> None:
    # External storage and virtual datasets would read other files than the one named.
    if dataset.is_virtual or dataset.external:
        raise RefusedError(f"{budget.path} was refused: {where!r} in it points out of the file.")
    budget.take(dataset_bytes(dataset), repr(where))
    if dataset.chunks is None:
        return
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk > budget.limit:
        raise RefusedError(f"{budget.path} was refused: {where!r} has chunks of {chunk:,} bytes.")
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if not {*filters} <= _HDF5_FILTERS or filters.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise RefusedError(
            f"{budget.path} was refused: {where!r} is packed in an unusual way; write it without "
            "compression, or with gzip."
        )
    if h5py.h5z.FILTER_DEFLATE in filters:
        skipped = 1 << filters.index(h5py.h5z.FILTER_DEFLATE)
        _check_deflated(dataset, where, chunk, skipped, budget)


def _check_deflated(
    dataset: h5py.Dataset, where: str, chunk: int, skipped: int, budget: Budget
) -> None:
    """HDF5 unpacks a chunk whatever it becomes; this goes up to the size that it should have."""
    infos: list[Any] = []
    dataset.id.chunk_iter(infos.append)
    for info in infos:
        if info.size > budget.size:
            raise RefusedError(f"{budget.path} is truncated: {where!r} goes beyond its end.")
        if info.filter_mask & skipped:
            continue
        _, packed = dataset.id.read_direct_chunk(info.chunk_offset)
        room = chunk + 64  # a checksum
        try:
            unpacked = zlib.decompressobj().decompress(packed, room + 1)
        except zlib.error as error:
            raise RefusedError(f"{budget.path} is broken at {where!r} ({error}).") from error
        if len(unpacked) > room:
            raise RefusedError(
                f"{budget.path} was refused: a chunk of {where!r} unpacks to more than its "
                f"{chunk:,} bytes."
            )


def dataset_bytes(dataset: h5py.Dataset) -> int:
    """What the content of an HDF5 dataset takes in memory, whatever the file stores of it."""
    return math.prod(dataset.shape or ()) * dataset.dtype.itemsize


def check_keras_archive(path: Path) -> None:
    """Raises RefusedError for a `.keras` file that takes too much, or reads other files."""
    budget = Budget(path)
    with _one_line(path, "no .keras file"), opened_zip(budget) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                with opened_hdf5(io.BytesIO(archive.read(name)), budget):
                    pass


@contextlib.contextmanager
def _one_line(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except RefusedError:
        raise
    except Exception as error:  # zipfile and h5py raise what their parts raise
        raise RefusedError(f"{path} is truncated or {what} ({one_line(error)}).") from error


@contextlib.contextmanager
def bounded_process(budget: Budget) -> Iterator[None]:
    """While entered, this process gets no more memory than it has, the budget and half a gibibyte.

    For readers whose needs cannot be told before: what is beyond becomes a MemoryError, or the
    library's own error. On Linux; elsewhere nothing is bounded.
    """
    used = _data_of_process()
    if used is None:
        yield
        return
    import resource

    with _process:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limits = [used + budget.limit + _LIBRARY]
        limits += [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_of_process() -> int | None:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def one_line(error: object) -> str:
    """What an exception says, short."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
