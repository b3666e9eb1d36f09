"""Runs as processes of their own, on the digits, with a network that compiles in a moment."""

import os
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


def final_weights(workdir):
    """Returns all weights of model.keras as bytes."""
    model = keras.saving.load_model(WorkDir(workdir).model)
    return [weight.tobytes() for weight in model.get_weights()]
