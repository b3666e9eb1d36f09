"""`model.unfreeze_epoch`: the classifier alone, then all layers, exact over kills."""

import signal

import numpy as np
import pytest
from conftest import mirrored_strategy
from run_helpers import final_weights, start, tiny_config
from test_resume import DIES
from training_runs import built_engine
from training_runs import tiny_config as twenty_steps

from keras_resnet import input_pipeline
from keras_resnet.training.progress import Timeline

# Whole runs, most of them: `.ci/run` runs them, the README's command has its ten minutes.
pytestmark = pytest.mark.ci

STAGED = {"model": {"freeze": "body", "unfreeze_epoch": 1}, "optimizer": {"layer_decay": 0.5}}
FROZEN, AFTER = 3, 2


def _train(strategy, frozen, **groups):
    """The weights, by layer, at the start, after the frozen steps, and after those behind them."""
    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")
    engine = built_engine(twenty_steps(**groups), strategy, source.class_names, 640)
    batches = engine.train_batches(source, 0, FROZEN + AFTER)

    def weights():
        layers = [layer for layer in engine.model.layers if layer.weights]
        return {layer.name: [np.array(value) for value in layer.get_weights()] for layer in layers}

    states = [weights()]
    for steps, stays in ((FROZEN, frozen), (AFTER, False)):
        engine.train(batches, steps, stays)
        states.append(weights())
    return states


def _changed(before, after):
    return {
        name
        for name in before
        if any(not np.array_equal(*pair) for pair in zip(before[name], after[name], strict=True))
    }


@pytest.mark.parametrize(
    ("replicas", "options"),
    [(1, {}), pytest.param(2, {}, marks=pytest.mark.ci), (1, {"accumulate_steps": 2})],
)
def test_the_classifier_trains_alone_as_in_a_linear_probe(replicas, options):
    strategy = mirrored_strategy(replicas)
    start, frozen, after = _train(strategy, True, **STAGED, **options)
    # Not even moving statistics move.
    assert _changed(start, frozen) == {"predictions"}
    assert _changed(frozen, after) == set(start)
    probe = {**STAGED, "model": {"freeze": "body"}}
    _, alone, still = _train(strategy, True, **probe, **options)
    for mine, other in zip(frozen["predictions"], alone["predictions"], strict=True):
        np.testing.assert_array_equal(mine, other)
    assert _changed(alone, still) == {"predictions"}


def test_without_the_epoch_nothing_is_staged():
    start, first, _ = _train(mirrored_strategy(1), True)
    assert _changed(start, first) == set(start)


def test_the_loop_stops_where_the_stage_ends():
    config = tiny_config(epochs=4, evaluate_every_epochs=4, checkpoint__every_epochs=4)
    assert Timeline(config, 1437).unfreeze_at == 0
    config.model.freeze, config.model.unfreeze_epoch, config.log_every_steps = "body", 2, 1000
    timeline = Timeline(config, 1437)
    assert timeline.unfreeze_at == 2 * 1437 // config.batch_size == 44
    assert timeline.next_stop(1, 0) == 44
    assert timeline.next_stop(44, 0) == timeline.total_steps == 89


@pytest.mark.ci
def test_killed_before_and_at_the_border_of_the_stages_it_ends_with_the_same_bits(tmp_path):
    changes = {
        "model__freeze": "body",
        "model__unfreeze_epoch": 2,
        "optimizer__layer_decay": 0.5,
        "ema__decay": 0.9,
    }
    output, _ = start(tmp_path / "whole", **changes).communicate()
    assert "model.freeze=body until step 44 (epoch 2), then all layers train" in output
    # Each checkpoint is flushed twice; it dies in its second one, twice.
    for begins in ("schedule   4 epochs", "resuming   at step 22 of 89"):
        process = start(tmp_path / "killed", DIES + 'die_at(os, "fsync", 3)', **changes)
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        assert begins in output
    output, _ = start(tmp_path / "killed", **changes).communicate()
    assert "resuming   at step 44 of 89" in output
    assert final_weights(tmp_path / "whole") == final_weights(tmp_path / "killed")
