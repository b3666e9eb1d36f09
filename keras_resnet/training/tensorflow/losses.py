"""Losses of single examples, from labels or soft targets."""

from collections.abc import Sequence

import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet.input_pipeline.augment import mixing


def example_losses(
    options: ConfigDict,
    labels: tf.Tensor,
    logits: tf.Tensor,
    mix: tf.Tensor | None = None,
    positive_weights: Sequence[float] = (),
) -> tf.Tensor:
    """Returns the loss of each example, float32[b], before class weights.

    Args:
        options: `loss.*`.
        labels: int32[b]; of several labels an image float32[b, classes], 0 or 1.
        logits: float[b, classes].
        mix: of `augment.mixing.mix_images`; with it the smoothed targets are mixed.
        positive_weights: for each class a factor of the loss of its yes, for "binary" alone.
    """
    logits = tf.cast(logits, tf.float32)
    smoothing, classes = options.label_smoothing, logits.shape[-1]
    if len(labels.shape) == 2:
        # Each class is a question of its own with two answers, each of which gets a half.
        targets = labels * (1.0 - smoothing) + smoothing / 2
    else:
        # Szegedy et al. 2016, section 7: the target is the label with 1 - smoothing, and any class,
        # the label included, with smoothing / classes.
        targets = tf.one_hot(labels, classes) * (1.0 - smoothing) + smoothing / classes
    if mix is not None:
        targets = mixing.mix_targets(targets, mix)
    if positive_weights:
        return _binary(options, targets, logits, tf.constant(positive_weights, tf.float32))
    return LOSSES[options.name](options, targets, logits)


def example_weights(
    class_weights: Sequence[float], labels: tf.Tensor, mix: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the weight of each example's loss, float32[b]: that of its label's class.

    A mixed example has the mean of its two labels' weights, by their shares. As in Keras, the
    weighted losses are divided by the number of examples; PyTorch divides by the sum of weights.
    """
    weights = tf.gather(tf.constant(class_weights, tf.float32), labels)
    return weights if mix is None else mixing.mix_targets(weights[:, None], mix)[:, 0]


def _softmax(options, targets, logits):
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def _binary(options, targets, logits, positive_weights=None):
    """A yes or no for each class (Wightman et al. 2021, section 3.1), as timm computes it.

    Its mean over the classes, or with `sum_classes` the sum. With `target_threshold` a target is 1
    above it and else 0: both labels of a mixed image are then fully present.
    """
    if options.target_threshold:
        targets = tf.cast(targets > options.target_threshold, tf.float32)
    if positive_weights is None:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    else:
        losses = tf.nn.weighted_cross_entropy_with_logits(targets, logits, positive_weights)
    return (tf.reduce_sum if options.sum_classes else tf.reduce_mean)(losses, axis=-1)


LOSSES = {"softmax": _softmax, "binary": _binary}
