"""What steps count: sums over examples, their averages, and the confusion matrix."""

import numpy as np
import tensorflow as tf

# The order of the sums that steps return, so that one tensor crosses replicas instead of several.
SUMS = ("loss", "top1", "top5", "examples")


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


def averages(sums) -> dict[str, float]:
    """Turns SUMS, float[steps, 4] or float[4], into means over all examples.

    Added up in float64, so that counts are exact. The number of examples is "examples".
    """
    totals = np.asarray(sums, "float64").reshape(-1, len(SUMS)).sum(axis=0)
    values = dict(zip(SUMS, totals.tolist(), strict=True))
    examples = round(values.pop("examples"))
    means = {name: value / examples for name, value in values.items()} if examples else {}
    return {**means, "examples": examples}


def first_non_finite(sums) -> int | None:
    """Returns the first row of SUMS, float[steps, 4], whose loss is no finite number, or None."""
    broken = ~np.isfinite(np.asarray(sums)[:, SUMS.index("loss")])
    return int(broken.argmax()) if broken.any() else None


def confusion_matrix(pairs: np.ndarray, classes: int) -> np.ndarray:
    """Counts how often each class was taken for which.

    Args:
        pairs: int[n, 2], label and prediction of each example, as `Trainer.evaluate` leaves them.
        classes: number of classes.

    Returns:
        int64[classes, classes]: row the label, column the prediction. 8 MB for 1,000 classes.
    """
    flat = pairs[:, 0].astype("int64") * classes + pairs[:, 1]
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def per_class_accuracy(pairs: np.ndarray, classes: int) -> np.ndarray:
    """Returns the top-1 accuracy of each class, float64[classes]; NaN where it has no examples."""
    examples = np.bincount(pairs[:, 0], minlength=classes)
    right = np.bincount(pairs[pairs[:, 0] == pairs[:, 1], 0], minlength=classes)
    return np.where(examples > 0, right / np.maximum(examples, 1), np.nan)
