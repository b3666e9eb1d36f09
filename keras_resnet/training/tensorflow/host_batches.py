"""What each host and replica reads of the global batches."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import input_pipeline
from keras_resnet.input_pipeline.augment.repeats import training_ids
from keras_resnet.training.tensorflow.accumulation import split_batches


@dataclasses.dataclass
class HostBatches:
    """Makes the data set of a host, whose elements its replicas take in turn.

    Attributes:
        make_batches: `input_pipeline.train_batches`, `evaluation_batches` or one that takes the
            same.
        source: what it reads.
        batch_size: of the global batch.
        parts: that many elements make up a replica's part of a batch, one after the other.
        options: further arguments of `make_batches`.
    """

    make_batches: Callable[..., tf.data.Dataset]
    source: Any
    batch_size: int
    parts: int
    options: dict[str, Any]
    _shards: list[dict[str, int]] = dataclasses.field(default_factory=list)

    def __call__(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns elements [batch_size / (replicas * parts), ...]."""
        shard = {
            "shard_index": context.input_pipeline_id,
            "num_shards": context.num_input_pipelines,
        }
        self._shards.append(shard)
        batches = self.make_batches(
            self.source, batch_size=self.batch_size, **shard, **self.options
        )
        replicas = context.num_replicas_in_sync // context.num_input_pipelines
        return split_batches(batches, replicas, self.parts)

    def handles(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Yields the handles of the examples in batches `first` to `first + count - 1`.

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
            **shard,
        )


class ConstantBatches:
    """In place of an iterator: one synthetic batch that lies on the devices, over and over.

    So a step that takes it neither waits for a batch nor for the way to the device.
    """

    def __init__(self, strategy: tf.distribute.Strategy, source, batch_size: int, image_size: int):
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
