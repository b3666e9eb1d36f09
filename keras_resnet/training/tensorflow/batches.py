"""The parts of the global batches that `tf.distribute` hands to the replicas."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.training.host_batches import HostBatches, neighbors_stay, places_in_parts


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
        self.source = source
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


def of_replicas(batches: HostBatches, context: tf.distribute.InputContext) -> tf.data.Dataset:
    """Returns what the replicas of a host take in turn of its part of `batches`."""
    hosts = context.num_input_pipelines
    part = batches.of_host(context.input_pipeline_id, hosts)
    return split_batches(part, context.num_replicas_in_sync // hosts, batches.micro_batches)


def split_batches(batches: tf.data.Dataset, replicas: int, micro_batches: int) -> tf.data.Dataset:
    """Splits each batch of a host into the elements that `tf.distribute` hands out in turn.

    Args:
        batches: of elements [host batch, ...], static shapes.
        replicas: of this host.
        micro_batches: `accumulate_steps`.

    Returns:
        Elements [host batch / (replicas * micro_batches), ...], in the parts of `places_in_parts`:
        for each batch and micro-batch, one a replica.
    """
    size = next(iter(batches.element_spec.values())).shape[0]
    if micro_batches == 1:
        return batches if replicas == 1 else batches.rebatch(size // replicas, drop_remainder=True)
    group = neighbors_stay(batches.element_spec)
    places = places_in_parts(size, replicas, micro_batches, group)
    places = places.reshape(micro_batches * replicas, -1)

    def split(values: tf.Tensor) -> tf.Tensor:
        return tf.gather(values, places)

    return batches.map(lambda batch: {key: split(value) for key, value in batch.items()}).unbatch()
