"""Losses of single examples, from labels or soft targets, on any backend of Keras."""

from collections.abc import Sequence
from typing import Any

from keras import ops
from ml_collections import ConfigDict

from keras_resnet.training import mixing


def example_losses(
    options: ConfigDict,
    labels: Any,
    logits: Any,
    mix: Any = None,
    positive_weights: Sequence[float] = (),
) -> Any:
    """Returns the loss of each example, float32[b], before class weights.

    Args:
        options: `loss.*`.
        labels: int32[b]; of several labels an image float32[b, classes], 0 or 1.
        logits: float[b, classes].
        mix: of `mixing.mix_images`; with it the smoothed targets are mixed.
        positive_weights: for each class a factor of the loss of its yes, for "binary" alone.
    """
    logits = ops.cast(logits, "float32")
    smoothing, classes = options.label_smoothing, logits.shape[-1]
    if len(labels.shape) == 2:
        # Each class is a question of its own with two answers, each of which gets a half.
        targets = labels * (1.0 - smoothing) + smoothing / 2
    else:
        # Szegedy et al. 2016, section 7: the target is the label with 1 - smoothing, and any class,
        # the label included, with smoothing / classes.
        targets = ops.one_hot(labels, classes, dtype="float32")
        targets = targets * (1.0 - smoothing) + smoothing / classes
    if mix is not None:
        targets = mixing.mix_targets(targets, mix)
    if positive_weights:
        weights = ops.convert_to_tensor(positive_weights, "float32")
        return _binary(options, targets, logits, weights)
    return LOSSES[options.name](options, targets, logits)


def example_weights(class_weights: Sequence[float], labels: Any, mix: Any = None) -> Any:
    """Returns the weight of each example's loss, float32[b]: that of its label's class.

    A mixed example has the mean of its two labels' weights, by their shares. As in Keras, the
    weighted losses are divided by the number of examples; PyTorch divides by the sum of weights.
    """
    weights = ops.take(ops.convert_to_tensor(class_weights, "float32"), labels, axis=0)
    return weights if mix is None else mixing.mix_targets(weights[:, None], mix)[:, 0]


def _softmax(options, targets, logits):
    return ops.categorical_crossentropy(targets, logits, from_logits=True)


def _binary(options, targets, logits, positive_weights=None):
    """A yes or no for each class (Wightman et al. 2021, section 3.1), as timm computes it.

    Its mean over the classes, or with `sum_classes` the sum. With `target_threshold` a target is 1
    above it and else 0: both labels of a mixed image are then fully present.
    """
    if options.target_threshold:
        targets = ops.cast(targets > options.target_threshold, "float32")
    if positive_weights is None:
        losses = ops.binary_crossentropy(targets, logits, from_logits=True)
    else:
        # `weighted_cross_entropy_with_logits` of TensorFlow.
        weights = 1.0 + (positive_weights - 1.0) * targets
        softplus = ops.log1p(ops.exp(-ops.abs(logits))) + ops.relu(-logits)
        losses = (1.0 - targets) * logits + weights * softplus
    return (ops.sum if options.sum_classes else ops.mean)(losses, axis=-1)


LOSSES = {"softmax": _softmax, "binary": _binary}
