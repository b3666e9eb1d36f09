"""Temperature, reliability and thresholds against scipy, scikit-learn and closed forms."""

import json
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from sklearn.calibration import calibration_curve

from keras_resnet import calibration
from keras_resnet.calibration import Calibration, CalibrationError


def noisy_logits(images=2000, classes=10, scale=3.0, seed=0):
    """Logits of a network that is too sure of itself: labels are drawn at a temperature of 3."""
    rng = np.random.default_rng(seed)
    calibrated = rng.normal(size=(images, classes)) * 2
    drawn = scipy.special.softmax(calibrated, axis=1).cumsum(axis=1) > rng.random((images, 1))
    return (calibrated * scale).astype("float32"), drawn.argmax(axis=1)


def cross_entropy(logits, labels, temperature):
    rows = scipy.special.log_softmax(logits.astype("float64") / temperature, axis=1)
    return -rows[np.arange(len(labels)), labels].mean()


# ---- The temperature -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "classes", "scale"), [(50, 2, 1), (2000, 10, 3), (300, 1000, 0.3)]
)
def test_temperature_is_the_optimum_that_scipy_finds(images, classes, scale):
    logits, labels = noisy_logits(images, classes, scale)
    found = scipy.optimize.minimize_scalar(
        lambda log: cross_entropy(logits, labels, math.exp(log)),
        bounds=(-4, 4),
        method="bounded",
        options={"xatol": 1e-10},
    )
    temperature = calibration.fit_temperature(logits, labels)
    assert temperature == pytest.approx(math.exp(found.x), rel=1e-5)
    assert calibration.cross_entropy(logits, labels, temperature) == pytest.approx(found.fun)


@pytest.mark.parametrize(
    ("right", "images", "margin"), [(3, 4, 1.0), (90, 100, 7.5), (6, 10, 40.0)]
)
def test_temperature_of_two_classes_with_one_margin_has_a_closed_form(right, images, margin):
    # Every image has the same margin: the optimum gives the right class the share that is right.
    logits = np.tile([margin, 0.0], (images, 1))
    labels = (np.arange(images) >= right).astype(int)
    share = right / images
    expected = margin / math.log(share / (1 - share))
    assert calibration.fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-9)


def test_temperature_undoes_a_factor():
    logits, labels = noisy_logits()
    once = calibration.fit_temperature(logits, labels)
    assert once == pytest.approx(3.0, rel=0.05)  # as the labels were drawn
    assert calibration.fit_temperature(logits * 7, labels) == pytest.approx(7 * once, rel=1e-6)
    assert calibration.fit_temperature(logits + 1000, labels) == pytest.approx(once, rel=1e-3)


def test_without_mistakes_it_is_that_of_one_mistake_more():
    # Platt's targets: 1 - 1 / (n + 2) for the label. With one margin the closed form is this.
    logits, labels = np.tile([2.0, 0.0], (8, 1)), np.zeros(8, int)
    expected = 2.0 / math.log((1 - 1 / 10) / (1 / 10))
    assert calibration.fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-9)


def test_ends_of_the_range_are_not_left():
    worse_than_guessing = np.tile([1.0, 0.0], (10, 1))
    labels = np.ones(10, int)
    assert calibration.fit_temperature(worse_than_guessing, labels) == calibration.HIGHEST
    close_mistake = np.concatenate([np.tile([50.0, 0.0], (999, 1)), [[0.001, 0.0]]])
    labels = np.append(np.zeros(999, int), 1)
    # The only mistake is a near tie: nothing speaks against being sure of all else.
    assert calibration.fit_temperature(close_mistake * 1e-4, labels) == calibration.LOWEST
    assert calibration.fit_temperature(np.zeros((5, 3)), np.arange(5) % 3) == 1.0
    assert calibration.fit_temperature(np.ones((5, 1)), np.zeros(5, int)) == 1.0


def test_blocks_do_not_change_it(monkeypatch):
    logits, labels = noisy_logits(500)
    whole = calibration.fit_temperature(logits, labels)
    confidence, right = calibration.judge(logits, labels, whole)
    monkeypatch.setattr(calibration, "_BLOCK", 70)  # of seven images
    assert calibration.fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-9)
    in_blocks = calibration.judge(logits, labels, whole)
    np.testing.assert_array_equal(in_blocks[0], confidence)
    np.testing.assert_array_equal(in_blocks[1], right)


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), r"logits of the shape \(0, 3\)"),
        (np.zeros((2, 3)), np.zeros(3, int), r"labels of \(3,\)"),
        (np.full((2, 3), np.nan), np.zeros(2, int), "not a finite number"),
        (np.zeros((2, 3)), np.array([0, 3]), "labels from 0 to 3 of 3 classes"),
    ],
)
def test_what_cannot_be_fitted_on_is_refused(logits, labels, said):
    with pytest.raises(CalibrationError, match=said):
        calibration.fit_temperature(logits, labels)


# ---- Bins and thresholds -------------------------------------------------------------------------


def test_bins_are_those_of_scikit_learn():
    logits, labels = noisy_logits()
    confidence, right = calibration.judge(logits, labels)
    probabilities = scipy.special.softmax(logits.astype("float64"), axis=1)
    np.testing.assert_allclose(confidence, probabilities.max(axis=1), rtol=1e-12)
    rows = calibration.reliability_bins(confidence, right)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    filled = [row for row in rows if row["count"]]
    np.testing.assert_allclose([row["accuracy"] for row in filled], accuracy)
    np.testing.assert_allclose([row["confidence"] for row in filled], mean)
    empty = [row for row in rows if not row["count"]]
    assert all(row["accuracy"] is row["confidence"] is None for row in empty)
    assert [row["from"] for row in rows] == [number / 15 for number in range(15)]

    # The error in one pass over the images, without bins: gaps of the sums that share a bin.
    gaps = {}
    for value, hit in zip(confidence, right, strict=True):
        place = math.floor(value * 15)
        gaps[place] = gaps.get(place, 0.0) + value - hit
    expected = sum(map(abs, gaps.values())) / len(right)
    assert calibration.expected_calibration_error(rows) == pytest.approx(expected, abs=1e-12)


def test_bins_hold_their_upper_ends():
    rows = calibration.reliability_bins(np.array([0.2, 0.5, 0.75, 1.0]), np.ones(4, bool), bins=4)
    assert [row["count"] for row in rows] == [1, 1, 1, 1]


def test_temperature_calibrates_images_that_it_was_not_fitted_on():
    logits, labels = noisy_logits(20_000)
    fitted = calibration.fit(logits[:10_000], labels[:10_000], "validation")
    errors = [
        calibration.expected_calibration_error(
            calibration.reliability_bins(
                *calibration.judge(logits[10_000:], labels[10_000:], value)
            )
        )
        for value in (1.0, fitted.temperature)
    ]
    assert errors[0] > 0.2
    assert errors[1] < 0.02  # 10,000 images that are calibrated by nature have about 0.01


def test_thresholds_keep_as_many_as_they_say():
    confidence = np.arange(1, 201) / 200
    right = confidence > 0.3
    rows = calibration.find_thresholds(confidence, right)
    assert [row["coverage"] for row in rows] == [1.0, 0.99, 0.95, 0.9, 0.8]
    for row in rows:
        reached = confidence >= row["threshold"]
        assert reached.mean() == row["coverage"]
        assert row["accuracy"] == right[reached].mean()
    assert rows[0]["threshold"] == 0.0
    assert rows[-1]["threshold"] == pytest.approx(0.205)
    applied = calibration.apply_thresholds(rows, confidence / 2, right)
    assert applied[-1] == {
        "coverage": pytest.approx(0.595),
        "threshold": rows[-1]["threshold"],
        "accuracy": 1.0,
    }
    assert calibration.apply_thresholds(rows, confidence * 0, right)[1]["accuracy"] is None


def test_threshold_of_any_coverage():
    logits, labels = noisy_logits()
    fitted = calibration.fit(logits, labels, "val")
    confidence, right = calibration.judge(logits, labels, fitted.temperature)
    for row in calibration.find_thresholds(confidence, right):
        assert fitted.threshold(row["coverage"]) == row["threshold"]
    assert (confidence >= fitted.threshold(0.635)).mean() == pytest.approx(0.635, abs=0.002)
    assert fitted.threshold(1.0) == 0.0
    for coverage in (0, 1.2, -0.5, math.nan):
        with pytest.raises(CalibrationError, match="is not above 0, up to 1"):
            fitted.threshold(coverage)


def test_calibration_travels_as_json():
    fitted = calibration.fit(*noisy_logits(37), "val")
    assert Calibration.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    assert (fitted.split, fitted.images, len(fitted.quantiles)) == ("val", 37, 101)
    good = fitted.to_dict()
    for changes in (
        {"temperature": 0.0},
        {"temperature": math.inf},
        {"temperature": "1"},
        {"quantiles": [0.5] * 100},
        {"quantiles": [*range(101)]},
        {"quantiles": None},
        {"images": None},
    ):
        with pytest.raises(CalibrationError):
            Calibration.from_dict({**good, **changes})
    with pytest.raises(CalibrationError, match="quantiles"):
        Calibration.from_dict({"temperature": 1.0})
