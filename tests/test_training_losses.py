"""Losses of examples against NumPy versions of timm's and PyTorch's formulas."""

import numpy as np
import pytest

from keras_resnet.config import default_config
from keras_resnet.training import losses

CLASSES = 5
LABELS = np.array([0, 3, 2, 2], "int32")
LOGITS = np.random.default_rng(0).normal(size=(4, CLASSES)).astype("float32") * 4
# A row an image: weight, share of its own label, and a box (unused by targets).
MIX = np.array([[0.7, 0.7, 0, 0, 0, 0]] * 4, "float32")
NEIGHBORS = [1, 0, 3, 2]


def options(**values):
    loss = default_config().loss
    loss.update(values)
    return loss


def targets(smoothing, mixed):
    one_hot = np.eye(CLASSES)[LABELS] * (1 - smoothing) + smoothing / CLASSES
    return 0.7 * one_hot + 0.3 * one_hot[NEIGHBORS] if mixed else one_hot


def log_sigmoid(x):
    return -np.log1p(np.exp(-x))


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax(smoothing, mixed):
    ours = losses.example_losses(
        options(label_smoothing=smoothing), LABELS, LOGITS, MIX if mixed else None
    )
    log_p = LOGITS - np.log(np.exp(LOGITS.astype("float64")).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(ours, -(targets(smoothing, mixed) * log_p).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("sum_classes", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.2])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary(smoothing, mixed, threshold, sum_classes):
    """timm.loss.BinaryCrossEntropy, which Wightman et al. 2021 trained with."""
    ours = losses.example_losses(
        options(
            name="binary",
            label_smoothing=smoothing,
            target_threshold=threshold,
            sum_classes=sum_classes,
        ),
        LABELS,
        LOGITS,
        MIX if mixed else None,
    )
    y = targets(smoothing, mixed)
    if threshold:
        y = (y > threshold).astype(float)
    x = LOGITS.astype("float64")
    elements = -(y * log_sigmoid(x) + (1 - y) * log_sigmoid(-x))
    expected = elements.sum(axis=1) if sum_classes else elements.mean(axis=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_class_weights():
    weights = (1.0, 2.0, 0.5, 4.0, 0.0)
    np.testing.assert_allclose(losses.example_weights(weights, LABELS), [1.0, 4.0, 0.5, 0.5])
    np.testing.assert_allclose(
        losses.example_weights(weights, LABELS, MIX), [1.9, 3.1, 0.5, 0.5], rtol=1e-6
    )
