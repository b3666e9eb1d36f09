"""Data sets larger than memory: records streamed from many files, mixed by files and a buffer."""

import functools
import hashlib
from collections.abc import Callable, Collection, Iterator
from typing import Any

import tensorflow as tf

from keras_resnet.input_pipeline import order
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.sources.base import Source
from keras_resnet.input_pipeline.sources.compression import GZIP
from keras_resnet.printing import from_bytes

_BUFFER_RECORDS = 16_384
_BUFFER_BYTES = 2**30
_OPEN_FILES = 16
_CHUNK = 256

# A slice of a TFRecord file: its path, records to skip, records to take.
FileSlice = tuple[str, int, int]


class RecordFileSource(Source):
    """TFRecord files in which each record is a tf.train.Example with an image and a label.

    An id is a pair of strings: the serialized record, and the name of the example. Each host
    reads a fixed part of the records. In every epoch the files are opened in a new order, 16 at a
    time, and their records pass through a shuffle buffer of 16,384 records or
    1 GiB, whichever is less. A run that starts in mid-epoch reads, but does not decode, the
    records of that epoch that it skips.
    """

    def __init__(
        self,
        *,
        title: str,
        class_names: tuple[str, ...],
        slices: list[FileSlice],
        record_bytes: int,
        image_key: str,
        label_key: str,
        label_offset: int = 0,
        gzipped: Collection[str] = (),
    ):
        """`record_bytes` is the mean size of a record, from which the buffer's length follows.

        The class of an example is its stored label less `label_offset`. `gzipped` are those of the
        files that are.
        """
        num_examples = sum(take for _, _, take in slices)
        super().__init__(title=title, num_examples=num_examples, class_names=class_names)
        self._slices = slices
        self._buffer = max(1, min(_BUFFER_RECORDS, _BUFFER_BYTES // max(1, record_bytes)))
        self._image_key = image_key
        self._label_key = label_key
        self._label_offset = label_offset
        self._record_bytes = record_bytes
        self._gzipped = frozenset(gzipped)

    def training_order(
        self, *, batch_size: int, seed: int, start_step: int, shard_index: int, num_shards: int
    ) -> tf.data.Dataset:
        slices = self._shard(shard_index, num_shards)
        size = sum(take for _, _, take in slices)
        if not size:
            raise DataError(f"{self.description}: too few for {num_shards} hosts; use fewer hosts.")
        first_epoch, offset = divmod(start_step * (batch_size // num_shards), size)
        epochs = tf.data.Dataset.counter(start=first_epoch)

        def read_epoch(epoch):
            skipped = tf.where(epoch == first_epoch, tf.constant(offset, tf.int64), 0)
            return self._epoch(slices, seed, epoch).skip(skipped)

        return epochs.flat_map(read_epoch).batch(batch_size // num_shards, drop_remainder=True)

    def _epoch(self, slices: list[FileSlice], seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
        # A seed set with tf.random.set_seed would enter the buffer's shuffle. This runs while
        # the function of flat_map is traced, so it sets the seed of that graph only.
        tf.compat.v1.set_random_seed(1)
        files = order.permutation(len(slices), seed=seed, epoch=epoch)
        records = self._columns(slices, files).interleave(
            _read,
            cycle_length=min(_OPEN_FILES, len(slices)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return records.shuffle(
            self._buffer,
            seed=order.stateless_seed(seed, "buffer", epoch)[0] ^ epoch,
            reshuffle_each_iteration=False,
        )

    def evaluation_order(self, *, shard_index: int, num_shards: int) -> tf.data.Dataset:
        slices = self._shard(shard_index, num_shards)
        if not slices:
            return tf.data.Dataset.from_tensor_slices(tf.zeros([0, 2], tf.string))
        return self._columns(slices).interleave(
            _read,
            cycle_length=min(_OPEN_FILES, len(slices)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = {
            self._image_key: tf.io.FixedLenFeature([], tf.string),
            self._label_key: tf.io.FixedLenFeature([], tf.int64),
        }
        parsed = tf.io.parse_example(ids[:, 0], features)
        labels = tf.cast(parsed[self._label_key], tf.int32) - self._label_offset
        return parsed[self._image_key], labels

    def records(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        for ids in self._in_order().as_numpy_iterator():
            for record, name in ids:
                yield from_bytes(name), functools.partial(self._image_of, record)

    def example_name(self, example_id: Any) -> str:
        return from_bytes(example_id[1])

    def encoded_bytes(self) -> int:
        return self._record_bytes * self.num_examples

    def fingerprint(self) -> str:
        files = {file: tf.io.gfile.stat(file) for file, _, _ in self._slices}
        sizes = {file: (stat.length, stat.mtime_nsec) for file, stat in files.items()}
        return hashlib.sha256(repr((self._slices, sizes, self._label_offset)).encode()).hexdigest()

    def chunks(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        ids = self._in_order()
        yield from ids.map(self.fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _in_order(self) -> tf.data.Dataset:
        # Blocks longer than any file: one file after the other, the next ones being read meanwhile.
        return (
            self._columns(self._slices)
            .interleave(
                _read,
                cycle_length=min(_OPEN_FILES, len(self._slices)),
                block_length=2**40,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            .batch(_CHUNK)
            .prefetch(2)
        )

    def _columns(
        self, slices: list[FileSlice], order_of_files: tf.Tensor | None = None
    ) -> tf.data.Dataset:
        """What `_read` takes of each slice."""
        kinds = [GZIP if file in self._gzipped else "" for file, _, _ in slices]
        columns = (*map(list, zip(*slices, strict=True)), kinds)
        columns = tuple(tf.constant(column) for column in columns)
        if order_of_files is not None:
            columns = tuple(tf.gather(column, order_of_files) for column in columns)
        return tf.data.Dataset.from_tensor_slices(columns)

    def _image_of(self, record: bytes) -> bytes:
        encoded, _ = self.fetch(tf.constant([[record, b""]]))
        return encoded.numpy()[0]

    def _shard(self, shard_index: int, num_shards: int) -> list[FileSlice]:
        start, stop = order.shard_range(self.num_examples, shard_index, num_shards)
        return cut(self._slices, start, stop)


def cut(slices: list[FileSlice], start: int, stop: int) -> list[FileSlice]:
    """The records start..stop of the row of records that `slices` lists."""
    parts = []
    position = 0
    for file, skip, take in slices:
        low, high = max(start - position, 0), min(stop - position, take)
        if low < high:
            parts.append((file, skip + low, high - low))
        position += take
    return parts


def _read(
    file: tf.Tensor, skip: tf.Tensor, take: tf.Tensor, compression: tf.Tensor
) -> tf.data.Dataset:
    """Handles of the records skip … skip + take - 1 of a file."""
    skip, take = tf.cast(skip, tf.int64), tf.cast(take, tf.int64)
    records = tf.data.TFRecordDataset(file, compression, buffer_size=8 * 2**20)
    records = records.skip(skip).take(take)

    def with_name(index, record):
        name = tf.strings.join(["record ", tf.strings.as_string(index), " of ", file])
        return tf.stack([record, name])

    return records.enumerate(skip).map(with_name)
