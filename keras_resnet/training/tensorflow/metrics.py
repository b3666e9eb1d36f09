"""What a replica counts of its batch, inside the compiled step."""

import tensorflow as tf


def sums_of_batch(losses, labels, logits, mask=None) -> tf.Tensor:
    """Returns SUMS over a batch, float32[4].

    Args:
        losses: float32[b], of each example.
        labels: int32[b].
        logits: float[b, classes].
        mask: float[b], 0 for padding that must not count; None: there is none.
    """
    logits = tf.cast(logits, tf.float32)
    mask = tf.ones_like(losses) if mask is None else tf.cast(mask, losses.dtype)
    top5 = min(5, logits.shape[-1])
    counted = [
        losses,
        tf.cast(predicted_classes(logits) == tf.cast(labels, tf.int32), losses.dtype),
        tf.cast(tf.math.in_top_k(labels, logits, top5), losses.dtype),
        tf.ones_like(losses),
    ]
    # where() and not only a product: a loss of NaN on padding must not reach the sum.
    return tf.stack([tf.reduce_sum(tf.where(mask > 0, row * mask, 0.0)) for row in counted])


def predicted_classes(logits) -> tf.Tensor:
    """Returns int32[b]: the class with the largest logit, the first of equal ones."""
    # Not in_top_k: it calls every class right where a dead network gives equal logits.
    return tf.argmax(logits, axis=-1, output_type=tf.int32)


def labels_and_predictions(labels, logits, mask) -> tf.Tensor:
    """Returns int32[b, 2]: label and most probable class of each example, -1 for padding."""
    pairs = tf.stack([tf.cast(labels, tf.int32), predicted_classes(logits)], axis=1)
    return tf.where(mask[:, None] > 0, pairs, -1)
