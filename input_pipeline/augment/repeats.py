"""Which examples a training batch holds: the sampler, and repeated augmentation on top of it."""

import tensorflow as tf

from keras_resnet.input_pipeline.balanced import balanced_indices
from keras_resnet.input_pipeline.errors import DataError, unknown_name
from keras_resnet.input_pipeline.settings import SAMPLERS
from keras_resnet.input_pipeline.sources.base import RandomAccessSource, Source


def training_ids(
    source: Source,
    *,
    repeats: int,
    batch_size: int,
    seed: int,
    start_step: int,
    shard_index: int,
    num_shards: int,
    sampler: str = "shuffle",
) -> tf.data.Dataset:
    """Batches of ids in which each example stands `repeats` times.

    Hoffer et al. 2020 (Augment your batch), section 3, in the sense of timm's RepeatAugSampler:
    a batch holds batch_size / repeats examples, each augmented `repeats` times, and an epoch
    still is num_examples images. So an epoch sees num_examples / repeats examples, and `repeats`
    epochs see each example exactly `repeats` times. The copies stand batch_size / repeats places
    apart, so replicas mostly get different ones.

    Args:
        batch_size: of the global batch.
        sampler: "shuffle", every example once an epoch; or "balanced", every class equally often,
            of a source that reads any example at once.

    Returns:
        Endless elements of batch_size // num_shards ids, from batch `start_step` on.

    Raises:
        DataError: `batch_size` does not divide by repeats × num_shards; there is no such sampler,
            or the source has one order only.
    """
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", sampler, SAMPLERS)
    balanced = sampler == "balanced"
    if balanced and source.multi_label:
        raise DataError(
            "sampler is 'balanced', but images have several labels, so that no order shows every "
            "class equally often; set data.sampler=shuffle, and loss.class_weights=balanced."
        )
    if balanced and not isinstance(source, RandomAccessSource):
        raise DataError(
            f"sampler is 'balanced', but {source.title} is read in the order of its files; set "
            "data.cache to memory or file, or data.sampler to shuffle."
        )
    parts = repeats * num_shards
    if batch_size % parts:
        raise DataError(
            f"batch_size is {batch_size}; with repeats={repeats} on {num_shards} hosts it must be "
            f"a multiple of {parts}, such as {-(-batch_size // parts) * parts}."
        )
    options = {"seed": seed, "start_step": start_step, "batch_size": batch_size // repeats}
    if (repeats == 1 and not balanced) or not isinstance(source, RandomAccessSource):
        ids = source.training_order(shard_index=shard_index, num_shards=num_shards, **options)
        return ids.map(lambda batch: _tile(batch, repeats)) if repeats > 1 else ids
    # Indices are cheap: every host takes its part of the one global batch.
    if balanced:
        ids = balanced_indices(source.labels(), **options)
    else:
        ids = source.training_order(shard_index=0, num_shards=1, **options)
    size = batch_size // num_shards
    part = slice(shard_index * size, (shard_index + 1) * size)
    return ids.map(lambda batch: _tile(batch, repeats)[part])


def _tile(batch: tf.Tensor, repeats: int) -> tf.Tensor:
    return tf.concat([batch] * repeats, 0)
