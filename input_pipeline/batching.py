"""Batches for training and for evaluation, as `tf.data` datasets of uint8 images.

Work is done on chunks of a batch: each call of the parallel map fetches, decodes and augments a
chunk, so that small images do not pay `tf.data`'s cost per element (about half of the time for
32×32 pixels) and a batch of large ones is spread over all cores.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from keras_resnet.input_pipeline.augment import check_augment, check_batch
from keras_resnet.input_pipeline.augment.pipeline import (
    augment_images,
    batch_extras,
    random_numbers,
    training_image,
)
from keras_resnet.input_pipeline.augment.repeats import training_ids
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.order import check_batches, shard_range
from keras_resnet.input_pipeline.preprocessing import (
    check_preprocessing,
    evaluation_image,
    map_files,
)
from keras_resnet.input_pipeline.skipping import OK, replace_skipped, skip_corrupt
from keras_resnet.input_pipeline.sources.base import Source

# Pixels in a chunk: 64 images of 32×32, one of 224×224.
_CHUNK_PIXELS = 2**16
# Nothing here needs AutoGraph, which would rewrite each function on the way: 12 of the 30 seconds
# that a run on the digits took to its first step. What the data sets call inherits this.
without_autograph = tf.autograph.experimental.do_not_convert
# How far `training_chunks` goes; each stage includes the ones before it.
STAGES = ("read", "decode", "augment")


@without_autograph
def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    num_steps: int,
    start_step: int = 0,
    image_size: int,
    augment: Mapping[str, Any],
    shard_index: int = 0,
    num_shards: int = 1,
    sampler: str = "shuffle",
) -> tf.data.Dataset:
    """The training batches start_step … num_steps - 1 of a run.

    Batch t is a function of (seed, t) alone: the same whatever the number of threads and whether
    the run was resumed. Every epoch is a fresh permutation of all examples and batches run across
    the borders of epochs, so nothing is dropped. Where the source skips corrupt images, the next
    good row of this host's batch stands in for one (`skipping.replace_skipped`).

    Args:
        source: what to train on.
        batch_size: of the global batch, a multiple of `num_shards`.
        seed: of order and
        num_steps: length of the whole run, in batches.
        start_step: the first batch wanted; skipped images are not decoded, and not even read
            where the source can seek.
        image_size: pixels of both sides of the images that come out.
        augment: see `augment.AUGMENTATIONS`.
        shard_index: this host's number among `num_shards`. From sources that seek, the hosts get
            consecutive parts of the batch that one host would get; from record streams, each
            host reads a fixed part of the data.
        sampler: "shuffle", or "balanced" for every class equally often (`balanced`). An epoch is
            then as many images as before, the rarer of them more than once.

    Returns:
        num_steps - start_step elements {"image": uint8[b, image_size, image_size, 3],
        "label": int32[b]}, b = batch_size // num_shards, static shapes; with mixup or CutMix also
        "mix": float32[b, 6], rows of `augment.mixing.mix_numbers`. Labels of a
        source that is `multi_label` are float32[b, classes], 0 or 1.

    Raises:
        DataError: an argument is out of range, or an augmentation is unknown.
    """
    size = check_batches(batch_size, shard_index, num_shards)
    if source.is_synthetic:
        check_batch(check_augment(augment), size)
        batch = source.constant_batch(size, image_size)
        return _finish(tf.data.Dataset.from_tensors(batch).repeat(num_steps - start_step))
    chunks = training_chunks(
        source,
        batch_size=batch_size,
        seed=seed,
        num_steps=num_steps,
        start_step=start_step,
        image_size=image_size,
        augment=augment,
        shard_index=shard_index,
        num_shards=num_shards,
        sampler=sampler,
    )
    batches = chunks.rebatch(size, drop_remainder=True)
    if source.skipped is not None:
        batches = batches.map(replace_skipped)
    return _finish(batches)


@without_autograph
def training_chunks(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    num_steps: int,
    start_step: int = 0,
    image_size: int,
    augment: Mapping[str, Any],
    shard_index: int = 0,
    num_shards: int = 1,
    sampler: str = "shuffle",
    stage: str = "augment",
) -> tf.data.Dataset:
    """What `train_batches` cuts into batches; with an earlier `stage`, to time it by itself.

    Returns:
        Elements of some n rows: {"label": int32[n]} and, after "read", {"bytes": int32[n]}, the
        sizes of the encoded images; after "decode" and "augment" what `train_batches` returns.
    """
    size = check_batches(batch_size, shard_index, num_shards)
    if not 0 <= start_step <= num_steps:
        raise DataError(f"start_step is {start_step}; it must be in 0..{num_steps} (num_steps).")
    augment = check_augment(augment)
    check_batch(augment, size)
    chunks = _chunk_sizes(image_size, size)

    def add_random_numbers(step, ids):
        numbers = random_numbers(
            augment, seed=seed, step=step, batch_size=batch_size, image_size=image_size
        )
        rows = slice(shard_index * size, (shard_index + 1) * size)
        return ids, {name: values[rows] for name, values in numbers.items()}

    source.prepare()
    ids = training_ids(
        source,
        repeats=augment.get("repeats", 1),
        batch_size=batch_size,
        seed=seed,
        start_step=start_step,
        shard_index=shard_index,
        num_shards=num_shards,
        sampler=sampler,
    )
    steps = tf.data.Dataset.range(start_step, num_steps)
    batches = tf.data.Dataset.zip(steps, ids).map(add_random_numbers)
    load = _training_loader(source, augment, max(chunks), image_size, stage)
    return batches.rebatch(chunks).map(
        skip_corrupt(load, source), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


def _training_loader(
    source: Source, augment: Mapping[str, Any], chunk: int, image_size: int, stage: str
) -> Callable[..., dict[str, tf.Tensor]]:
    """What turns a chunk's ids and random numbers into what `training_chunks` returns."""

    def load(ids, numbers):
        encoded, labels = _fetch(source, ids)
        if stage == "read":
            return {"label": labels, "bytes": tf.strings.length(encoded)}
        images = _map_images(
            lambda example: training_image(
                example[0], example[1], augment, image_size, **source.decoding
            ),
            (encoded, numbers),
            chunk,
            image_size=image_size,
            upright=source.upright,
            keeps_fitting="random_resized_crop" not in augment,
        )
        if stage == "augment":
            images = augment_images(images, numbers, augment)
        return {"image": images, "label": labels, **batch_extras(numbers)}

    return load


@without_autograph
def evaluation_batches(
    source: Source,
    *,
    batch_size: int,
    preprocessing: Mapping[str, Any],
    shard_index: int = 0,
    num_shards: int = 1,
) -> tf.data.Dataset:
    """Every example once over all hosts, in batches of equal size and equal number on each host.

    Args:
        source: what to evaluate on.
        batch_size: of the global batch, a multiple of `num_shards`.
        preprocessing: see `preprocessing`; the images come out as `evaluation_image` makes them.
        shard_index: this host's number among `num_shards`.

    Returns:
        ceil(num_examples / batch_size) elements {"image": uint8[b, image_size, image_size, 3],
        "label": int32[b], "mask": float32[b]}, b = batch_size // num_shards, static shapes; labels
        as those of `train_batches`.
        Where the examples run out, zeros fill up the batch and its mask is 0. So it is for a
        corrupt image that the source skips: it counts neither as right nor as wrong.

    Raises:
        DataError: an argument is out of range, or `preprocessing` is not valid.
    """
    size = check_batches(batch_size, shard_index, num_shards)
    preprocessing = check_preprocessing(preprocessing)
    image_size = preprocessing["image_size"]
    start, stop = shard_range(source.num_examples, shard_index, num_shards)
    num_batches = -(-source.num_examples // batch_size)
    if source.is_synthetic:
        return _synthetic_evaluation(source, size, image_size, stop - start, num_batches)
    chunk_sizes = _chunk_sizes(image_size, size)

    def load(ids):
        encoded, labels = _fetch(source, ids)
        images = _map_images(
            lambda file: evaluation_image(file, preprocessing, of_cache=source.of_cache),
            encoded,
            max(chunk_sizes),
            image_size=image_size,
            keeps_fitting=preprocessing["crop_ratio"] == 1,
            upright=preprocessing["exif"] == "apply",
        )
        return {"image": images, "label": labels, "mask": tf.ones(tf.shape(labels)[:1])}

    source.prepare()
    ids = source.evaluation_order(shard_index=shard_index, num_shards=num_shards)
    chunks = ids.batch(size).rebatch(chunk_sizes)
    chunks = chunks.map(
        skip_corrupt(load, source), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    if source.skipped is not None:
        chunks = chunks.map(_mask_skipped)
    label = chunks.element_spec["label"]
    blank = tf.zeros(label.shape[1:], label.dtype)
    padding = _padding(image_size, blank, num_batches * size - (stop - start), size)
    chunks = chunks.concatenate(padding)
    batches = chunks.rebatch(size, drop_remainder=True)
    return _finish(batches.apply(tf.data.experimental.assert_cardinality(num_batches)))


def _fetch(source: Source, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Encoded images and labels of some ids; label sets as the floats that a loss takes."""
    encoded, labels = source.fetch(ids)
    if not source.multi_label:
        return encoded, labels
    labels = tf.ensure_shape(labels, [None, len(source.class_names)])
    return encoded, tf.cast(labels, tf.float32)


def _padding(image_size: int, label: tf.Tensor, count: int, batch_size: int) -> tf.data.Dataset:
    """What fills up the last batches: chunks of `count` examples in all that do not count."""
    blank = {
        "image": tf.zeros([image_size, image_size, 3], tf.uint8),
        "label": label,
        "mask": tf.zeros([], tf.float32),
    }
    blanks = tf.data.Dataset.from_tensors(blank)
    rest, full = count % batch_size, count - count % batch_size
    return blanks.repeat(rest).batch(batch_size).concatenate(blanks.repeat(full).batch(batch_size))


def _mask_skipped(chunk: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    fine = tf.cast(chunk.pop(OK), tf.float32)
    return {**chunk, "mask": chunk["mask"] * fine}


def _synthetic_evaluation(
    source: Source, size: int, image_size: int, examples: int, num_batches: int
) -> tf.data.Dataset:
    batch = source.constant_batch(size, image_size)

    def masked(index):
        left = tf.clip_by_value(examples - index * size, 0, size)
        return {**batch, "mask": tf.cast(tf.range(size, dtype=tf.int64) < left, tf.float32)}

    return _finish(tf.data.Dataset.range(num_batches).map(masked))


def _map_images(
    function: Callable[[Any], tf.Tensor], chunk: Any, chunk_size: int, **options: Any
) -> tf.Tensor:
    """uint8[n, image_size, image_size, 3]: `function` of each of the n rows of a chunk."""
    if chunk_size == 1:  # A loop would cost a tenth of the decoding.
        return function(tf.nest.map_structure(lambda rows: rows[0], chunk))[None]
    return map_files(function, chunk, **options)


def _chunk_sizes(image_size: int, batch_size: int) -> list[int]:
    """Sizes of the chunks that make up one batch exactly.

    No chunk runs across the border of a batch: TensorFlow 2.21 prints an error line for each part
    of a chunk that `rebatch` has to put together ("Tensor RefCount not reliable …").
    """
    size = max(1, min(batch_size, _CHUNK_PIXELS // image_size**2))
    whole, rest = divmod(batch_size, size)
    return [size] * whole + ([rest] if rest else [])


def _finish(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Each host builds its own part; tf.distribute must not cut it a second time.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return batches.with_options(options).prefetch(2)
