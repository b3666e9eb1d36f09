"""Learning rates over steps against their closed forms."""

import math

import keras
import numpy as np
import pytest

from keras_resnet.config import default_config
from keras_resnet.training import schedules
from keras_resnet.training.progress import Timeline

PEAK, STEPS, PER_EPOCH = 0.8, 100, 10


def timeline(config):
    """10 epochs of 10 steps."""
    config.batch_size, config.epochs = 8, STEPS // PER_EPOCH
    steps = Timeline(config, train_examples=8 * PER_EPOCH)
    assert (steps.steps_per_epoch, steps.total_steps) == (PER_EPOCH, STEPS)
    return steps


def rates(name, **options):
    """The rate of every step of a run of 10 epochs of 10 steps, warm-up 2 epochs."""
    config = default_config()
    config.optimizer.learning_rate = PEAK
    config.schedule.update({"name": name, "warmup_epochs": 2.0, **options})
    schedule = schedules.make_schedule(config, timeline(config))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    values = [schedules.learning_rate_at(schedule, step) for step in range(STEPS)]
    assert [schedules.learning_rate_at(again, step) for step in range(0, STEPS, 7)] == values[::7]
    return np.array(values)


STEP = np.arange(STEPS)
WARM = np.minimum((STEP + 1) / 20, 1.0)
AFTER = np.maximum(STEP - 20, 0) / 80  # how far the decay is that starts after the warm-up


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        ("cosine", {}, 0.5 * (1 + np.cos(np.pi * STEP / STEPS))),
        # timm's and torchvision's floor.
        (
            "cosine",
            {"end_learning_rate": 0.08},
            0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * STEP / STEPS)),
        ),
        # torchvision's v2 recipe: linear, then a cosine over the rest.
        ("cosine", {"decay_after_warmup": True}, 0.5 * (1 + np.cos(np.pi * AFTER))),
        # MLPerf's LARS: the same with a parabola.
        ("polynomial", {"decay_after_warmup": True}, (1 - AFTER) ** 2),
        (
            "polynomial",
            {"power": 1.0, "end_learning_rate": 0.2},
            1 - STEP / STEPS * 0.75,
        ),
        ("exponential", {"factor": 0.97, "decay_epochs": 2.4}, 0.97 ** (STEP / 24)),
        ("step", {"boundaries": (3, 5)}, 0.1 ** ((STEP >= 30).astype(float) + (STEP >= 50))),
        (
            "step",
            {"boundaries": (3, 5), "decay_after_warmup": True},
            0.1 ** ((STEP >= 30).astype(float) + (STEP >= 50)),
        ),
    ],
)
def test_rates_equal_the_closed_form(name, options, shape):
    np.testing.assert_allclose(rates(name, **options), PEAK * WARM * shape, rtol=2e-5, atol=1e-6)


def test_rate_follows_the_global_batch():
    config = default_config()
    config.optimizer.learning_rate, config.batch_size = 0.1, 8192
    assert schedules.peak_learning_rate(config) == 0.1
    config.optimizer.scale_with_batch = True
    assert schedules.peak_learning_rate(config) == pytest.approx(3.2)  # Goyal et al. 2017


def test_no_warmup_and_no_rate():
    config = default_config()
    config.optimizer.learning_rate = 0.0
    schedule = schedules.make_schedule(config, timeline(config))
    assert math.isclose(schedules.learning_rate_at(schedule, 50), 0.0)
