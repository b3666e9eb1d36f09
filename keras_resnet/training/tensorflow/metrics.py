"""What a replica counts of its batch, inside the compiled step."""

from typing import Protocol

import tensorflow as tf

from keras_resnet.training.metrics import LABEL_SET_SUMS, SUMS


class Counting(Protocol):
    """What is counted of labels of one kind.

    Attributes:
        names: of the sums, in their order.
        row: shape and type of what is kept of each example.
    """

    names: tuple[str, ...]
    row: tf.TensorSpec

    def sums(self, losses, labels, logits, mask=None) -> tf.Tensor:
        """Returns the sums over a batch, float32[len(names)].

        Args:
            losses: float32[b], of each example.
            labels: of the examples.
            logits: float[b, classes].
            mask: float[b], 0 for padding that must not count; None: there is none.
        """

    def rows(self, labels, logits, mask) -> tf.Tensor:
        """Returns what is kept of each example, -1 for padding."""


class OneLabel:
    """Of one label an image: SUMS, and int32[2] with the label and the prediction."""

    names: tuple[str, ...] = SUMS
    row = tf.TensorSpec([2], tf.int32)

    def sums(self, losses, labels, logits, mask=None) -> tf.Tensor:
        return sums_of_batch(losses, labels, logits, mask)

    def rows(self, labels, logits, mask) -> tf.Tensor:
        return labels_and_predictions(labels, logits, mask)


class LabelSet:
    """Of several labels an image: LABEL_SET_SUMS, and float32[2, classes], labels and scores.

    A label is predicted where its probability is above a half.
    """

    names: tuple[str, ...] = LABEL_SET_SUMS

    def __init__(self, classes: int):
        self.row = tf.TensorSpec([2, classes], tf.float32)

    def sums(self, losses, labels, logits, mask=None) -> tf.Tensor:
        predicted = tf.cast(logits > 0, tf.float32)
        labels = tf.cast(labels, tf.float32)
        counted = [
            losses,
            tf.reduce_sum(predicted * labels, axis=-1),
            tf.reduce_sum(tf.abs(predicted - labels), axis=-1),
            tf.ones_like(losses),
        ]
        return _masked_sums(counted, mask)

    def rows(self, labels, logits, mask) -> tf.Tensor:
        rows = tf.stack([labels, tf.sigmoid(tf.cast(logits, tf.float32))], axis=1)
        return tf.where(mask[:, None, None] > 0, rows, -1.0)


def sums_of_batch(losses, labels, logits, mask=None) -> tf.Tensor:
    """Returns SUMS over a batch, float32[4].

    Args:
        losses: float32[b], of each example.
        labels: int32[b].
        logits: float[b, classes].
        mask: float[b], 0 for padding that must not count; None: there is none.
    """
    logits = tf.cast(logits, tf.float32)
    top5 = min(5, logits.shape[-1])
    counted = [
        losses,
        tf.cast(predicted_classes(logits) == tf.cast(labels, tf.int32), losses.dtype),
        tf.cast(tf.math.in_top_k(labels, logits, top5), losses.dtype),
        tf.ones_like(losses),
    ]
    return _masked_sums(counted, mask)


def _masked_sums(counted: list[tf.Tensor], mask) -> tf.Tensor:
    mask = tf.ones_like(counted[0]) if mask is None else tf.cast(mask, counted[0].dtype)
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
