"""Batches on the devices, each with its part, two ahead of the step that takes them."""

import collections
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from keras_resnet.training.host_batches import HostBatches, neighbors_stay, places_in_parts
from keras_resnet.training.jax.mesh import split_over

_AHEAD = 2


class DeviceBatches:
    """One pass over global batches: an iterator of {name: array}, split over the mesh.

    Arrays are [batch_size, ...], each device with consecutive examples; with `micro_batches` = k
    [k, batch_size / k, ...], in the parts of `places_in_parts`. What fails while a batch is read,
    is raised where that batch is asked for.

    Args:
        host_batches: where they come from.
        mesh: of all devices.
        position: number of the first batch.
        dataset: `part_of_host(host_batches)`, where there is one already.
    """

    def __init__(
        self, host_batches: HostBatches, mesh: Mesh, position: int = 0, dataset: Any = None
    ):
        self.host_batches, self.position = host_batches, position
        dataset = part_of_host(host_batches) if dataset is None else dataset
        self._elements = iter(dataset)
        self._ahead: collections.deque = collections.deque()
        self._sharding = split_over(mesh, host_batches.micro_batches)
        self._places: np.ndarray | None = None
        if host_batches.micro_batches > 1:
            size = next(iter(dataset.element_spec.values())).shape[0]
            replicas = mesh.devices.size // jax.process_count()
            places = places_in_parts(
                size, replicas, host_batches.micro_batches, neighbors_stay(dataset.element_spec)
            )
            self._places = places.reshape(host_batches.micro_batches, -1)

    def __iter__(self) -> "DeviceBatches":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        while len(self._ahead) <= _AHEAD:
            self._ahead.append(self._read())
        batch = self._ahead.popleft()
        if isinstance(batch, Exception):
            raise batch
        self.position += 1
        return batch

    def example_ids(self, count: int) -> Iterator[np.ndarray]:
        """Yields the ids of the examples in the next `count` batches."""
        return self.host_batches.example_ids(self.position, count)

    def _read(self) -> "dict[str, jax.Array] | Exception":
        try:
            element = next(self._elements)
        except Exception as error:  # StopIteration among them
            return error
        return {
            name: jax.make_array_from_process_local_data(self._sharding, self._parts(value.numpy()))
            for name, value in element.items()
        }

    def _parts(self, values: np.ndarray) -> np.ndarray:
        return values if self._places is None else values[self._places]


def part_of_host(host_batches: HostBatches) -> Any:
    """Returns the data set of what this process reads of the batches."""
    return host_batches.of_host(jax.process_index(), jax.process_count())


class ConstantBatches:
    """In place of them: one synthetic batch that lies on the devices, over and over.

    So a step that takes it neither waits for a batch nor for the way to the device.
    """

    def __init__(self, host_batches: HostBatches, mesh: Mesh):
        self.host_batches, self.position = host_batches, 0
        size, parts = host_batches.batch_size // jax.process_count(), host_batches.micro_batches
        pixels = host_batches.options["image_size"]
        batch = host_batches.source.constant_batch(size // parts, pixels)
        sharding = split_over(mesh, parts)
        self._batch = {}
        for name, value in batch.items():
            array = value.numpy()
            array = np.stack([array] * parts) if parts > 1 else array
            self._batch[name] = jax.make_array_from_process_local_data(sharding, array)

    def __iter__(self) -> "ConstantBatches":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        self.position += 1
        return self._batch

    def example_ids(self, count: int) -> Iterator[np.ndarray]:
        """Yields nothing: no image stands behind them."""
        return iter(())
