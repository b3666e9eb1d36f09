"""What each host and replica reads of the global batches."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import input_pipeline
from keras_resnet.input_pipeline.augment.repeats import training_ids


@dataclasses.dataclass
class HostBatches:
    """Makes the data set of a host, whose elements its replicas take in turn.

    Attributes:
        make_batches: `input_pipeline.train_batches`, `evaluation_batches` or one that takes the
            same.
        source: what it reads.
        batch_size: of the global batch.
        micro_batches: that many elements make up a replica's part of a batch, one after the other.
        options: further arguments of `make_batches`.
    """

    make_batches: Callable[..., tf.data.Dataset]
    source: Any
    batch_size: int
    micro_batches: int
    options: dict[str, Any]
    _shards: list[dict[str, int]] = dataclasses.field(default_factory=list)

    def __call__(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns elements [batch_size / (replicas * micro_batches), ...]."""
        shard = {
            "shard_index": context.input_pipeline_id,
            "num_shards": context.num_input_pipelines,
        }
        self._shards.append(shard)
        batches = self.make_batches(
            self.source, batch_size=self.batch_size, **shard, **self.options
        )
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        return split_batches(batches, replicas, self.micro_batches)

    def example_ids(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Yields the ids of the examples in batches `first` to `first + count - 1`.

        Only of the hosts whose data sets were made here.
        """
        for shard in self._shards:
            yield from self._order(shard, first).take(count).unbatch().as_numpy_iterator()

    def _order(self, shard: dict[str, int], first: int) -> tf.data.Dataset:
        if self.make_batches is input_pipeline.evaluation_batches:
            singles = self.source.evaluation_order(**shard)
            return singles.batch(self.batch_size // shard["num_shards"]).skip(first)
        return training_ids(
            self.source,
            repeats=self.options["augment"].get("repeats", 1),
            batch_size=self.batch_size,
            seed=self.options["seed"],
            start_step=first,
            sampler=self.options.get("sampler", "shuffle"),
            **shard,
        )


@dataclasses.dataclass
class DistributedBatches:
    """One pass over global batches, each replica's part of which comes out of `iterator`.

    Attributes:
        host_batches: where they come from.
        iterator: gives what `strategy.run` takes.
        position: number of the next batch.
    """

    host_batches: HostBatches
    iterator: Iterator[Any]
    position: int = 0

    def example_ids(self, count: int) -> Iterator[np.ndarray]:
        """Yields the ids of the examples in the next `count` batches."""
        return self.host_batches.example_ids(self.position, count)


class ConstantBatches:
    """In place of an iterator: one synthetic batch that lies on the devices, over and over.

    So a step that takes it neither waits for a batch nor for the way to the device.
    """

    def __init__(
        self, strategy: tf.distribute.Strategy, source: Any, batch_size: int, image_size: int
    ):
        size = batch_size // strategy.num_replicas_in_sync
        batch = source.constant_batch(size, image_size)
        self._batch = {
            key: strategy.experimental_distribute_values_from_function(lambda _, value=value: value)
            for key, value in batch.items()
        }

    def __iter__(self) -> "ConstantBatches":
        return self

    def __next__(self) -> dict[str, tf.Tensor]:
        return self._batch


def split_batches(batches: tf.data.Dataset, replicas: int, micro_batches: int) -> tf.data.Dataset:
    """Splits each batch of a host into the elements that `tf.distribute` hands out in turn.

    Each replica gets a consecutive piece of the batch. With `micro_batches` = k, element j of a
    replica holds every k-th example of its piece from j on, or pair of examples where they are to
    be mixed: so micro-batch j of the global batch has the same examples whatever the number of
    replicas and hosts, which batch normalization sees.

    Args:
        batches: of elements [host batch, ...], static shapes.
        replicas: of this host.
        micro_batches: `accumulate_steps`.

    Returns:
        Elements [host batch / (replicas * micro_batches), ...]: for each batch and micro-batch, one
        a replica.
    """
    size = next(iter(batches.element_spec.values())).shape[0]
    if micro_batches == 1:
        return batches if replicas == 1 else batches.rebatch(size // replicas, drop_remainder=True)
    group = 2 if "mix" in batches.element_spec else 1  # neighbors are mixed

    # Position in the batch of each example, in the order in which they are handed out.
    pieces = np.arange(size).reshape(replicas, -1, micro_batches, group)
    places = pieces.transpose(2, 0, 1, 3).reshape(micro_batches * replicas, -1)

    def split(values: tf.Tensor) -> tf.Tensor:
        return tf.gather(values, places)

    return batches.map(lambda batch: {key: split(value) for key, value in batch.items()}).unbatch()
