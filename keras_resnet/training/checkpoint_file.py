"""One checkpoint as one file: arrays by name, in the layout of safetensors, with checksums.

The layout (https://github.com/huggingface/safetensors#format): eight bytes with the length of a
header, little-endian; the header, JSON with dtype, shape and place of each array and with texts
under `__metadata__`; then the arrays without a gap. The `safetensors` package reads it. It has no
checksums, so they stand among the texts: CRC-32 of each array, and one of the header. The package
itself does not write or read them here: it maps files into memory, which a bucket has not, and of
which a disk that loses a part of one kills the process.

A file is read as that of a stranger would be: what it claims is held against its size before
anything is allocated, and nothing in it is run.
"""

import io
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from keras_resnet import storage
from keras_resnet.bounds import parse_json

_METADATA = "__metadata__"
_CHECKSUM, _CHECKSUMS = "header_crc32", "crc32"
_NO_CHECKSUM = "00000000"  # of nothing
# Names and places of some 80,000 arrays. A network of a thousand layers under LAMB has 15,000.
_LARGEST_HEADER = 16 * 2**20
_MOST_AXES = 32  # that every numpy takes
_CHUNK = 2**20  # bytes that are read or written at once: a processor's cache has them still
_DTYPES = {
    "BOOL": np.dtype(bool),
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_KINDS = {dtype: kind for kind, dtype in _DTYPES.items()}


class Damaged(Exception):
    """A file is not the whole one that was written, or of something else; the text says why."""


class _Entry(NamedTuple):
    """Where an array lies behind the header, and what it is."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    size: int
    checksum: str


def write(path: Path, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> None:
    """Writes a file that is complete and on the disk when this returns.

    Args:
        path: of the file, on this machine or in a bucket. Nobody else knows of it.
        arrays: of any dtype of `_DTYPES`.
        texts: what stands with them, by name.

    Raises:
        OSError: it could not be written (in a bucket, also TensorFlow's errors).
        ValueError: a dtype that the layout has not, or names beyond all measure.
    """
    with path.open("wb") as file:
        file.write(_header_of(arrays, texts))
        for array in arrays.values():
            _write_bytes(file, _as_bytes(array))
    storage.flush_to_disk(path)


def verify(path: Path) -> None:
    """Reads all of a file; raises `Damaged` where it is not what was written."""
    read(path, lambda name: False)


def read(
    path: Path, wanted: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Returns the texts and the arrays of a file, of which everything is verified.

    Args:
        path: of the file, on this machine or in a bucket.
        wanted: whether the array of a name is to be returned; the others are only verified.

    Raises:
        Damaged: it is none that `write` has written, or not all of it, or cannot be read.
    """
    try:
        if not path.is_file():
            raise Damaged("it is no file" if path.exists() else "missing")
        size = storage.size_of(path)
        with path.open("rb") as file:
            texts, entries = _read_header(file, size)
            arrays = dict(_read_arrays(file, entries, wanted))
    except storage.errors_of(path) as error:
        raise Damaged(storage.reason_of(error)) from error
    return texts, arrays


# ---- The header ----------------------------------------------------------------------------------


def _header_of(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> bytes:
    """Returns the header with its length, such that the arrays begin at a multiple of eight."""
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        if array.dtype not in _KINDS:
            raise ValueError(f"{name} is {array.dtype}; a checkpoint has {', '.join(_DTYPES)}")
        begin, end = end, end + array.nbytes
        kind = _KINDS[array.dtype]
        header[name] = {"dtype": kind, "shape": [*array.shape], "data_offsets": [begin, end]}
    sums = ",".join(_checksum(_as_bytes(array).data) for array in arrays.values())
    header[_METADATA] = {**texts, _CHECKSUMS: sums, _CHECKSUM: _NO_CHECKSUM}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = _with_checksum(text, _NO_CHECKSUM, _checksum(text))
    if len(text) > _LARGEST_HEADER:
        raise ValueError(f"the names of {len(arrays):,} arrays take {len(text):,} bytes")
    return struct.pack("<Q", len(text)) + text


def _with_checksum(header: bytes, old: str, new: str) -> bytes:
    """Returns a header in which its own checksum is `new`: that of the header with _NO_CHECKSUM."""
    old, new = (f'"{_CHECKSUM}":"{digits}"' for digits in (old, new))
    return header.replace(old.encode(errors="replace"), new.encode())


def _checksum(content: bytes | memoryview, before: str = _NO_CHECKSUM) -> str:
    """Returns the checksum of what has the checksum `before`, followed by `content`."""
    return f"{zlib.crc32(content, int(before, 16)):08x}"


def _read_header(file: Any, size: int) -> tuple[dict[str, str], list[_Entry]]:
    """Returns the texts and entries of a header, verified; all places lie within the file."""
    start = file.read(8)
    if len(start) < 8:
        raise Damaged(f"it ends after {len(start)} bytes")
    (length,) = struct.unpack("<Q", start)
    if length > min(size - 8, _LARGEST_HEADER):
        raise Damaged(f"a header of {length:,} bytes in a file of {size:,}")
    content = file.read(length)
    try:
        header = parse_json(content)
    except ValueError as error:  # no JSON, or no text
        raise Damaged("its header cannot be read") from error
    texts = header.get(_METADATA) if isinstance(header, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise Damaged("it is no checkpoint of a run")
    if not {_CHECKSUM, _CHECKSUMS} <= texts.keys():
        raise Damaged("it is no checkpoint of a run: it has no checksums")
    found = texts[_CHECKSUM]
    if found != _checksum(_with_checksum(content, found, _NO_CHECKSUM)):
        raise Damaged("its header does not fit its checksum")
    entries = _entries(header, texts[_CHECKSUMS], size)
    whole = 8 + length + sum(entry.size for entry in entries)
    if whole != size:
        raise Damaged(f"it has {size:,} bytes in place of {whole:,}")
    return texts, entries


def _entries(header: Mapping[str, Any], checksums: str, file_size: int) -> list[_Entry]:
    """Returns what a header says of the arrays, in their order in the file."""
    described = [(name, entry) for name, entry in header.items() if name != _METADATA]
    sums = checksums.split(",") if described else []
    if len(sums) != len(described):
        raise Damaged(f"{len(sums):,} checksums of {len(described):,} arrays")
    entries, end = [], 0
    for (name, entry), checksum in zip(described, sums, strict=True):
        entries.append(_entry(name, entry, checksum, end))
        end += entries[-1].size
        if end > file_size:  # before numbers of thousands of digits are added up, or said
            raise Damaged(f"its header places {name[:100]!r} behind its end")
    return entries


def _entry(name: str, entry: Any, checksum: str, begin: int) -> _Entry:
    """Returns an array's entry, which has to begin at `begin`."""
    values = entry if isinstance(entry, dict) else {}
    kind, shape = values.get("dtype"), values.get("shape")
    dtype = _DTYPES.get(kind) if isinstance(kind, str) else None
    if dtype is None or not isinstance(shape, list) or len(shape) > _MOST_AXES:
        raise Damaged(f"its header makes no sense at {name[:100]!r}")
    if not all(type(length) is int and length >= 0 for length in shape):
        raise Damaged(f"its header gives {name[:100]!r} no shape")
    size = math.prod(shape) * dtype.itemsize
    if values.get("data_offsets") != [begin, begin + size]:
        raise Damaged(f"its header places {name[:100]!r} where it cannot be")
    return _Entry(name, dtype, tuple(shape), size, checksum)


# ---- The arrays ----------------------------------------------------------------------------------


def _read_arrays(
    file: Any, entries: Sequence[_Entry], wanted: Callable[[str], bool]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the wanted arrays; raises Damaged at the first that is not what was written."""
    passing = np.empty(min(_CHUNK, max((entry.size for entry in entries), default=0)), np.uint8)
    for entry in entries:
        kept = np.empty(entry.size, np.uint8) if wanted(entry.name) else None
        checksum = _NO_CHECKSUM
        for begin in range(0, entry.size, _CHUNK):
            length = min(entry.size - begin, _CHUNK)
            part = passing[:length] if kept is None else kept[begin : begin + length]
            _read_into(file, part)
            checksum = _checksum(part.data, checksum)
        if checksum != entry.checksum:
            raise Damaged(f"{entry.name[:100]!r} does not fit its checksum")
        if kept is not None:
            yield entry.name, kept.view(entry.dtype).reshape(entry.shape)


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """Returns the bytes of an array as it lies in a file, uint8[n]; a view where possible."""
    return np.asarray(array, order="C").reshape(-1).view(np.uint8)


def _write_bytes(file: Any, values: np.ndarray) -> None:
    if isinstance(file, io.BufferedIOBase):
        file.write(values.data)
        return
    for begin in range(0, len(values), _CHUNK):  # files of buckets take nothing but bytes
        file.write(values[begin : begin + _CHUNK].tobytes())


def _read_into(file: Any, values: np.ndarray) -> None:
    """Fills `values`, uint8[n]; raises Damaged where the file ends before."""
    if isinstance(file, io.BufferedIOBase):
        length = file.readinto(values.data)
    else:
        content = file.read(len(values))
        length = len(content)
        values[:length] = np.frombuffer(content, np.uint8)
    if length < len(values):
        raise Damaged("it ends early")


def find_non_finite(arrays: Mapping[str, np.ndarray]) -> str | None:
    """Returns the name of an array that holds a NaN or an infinity, None where all are finite."""
    for name, array in arrays.items():
        if array.dtype.kind in "iub":
            continue
        flat = array.reshape(-1)
        # In parts that stay in the processor's cache.
        parts = (flat[begin : begin + 2**16] for begin in range(0, len(flat), 2**16))
        if not all(np.isfinite(part).all() for part in parts):
            return name
    return None
