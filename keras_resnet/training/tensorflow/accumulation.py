"""The parts of a batch that replicas, and steps of gradient accumulation, get one by one."""

import tensorflow as tf


def split_batches(batches: tf.data.Dataset, replicas: int, parts: int) -> tf.data.Dataset:
    """Splits each batch of a host into the elements that `tf.distribute` hands out in turn.

    Each replica gets a consecutive piece of the batch. With `parts`, element j of a replica holds
    every `parts`-th example of its piece from j on, or pair of examples where they are to be mixed:
    so part j of the global batch has the same examples whatever the number of replicas and hosts,
    which batch normalization sees.

    Args:
        batches: of elements [host batch, ...], static shapes.
        replicas: of this host.
        parts: `accumulate_steps`.

    Returns:
        Elements [host batch / (replicas * parts), ...]: for each batch and part, one a replica.
    """
    size = next(iter(batches.element_spec.values())).shape[0]
    if parts == 1:
        return batches if replicas == 1 else batches.rebatch(size // replicas, drop_remainder=True)
    group = 2 if "mix" in batches.element_spec else 1  # neighbors are mixed

    def split(values: tf.Tensor) -> tf.Tensor:
        rest = values.shape[1:]
        pieces = tf.reshape(values, [replicas, -1, parts, group, *rest])
        axes = range(4, 4 + len(rest))
        by_part = tf.transpose(pieces, [2, 0, 1, 3, *axes])
        return tf.reshape(by_part, [parts * replicas, size // (parts * replicas), *rest])

    return batches.map(lambda batch: {key: split(value) for key, value in batch.items()}).unbatch()
