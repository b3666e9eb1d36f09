"""The seam below a run: flat state, how near the step is, and what loads no TensorFlow."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from run_helpers import tiny_config
from training_runs import BATCH, STEPS, built_engine
from training_runs import tiny_config as twenty_steps

from keras_resnet import input_pipeline
from keras_resnet.training import run
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.tensorflow.strategy import make_strategy

ROOT = Path(__file__).parent.parent


@pytest.mark.ci
def test_flat_state_goes_on_elsewhere():
    """Five steps, the arrays into another engine, on two replicas too: the same five further."""
    config = twenty_steps(
        ema={"decay": 0.9},
        model={"dropout_rate": 0.2, "drop_path_rate": 0.2},
        optimizer={"name": "lamb", "learning_rate": 0.01},
    )
    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")

    def engine(strategy):
        return built_engine(config, strategy, source.class_names, STEPS * BATCH)

    first = engine(make_strategy("cpu"))
    first.train(first.train_batches(source, 0, STEPS), 5)
    state = first.state()
    assert all(isinstance(value, np.ndarray) for value in state.values())
    assert {name.split("/")[0] for name in state} == {"model", "optimizer", "average", "seeds"}
    expected = first.train(first.train_batches(source, 5, STEPS), 5)
    again = engine(make_strategy("cpu"))
    again.load_state(state)
    np.testing.assert_array_equal(again.train(again.train_batches(source, 5, STEPS), 5), expected)
    for name, value in first.state().items():
        np.testing.assert_array_equal(again.state()[name], value, err_msg=name)
    replicas = engine(mirrored_strategy(2))
    replicas.load_state(state)
    for name, value in replicas.state().items():
        np.testing.assert_array_equal(state[name], value, err_msg=name)


def test_state_of_another_network_is_refused():
    config = twenty_steps()
    engine = built_engine(config, make_strategy("cpu"), ["a", "b"], STEPS * BATCH)
    state = engine.state()
    with pytest.raises(ValueError, match=r"model/predictions/bias has the shape \(2,\)"):
        engine.load_state({**state, "model/predictions/bias": np.zeros(3)})
    with pytest.raises(ValueError, match="model/another is in the state, and not here"):
        engine.load_state({**state, "model/another": np.zeros(3)})


@pytest.mark.ci
def test_a_step_is_three_frames_below_the_command(tmp_path, monkeypatch):
    """The run's `train`, the engine's `train`, the compiled loop; then `strategy.run`."""
    stacks = []

    def train_step(self, *args):
        stacks.append(inspect.stack())
        return original(self, *args)

    original = Steps.train_step
    monkeypatch.setattr(Steps, "train_step", tf.autograph.experimental.do_not_convert(train_step))
    run.train(tiny_config(epochs=1, deterministic=False), tmp_path)
    outwards = [(frame.filename, frame.function) for frame in stacks[0]]
    outwards = outwards[[function for _, function in outwards].index("run") :]
    ours = [
        function
        for file, function in outwards
        # AutoGraph gives functions, and the bodies of their loops, a file of their own.
        if file.startswith(str(ROOT / "keras_resnet")) or function.startswith("tf__")
    ]
    assert ours == ["tf__train_loop", "train", "train"]


def test_shared_parts_run_without_tensorflow():
    pytest.importorskip("jax")
    program = (
        "import sys\n"
        "sys.modules['tensorflow'] = None\n"
        "from keras_resnet import training\n"
        "from keras_resnet.training import engine, optimizers, reporting, schedules, workdir\n"
        "from keras_resnet.training.progress import Timeline\n"
        "config = training.load_config('digits')\n"
        "schedule = schedules.make_schedule(config, Timeline(config, 1437))\n"
        "print(schedules.learning_rate_at(schedule, 0))\n"
        "import keras, keras_resnet, pathlib, tempfile\n"
        "from keras_resnet.training import checkpoints, progress, state\n"
        "model = keras_resnet.ResNet18(widths=(8, 8), depths=(1, 1), dropout_rate=0.1, classes=2)\n"
        "named = state.named_variables(model)\n"
        "kept = checkpoints.Checkpoints(\n"
        "    pathlib.Path(tempfile.mkdtemp()), lambda: state.arrays_of(named),\n"
        "    lambda arrays: state.load(named, arrays), engine='jax')\n"
        "kept.save(progress.Progress(step=3))\n"
        "assert kept.restore_newest().step == 3\n"
        "try:\n"
        "    engine.find_engine()\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    rate, error = done.stdout.splitlines()[-2:]
    assert 0 < float(rate) < 1
    assert error.startswith("UserError KERAS_BACKEND=jax: training runs on tensorflow")
