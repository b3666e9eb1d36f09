"""Several labels an image: figures against scikit-learn, the loss, weights, and the step."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sklearn_metrics

from keras_resnet.config import check, default_config, merge
from keras_resnet.errors import UsageError
from keras_resnet.training import label_sets, metrics
from keras_resnet.training.class_balance import positive_weights
from keras_resnet.training.counting import LabelSet
from keras_resnet.training.losses import example_losses

RNG = np.random.default_rng(0)
LABELS = RNG.uniform(size=(200, 6)) < [0.5, 0.2, 0.05, 0.9, 0.3, 0.0]
# Many equal ones: they are one step of the curve.
SCORES = np.round(RNG.uniform(size=(200, 6)) * 0.7 + 0.3 * LABELS, 2).astype("float32")


def test_average_precision_is_that_of_scikit_learn():
    ours = label_sets.average_precisions(LABELS, SCORES)
    theirs = [sklearn_metrics.average_precision_score(LABELS[:, i], SCORES[:, i]) for i in range(5)]
    np.testing.assert_allclose(ours[:5], theirs, atol=1e-12)
    assert np.isnan(ours[5])  # no image has it
    assert label_sets.figures(LABELS, SCORES)["map"] == pytest.approx(np.mean(theirs), abs=1e-12)


@pytest.mark.parametrize("thresholds", [None, [0.2, 0.8, 0.4, 0.6, 0.5, 0.5]])
def test_f1_and_rows_are_those_of_scikit_learn(thresholds):
    limits = np.array(thresholds or [0.5] * 6, "float32")
    predicted = limits < SCORES
    found = label_sets.figures(LABELS, SCORES, thresholds)
    f1 = [sklearn_metrics.f1_score(LABELS[:, i], predicted[:, i]) for i in range(5)]
    assert found["macro_f1"] == pytest.approx(np.mean(f1))
    micro = sklearn_metrics.f1_score(LABELS, predicted, average="micro")
    assert found["f1"] == pytest.approx(micro)
    rows = label_sets.class_rows(LABELS, SCORES, list("abcdef"), thresholds)
    scores = sklearn_metrics.precision_recall_fscore_support(
        LABELS[:, :5], predicted[:, :5], zero_division=0
    )
    for name, values in zip(("precision", "recall", "f1", "examples"), scores, strict=True):
        np.testing.assert_allclose([row[name] for row in rows[:5]], values)
    assert (rows[5]["average_precision"], rows[5]["f1"], rows[5]["recall"]) == (None, None, None)
    lines = label_sets.table_text(rows).splitlines()
    assert lines[0].startswith("class,examples,average_precision,threshold,precision,recall,f1")
    assert lines[6].startswith("f,0,,0.500000,")


def test_the_best_thresholds_have_the_best_f1():
    found = label_sets.best_thresholds(LABELS, SCORES)
    for i in range(5):
        tried = [
            sklearn_metrics.f1_score(LABELS[:, i], SCORES[:, i] > limit)
            for limit in np.arange(0.005, 1, 0.01)
        ]
        ours = sklearn_metrics.f1_score(LABELS[:, i], SCORES[:, i] > found[i])
        assert ours == pytest.approx(max(tried))
    assert found[5] == 0.5  # too few images to choose by


def test_a_class_that_everything_or_nothing_speaks_for():
    labels = np.array([[1, 0], [1, 0]], bool)
    flat = np.full((2, 2), 0.5, "float32")
    assert label_sets.figures(labels, flat) == {"map": 1.0, "f1": 0.0, "macro_f1": 0.0}
    nothing = label_sets.figures(np.zeros((2, 2), bool), flat)
    assert nothing == {"map": 0.0, "f1": 0.0, "macro_f1": 0.0}


def test_sums_of_a_batch_and_padding():
    logits = (8 * SCORES - 4).astype("float32") + 1e-3
    mask = np.ones(200, "float32")
    mask[150:] = 0
    counting = LabelSet(6)
    labels = tf.constant(LABELS, tf.float32)
    losses = tf.where(mask > 0, tf.range(200, dtype=tf.float32), np.nan)
    sums = counting.sums(losses, labels, tf.constant(logits), tf.constant(mask)).numpy()
    means = metrics.averages(sums, counting.names)
    micro = sklearn_metrics.f1_score(LABELS[:150], logits[:150] > 0, average="micro")
    assert means == {"loss": 74.5, "f1": pytest.approx(micro), "examples": 150}
    rows = counting.rows(labels, tf.constant(logits), tf.constant(mask)).numpy()
    np.testing.assert_array_equal(rows[:150, 0], LABELS[:150])
    np.testing.assert_allclose(rows[:150, 1], 1 / (1 + np.exp(-logits[:150])), rtol=1e-5)
    assert (rows[150:] == -1).all()


# ---- Loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [(), (3.0, 1.0, 0.5)])
def test_the_loss_is_binary_cross_entropy(weights, smoothing, mixed):
    labels = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]], "float32")
    logits = np.random.default_rng(1).normal(size=(4, 3)).astype("float32") * 3
    loss = default_config().loss
    loss.update({"name": "binary", "label_smoothing": smoothing})
    mix = np.array([[0.7, 0.7, 0, 0, 0, 0]] * 4, "float32") if mixed else None
    ours = example_losses(loss, labels, logits, mix, weights)
    y = labels * (1 - smoothing) + 0.5 * smoothing  # as Keras' BinaryCrossentropy
    y = 0.7 * y + 0.3 * y[[1, 0, 3, 2]] if mixed else y
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    wanted = -(y * np.log(p) * (weights or 1.0) + (1 - y) * np.log(1 - p)).mean(axis=1)
    np.testing.assert_allclose(ours, wanted, rtol=1e-5)


def test_positive_weights():
    """As the documentation of PyTorch's BCEWithLogitsLoss has them: 300 and 100 of 400 give 3."""
    assert positive_weights([100, 200, 0, 400], 400) == (3.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "config.loss.name='softmax' takes one label an image"),
        ({"loss.name": "binary", "data.sampler": "balanced"}, "config.data.sampler='balanced' w"),
    ],
)
def test_what_does_not_go_together(values, message):
    config = merge(default_config(), {"data.multi_label": True, **values}, "here")
    with pytest.raises(UsageError, match=message):
        check(config)
