"""Runs as processes of their own, on the digits, with a network that compiles in a moment."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras

from keras_resnet import config as configs
from keras_resnet.training.workdir import WorkDir

ROOT = Path(__file__).parent.parent
# Dropout and stochastic depth have a random state of their own, which a checkpoint must hold.
TINY = {
    "batch_size": 64,
    "epochs": 4,
    "log_every_steps": 5,
    "deterministic": True,
    "strategy": "cpu",
    "model.depths": (1, 1, 1),
    "model.widths": (16, 16, 16),
    "model.drop_path_rate": 0.2,
    "model.dropout_rate": 0.2,
    "data.image_size": 8,
    "data.augment.crop_padding": 1,
    "report": False,  # seconds of each run
}


def tiny_config(**changes):
    """Returns the smoke config with TINY and `changes`, whose dots are written __."""
    config = configs.load_config("smoke")
    delta = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    return configs.check(configs.merge(config, delta, "test"))


def start(workdir, prelude="", **changes):
    """Starts `keras-resnet train` as a process; `prelude` is Python that runs before it."""
    delta = {**TINY, **{key.replace("__", "."): value for key, value in changes.items()}}
    arguments = [f"--config.{key}={value}" for key, value in delta.items()]
    program = f"import sys\n{prelude}\nfrom keras_resnet.commands import main\nsys.exit(main())"
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            program,
            "train",
            "--config=smoke",
            f"--workdir={workdir}",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def wait_for(condition, process, seconds=120):
    """Returns True when the condition holds, False if the process ended before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline, "nothing happened for two minutes"
        time.sleep(0.005)
    return True


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def kill_at_random_moments(workdir, longest, **changes):
    """Kills a run ten times, or until it is through; each lives for at most `longest` seconds more.

    Half of them as soon as new work is on record, half after a time of their own.
    """
    moments, kills, folder = random.Random(0), 0, WorkDir(workdir)
    for _ in range(40):
        process = start(workdir, **changes)
        metrics = folder.metrics
        size = metrics.stat().st_size if metrics.exists() else 0
        if moments.random() < 0.5:
            wait_for(lambda: metrics.exists() and metrics.stat().st_size > size, process)  # noqa: B023
        try:
            process.communicate(timeout=moments.uniform(0.0, longest))
        except subprocess.TimeoutExpired:
            kill(process)
            kills += 1
        if kills == 10 or (folder.path / "result.json").exists():
            break
    assert kills == 10 or (folder.path / "result.json").exists()


def final_weights(workdir):
    """Returns all weights of model.keras as bytes."""
    model = keras.saving.load_model(WorkDir(workdir).model)
    return [weight.tobytes() for weight in model.get_weights()]
