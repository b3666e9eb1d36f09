"""Encoded images held in memory, or packed into one prepared file; both give any order for free."""

import contextlib
import hashlib
import json
import logging
import math
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.sources.base import RandomAccessSource, Source
from keras_resnet.input_pipeline.sources.memory import available_bytes, readable
from keras_resnet.staging import staging_folder

# Up to this size "auto" holds a split of a record format in memory.
AUTO_LIMIT_BYTES = 2**30
# What a string costs beside its bytes: its tensor element and the allocator's share (measured).
_BYTES_PER_STRING = 64
# Of the memory that is left, how much a cache may take: the rest is for batches and the model.
_SHARE_OF_MEMORY = 0.8

# What NumPy raises of an index that is none.
_UNREADABLE = (ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)

_log = logging.getLogger("input_pipeline")


def cached(source: Source, cache: str, cache_path: str = "") -> Source:
    """`source` with its encoded images where `cache` says.

    "memory" reads them once, at their first use, and "file" packs them into one file on a local
    disk, where another run of the same data finds it. "none" reads where they are. "auto" is
    "memory" for record formats of up to 1 GiB, and else "none". (`open_source` has checked that it
    is one of these.)

    A cached source is read in any order at once. So of an image folder the cache changes no
    batch; a record format in a cache has the exact order of one that fits into memory.

    Raises:
        DataError: it would not fit into memory or on the disk, or its file cannot be written.
    """
    if cache_path and cache not in ("file", "decoded"):
        raise DataError(
            f"cache_path is {cache_path!r}, but cache is {cache!r}; it is for 'file' and 'decoded'."
        )
    if source.is_synthetic:
        return source
    if cache == "auto":
        seeks = isinstance(source, RandomAccessSource)
        fits = not seeks and memory_needed(source) <= AUTO_LIMIT_BYTES
        cache = "memory" if fits else "none"
    if cache == "memory":
        return InMemory(source)
    if cache == "file":
        original = source.read if isinstance(source, RandomAccessSource) else None
        return PackedFile(source, prepare_file(source, cache_path), original)
    return source


def memory_needed(source: Source) -> int:
    """Bytes that all encoded images of a split take in memory, with what goes with them."""
    return source.encoded_bytes() + _BYTES_PER_STRING * source.num_examples


class Cached(RandomAccessSource):
    """Any order of what another source reads in one order."""

    labels_at_hand = True

    def __init__(self, source: Source):
        super().__init__(
            title=source.title, num_examples=source.num_examples, class_names=source.class_names
        )
        self._source, self.multi_label = source, source.multi_label

    def records(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        return self._source.records()

    def encoded_bytes(self) -> int:
        return self._source.encoded_bytes()

    @cached_property
    def _names(self) -> list[str]:
        return [name for name, _ in self._source.records()]

    def example_name(self, example_id: Any) -> str:
        if isinstance(self._source, RandomAccessSource):
            return self._source.example_name(example_id)
        return self._names[int(example_id)]


class InMemory(Cached):
    """Encoded images held in memory, read from the files at their first use."""

    def __init__(self, source: Source):
        """Raises DataError if the images do not fit into the memory that is left."""
        super().__init__(source)
        needed, available = memory_needed(source), available_bytes()
        if available is not None and needed > _SHARE_OF_MEMORY * available:
            raise DataError(
                f"{source.description} would take {readable(needed)} of memory, and "
                f"{readable(available)} are left, of which a cache may take "
                f"{_SHARE_OF_MEMORY:.0%}. Set data.cache to file or none."
            )

    @cached_property
    def _tensors(self) -> tuple[tf.Variable, tf.Tensor]:
        # `fetch` asks for them while a graph is traced; they belong outside of it. A variable is
        # filled in place: joining tensors would need the memory twice.
        with tf.init_scope(), tf.device("CPU:0"):
            encoded = tf.Variable(tf.fill([self.num_examples], ""), trainable=False)
            labels, place = [], 0
            for strings, numbers in self._source.chunks():
                count = len(numbers)
                tf.raw_ops.ResourceScatterUpdate(
                    resource=encoded.handle,
                    indices=tf.range(place, place + count),
                    updates=strings,
                )
                labels.append(numbers)
                place += count
            _check_count(self._source, place)
            return encoded, tf.concat(labels, 0)

    def prepare(self) -> None:
        self._tensors  # noqa: B018 (its first use reads the files)

    def labels(self) -> np.ndarray:
        return self._tensors[1].numpy()

    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, labels = self._tensors
        return tf.gather(encoded, ids), tf.gather(labels, ids)


class PackedFile(Cached):
    """Encoded images one after the other in one file, read from it by their offsets.

    Each has a checksum: one that has been damaged since is read from where it came from.
    """

    def __init__(
        self, source: Source, folder: Path, original: Callable[[Any], bytes] | None = None
    ):
        """
        Args:
            source: that was packed.
            folder: that `write_packed` wrote.
            original: number of an image -> what was packed; without it a damaged one is an error.

        Raises:
            DataError: the folder is not there any more.
        """
        super().__init__(source)
        self._folder, self._original = folder, original
        try:
            with np.load(folder / "index.npz") as index:
                self._offsets, self._sums = index["offsets"], index["sums"]
                labels = index["labels"]
        except (OSError, *_UNREADABLE) as error:
            raise DataError(f"The prepared file in {folder} was changed: {error}.") from error
        self._is_damaged = False
        self._file = os.open(folder / "images", os.O_RDONLY)
        with tf.device("CPU:0"):
            self._labels = tf.constant(labels)

    def __del__(self):
        if hasattr(self, "_file"):
            os.close(self._file)

    def labels(self) -> np.ndarray:
        return self._labels.numpy()

    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # TensorFlow reads whole files only. Python's read at an offset lets other threads run.
        encoded = tf.numpy_function(self.read_images, [ids], tf.string, stateful=False)
        encoded = tf.ensure_shape(encoded, ids.shape)
        return encoded, tf.gather(self._labels, ids)

    def read_images(self, ids: np.ndarray) -> np.ndarray:
        """The images with these ids, as an array of bytes."""
        images = np.empty(len(ids), object)
        for place, example_id in enumerate(ids):
            start, stop = self._offsets[example_id], self._offsets[example_id + 1]
            encoded = os.pread(self._file, int(stop - start), int(start))
            if zlib.crc32(encoded) != self._sums[example_id]:
                encoded = self._undamaged(example_id)
            images[place] = encoded
        return images

    def _undamaged(self, example_id: Any) -> bytes:
        file = self._folder / "images"
        if self._original is None:
            raise DataError(f"The prepared file {file} is damaged; remove {self._folder}.")
        if not self._is_damaged:
            self._is_damaged = True
            _log.warning(
                "%s is damaged. What is damaged is read from its source; after the run remove %s",
                file,
                self._folder,
            )
        return self._original(example_id)


def prepare_file(source: Source, cache_path: str) -> Path:
    """The folder of the prepared file of `source` below `cache_path`, written if it is not there.

    The folder's name holds a fingerprint of the files behind the source, so data that has changed
    is prepared anew. It gets its name when it is complete: a run that is killed leaves only a
    folder that starts with a dot, which the next one removes.

    Raises:
        DataError: no path, too little space on the disk, or the file cannot be written.
    """
    if not cache_path or "://" in cache_path:
        raise DataError(
            f"cache='file' needs a folder on a local disk (data.cache_path); it is {cache_path!r}."
        )
    root = Path(cache_path).expanduser()
    key = json.dumps([source.fingerprint(), source.description, source.class_names])
    folder = packed_folder(root, source.title, hashlib.sha256(key.encode()).hexdigest()[:16])
    if is_whole(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        needed, free = source.encoded_bytes(), shutil.disk_usage(root).free
        if needed > free:
            raise DataError(
                f"{source.description} takes {readable(needed)}, and {root} has {readable(free)} "
                "left. Name another folder (data.cache_path), or set data.cache to none."
            )
        _log.warning("packing %s (%s) into %s", source.description, readable(needed), folder)
        write_packed(folder, source.title, _all_of(source))
    except OSError as error:
        raise DataError(
            f"Cannot write the prepared file to {root}: {error.strerror or error}. "
            "Name another folder with data.cache_path."
        ) from error
    return folder


def _all_of(source: Source) -> Iterator[tuple[Sequence[bytes], np.ndarray]]:
    found = 0
    for strings, labels in source.chunks():
        yield strings.numpy(), labels.numpy()
        found += len(labels)
    _check_count(source, found)


def packed_folder(root: Path, title: str, key: str) -> Path:
    """The folder of a packed file."""
    return root / f"{_in_a_name(title)}-{key}"


def _in_a_name(title: str) -> str:
    return re.sub(r"\W+", "-", title).strip("-")


def is_whole(folder: Path) -> bool:
    """Whether a packed file is there and nothing is missing at its end."""
    try:
        with np.load(folder / "index.npz") as index:
            offsets, counts = index["offsets"], {len(index[name]) for name in ("labels", "sums")}
        size = os.stat(folder / "images").st_size
        return bool(size == offsets[-1] and counts == {len(offsets) - 1})
    except (OSError, *_UNREADABLE):
        return False


def write_packed(
    folder: Path,
    title: str,
    chunks: Iterable[tuple[Sequence[bytes], np.ndarray]],
    limit: float = math.inf,
) -> bool:
    """Packs images into a file, which gets its name when it is complete.

    Args:
        folder: see `packed_folder`.
        title: of the source.
        chunks: encoded images and labels, some at a time.
        limit: bytes that they may take.

    Returns:
        False, and nothing is left, where they take more.

    Raises:
        OSError: the folder cannot be written.
    """
    prefix = f".{_in_a_name(title)}-"
    with staging_folder(folder.parent, prefix) as temporary:
        if not _pack(chunks, temporary, limit):
            return False
        os.chmod(temporary, 0o755)
        _rename(temporary, folder, prefix)
    return True


def _pack(chunks: Iterable[tuple[Sequence[bytes], np.ndarray]], folder: Path, limit: float) -> bool:
    sizes: list[int] = []
    sums: list[int] = []
    labels, total = [], 0
    with open(folder / "images", "wb") as file:
        for images, numbers in chunks:
            for encoded in images:
                sizes.append(len(encoded))
                total += len(encoded)
                if total > limit:
                    return False
                sums.append(zlib.crc32(encoded))
                file.write(encoded)
            labels.append(numbers)
        file.flush()
        os.fsync(file.fileno())
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    crc = np.array(sums, np.uint32)
    np.savez(folder / "index.npz", offsets=offsets, labels=np.concatenate(labels), sums=crc)
    return True


def _rename(folder: Path, name: Path, prefix: str) -> None:
    """Gives a folder its name, unless another process was faster; what is not whole there goes."""
    if os.path.lexists(name) and not is_whole(name):
        with staging_folder(name.parent, prefix) as aside, contextlib.suppress(FileNotFoundError):
            name.rename(aside / "damaged")
    try:
        folder.rename(name)
    except OSError:
        if not is_whole(name):
            raise


def _check_count(source: Source, found: int) -> None:
    if found != source.num_examples:
        raise DataError(
            f"{source.description}, but {found:,} could be read: its files have changed."
        )
