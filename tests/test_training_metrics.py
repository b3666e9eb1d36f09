"""Sums, averages and the confusion matrix against NumPy, on one and on several replicas."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from test_training_step import CLASSES, PIXELS, batches, dataset, linear_model

from keras_resnet.config import default_config
from keras_resnet.training import metrics
from keras_resnet.training.counting import sums_of_batch
from keras_resnet.training.engine import Evaluated
from keras_resnet.training.tensorflow.step import Steps

EXAMPLES = 21


def evaluate(replicas, every=1):
    """Evaluates 21 examples in batches of 8, the last padded with 3.

    Returns what the loop gives, and of the 21 the labels and the logits of NumPy.
    """
    (data,) = batches(1, size=24)
    mask = (np.arange(24) < EXAMPLES).astype("float32")
    strategy = mirrored_strategy(replicas)
    with strategy.scope():
        model = linear_model()
    kernel = np.random.default_rng(1).normal(size=(PIXELS * PIXELS * 3, CLASSES))
    model.set_weights([kernel, np.zeros(CLASSES)])
    padded = dataset([{**data, "mask": mask}]).rebatch(8 // replicas)
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: padded))
    made = Steps(model, None, strategy, default_config())  # its loops do not keep it alive
    found = made.evaluation_loop(iterator, tf.constant(3), every)
    x = (data["image"] / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    logits = x.reshape(24, -1) @ kernel
    found = Evaluated(*(values.numpy() for values in found))
    return found, data["label"][:EXAMPLES], logits[:EXAMPLES]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_confusion_matrix_is_exact_under_padding_and_replicas(replicas):
    found, labels, logits = evaluate(replicas)
    sums, pairs = found.sums, found.rows
    assert pairs.shape == (24, 2)
    pairs = pairs[pairs[:, 0] >= 0]
    guesses = logits.argmax(axis=1)
    expected = np.zeros((CLASSES, CLASSES), int)
    for label, guess in zip(labels, guesses, strict=True):
        expected[label, guess] += 1
    np.testing.assert_array_equal(metrics.confusion_matrix(pairs, CLASSES), expected)
    means = metrics.averages(sums)
    assert means["examples"] == EXAMPLES
    assert means["top1"] == np.trace(expected) / EXAMPLES
    with np.errstate(invalid="ignore"):
        accuracy = np.diag(expected) / expected.sum(axis=1)
    np.testing.assert_array_equal(metrics.per_class_accuracy(pairs, CLASSES), accuracy)


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("every", [1, 2])
def test_logits_come_in_the_order_of_the_labels(replicas, every):
    found, labels, logits = evaluate(replicas, every)
    kept = found.logit_rows[:, 0] >= 0
    assert found.logits.shape == (24 // every, CLASSES)
    np.testing.assert_array_equal(found.logit_rows[:, 0][kept], labels[::every])
    np.testing.assert_allclose(found.logits[kept], logits[::every], rtol=1e-4, atol=1e-4)


def test_class_without_examples_has_no_accuracy():
    pairs = np.array([[0, 0], [0, 2]])
    np.testing.assert_array_equal(metrics.per_class_accuracy(pairs, 3), [0.5, np.nan, np.nan])


def test_equal_logits_are_no_success():
    losses, labels = tf.ones(4), tf.constant([0, 1, 2, 3])
    sums = sums_of_batch(losses, labels, tf.zeros([4, 10]))
    assert metrics.averages(sums)["top1"] == 0.25


def test_averages_count_beyond_the_integers_of_float32():
    sums = np.array([[1.0, 0.0, 0.0, 2.0**24], [1.0, 0.0, 0.0, 1.0]], "float32")
    assert metrics.averages(sums)["examples"] == 2**24 + 1


def test_the_step_of_a_broken_loss_is_found():
    sums = np.ones((5, 4), "float32")
    assert metrics.first_non_finite(sums) is None
    sums[2:, 0] = [np.nan, 1.0, np.inf]
    assert metrics.first_non_finite(sums) == 2
