"""What each host reads of the global batches, and how it is parted among its replicas."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet import input_pipeline
from keras_resnet.config import training_image_size
from keras_resnet.input_pipeline.augment.repeats import training_ids
from keras_resnet.preprocessing import Preprocessing


@dataclasses.dataclass
class HostBatches:
    """The batches of a source, of which each host reads its part.

    Attributes:
        make_batches: `input_pipeline.train_batches`, `evaluation_batches` or one that takes the
            same.
        source: what it reads.
        batch_size: of the global batch.
        micro_batches: parts in which a batch is computed, one after the other.
        options: further arguments of `make_batches`.
    """

    make_batches: Callable[..., tf.data.Dataset]
    source: Any
    batch_size: int
    micro_batches: int
    options: dict[str, Any]
    _shards: list[dict[str, int]] = dataclasses.field(default_factory=list)

    def of_host(self, shard_index: int, num_shards: int) -> tf.data.Dataset:
        """Returns the part of host `shard_index`: elements [batch_size / num_shards, ...]."""
        shard = {"shard_index": shard_index, "num_shards": num_shards}
        self._shards.append(shard)
        return self.make_batches(self.source, batch_size=self.batch_size, **shard, **self.options)

    def example_ids(self, first: int, count: int) -> Iterator[np.ndarray]:
        """Yields the ids of the examples in batches `first` to `first + count - 1`.

        Only of the hosts whose parts were made here.
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


def batches_to_train_on(
    config: ConfigDict, source: Any, first: int, end: int, image_size: int | None = None
) -> HostBatches:
    """Returns the training batches of number `first` to `end - 1`.

    Args:
        config: of the run.
        source: of the images.
        first: number of the first batch.
        end: number after the last one.
        image_size: pixels of both sides; None takes the most that the config has.
    """
    return HostBatches(
        input_pipeline.train_batches,
        source,
        config.batch_size,
        config.accumulate_steps,
        options={
            "seed": config.seed,
            "start_step": first,
            "num_steps": end,
            "image_size": image_size or training_image_size(config),
            "augment": config.data.augment.to_dict(),
            "sampler": config.data.sampler,
        },
    )


def blank_batches(config: ConfigDict, source: Any, image_size: int) -> HostBatches:
    """Returns one training batch of zeros, of the shapes and types that `source` gives."""
    batches = batches_to_train_on(config, source, 0, 1, image_size)
    return dataclasses.replace(batches, make_batches=_blank)


def _blank(source: Any, **options: Any) -> tf.data.Dataset:
    of_source = input_pipeline.train_batches(source, **options)
    blank = {name: tf.zeros(of.shape, of.dtype) for name, of in of_source.element_spec.items()}
    # The options are a part of what the step is compiled for.
    return tf.data.Dataset.from_tensors(blank).with_options(of_source.options())


def batches_to_evaluate(
    config: ConfigDict, source: Any, preprocessing: Preprocessing
) -> HostBatches:
    """Returns the batches in which every example is once, the last one padded."""
    options = {"preprocessing": preprocessing}
    return HostBatches(input_pipeline.evaluation_batches, source, config.batch_size, 1, options)


def places_in_parts(size: int, replicas: int, micro_batches: int, group: int = 1) -> np.ndarray:
    """Which examples of a host's batch are in which micro-batch and on which replica.

    Each replica gets a consecutive piece of the batch. With `micro_batches` = k, micro-batch j of
    it holds every k-th example of its piece from j on: so micro-batch j of the global batch has the
    same examples whatever the number of replicas and hosts, which batch normalization sees.

    Args:
        size: of the batch of this host.
        replicas: of this host.
        micro_batches: `accumulate_steps`.
        group: neighbors that stay together, 2 where they are to be mixed.

    Returns:
        int[micro_batches, replicas, size / (replicas * micro_batches)], positions in the batch.
    """
    pieces = np.arange(size).reshape(replicas, -1, micro_batches, group)
    return pieces.transpose(2, 0, 1, 3).reshape(micro_batches, replicas, -1)


def neighbors_stay(element_spec: Mapping[str, Any]) -> int:
    """Returns `group` of `places_in_parts` for the batches of a data set."""
    return 2 if "mix" in element_spec else 1
