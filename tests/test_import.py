"""`import keras_resnet` and the command line, from places that have led others astray."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What users call their own files. Whoever imports one of these by mistake ends here.
HOSTILE = (
    *("input_pipeline", "configs", "models", "layers", "blocks", "config", "export", "weights"),
    *("training", "errors", "backend", "storage", "keras_resnet", "api", "train", "preprocessing"),
)
TINY = {
    "epochs": 1,
    "batch_size": 64,
    "strategy": "cpu",
    "model.depths": (1, 1, 1),
    "model.widths": (16, 16, 16),
    "data.image_size": 8,
    "data.train_split": "train[:128]",
    "data.eval_split": "test[:64]",
}
CONFIG = f"""
import sys
import keras_resnet

assert "keras_resnet.layers" not in sys.modules  # the command line loads what is needed
from keras_resnet import config, errors

assert "keras" not in sys.modules, "loaded too early"
assert keras_resnet.list_models("CifarResNet20") == ["CifarResNet20"]
assert keras_resnet.ResNet50 is keras_resnet.models.ResNet50
assert not hasattr(keras_resnet, "ResNet51")
assert type(keras_resnet) is type(sys), "an ordinary module from then on"
assert set(keras_resnet.__all__) <= set(dir(keras_resnet))

def get_config():
    assert keras_resnet.list_models()
    return {TINY!r}
"""
CHECKS = """
import os, keras_resnet, keras

assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"
assert keras_resnet.list_models("CifarResNet20") == ["CifarResNet20"]
assert keras_resnet.training.train and keras_resnet.blocks.basic_block
layer = keras.saving.get_registered_object("keras_resnet>BatchNormalization")
assert layer is keras_resnet.layers.BatchNormalization
names = {}
exec("from keras_resnet import *", names)  # as a notebook does
assert set(keras_resnet.__all__) <= set(names), set(keras_resnet.__all__) - set(names)
"""
RUN_MAIN = "import runpy; runpy.run_module('keras_resnet', run_name='__main__')"


@pytest.fixture
def folder(tmp_path):
    """Holds hostile files; `python -m` and scripts in it put it first on the path."""
    for name in HOSTILE:
        if name != "keras_resnet":  # it would be what Python is asked for
            (tmp_path / f"{name}.py").write_text("raise SystemError(f'{__file__} was imported')\n")
    return tmp_path


def python(folder, *arguments, **environment):
    """Runs Python in a folder, with nothing but PYTHONPATH to find the package by."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONPATH": str(ROOT)} | environment
    environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(["keras-resnet.py"], id="script called keras-resnet"),
        pytest.param(["-m", "sweep"], id="python -m", marks=pytest.mark.slow),
    ],
)
def test_the_package_is_the_same_for_everybody(start, folder):
    """Also with arguments that look like Python's own; then our `__main__` in the same process."""
    (folder / "keras-resnet.py").write_text(f"{CHECKS}\n{RUN_MAIN}")
    (folder / "sweep").mkdir()
    (folder / "sweep" / "__init__.py").write_text(CHECKS)
    (folder / "sweep" / "__main__.py").write_text(RUN_MAIN)
    done = python(folder, *start, "-m", "keras_resnet")
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("keras-resnet: '-m' is"), done.stderr


@pytest.mark.ci
def test_the_command_trains_among_hostile_files(folder):
    """With a config file that uses the package, which is not loaded yet."""
    (folder / "mine.py").write_text(CONFIG)
    done = python(folder, "-m", "keras_resnet_cli", "train", "--workdir=run", "--config=mine.py")
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "model.keras").exists()


# Stands in for TensorFlow: says what it was imported with, and that loudly.
FAKE = """
import os, sys
os.write(2, b"greetings\\n")
print("oneDNN", os.environ.get("TF_ENABLE_ONEDNN_OPTS"), flush=True)
__version__ = "0"
"""


@pytest.fixture
def fake_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text(FAKE)
    return tmp_path


START = """
import keras_resnet_cli
keras_resnet_cli.defer_loading()
from keras_resnet.commands.startup import start_tensorflow
start_tensorflow()
"""


@pytest.mark.parametrize(
    ("program", "chosen", "seen", "greets"),
    [
        pytest.param(START, None, "1", False, id="command"),
        pytest.param(START, "0", "0", False, id="command, chosen"),
        pytest.param("import keras_resnet", None, "1", True, id="import"),
        pytest.param("import keras_resnet", "0", "0", True, id="import, chosen"),
        pytest.param("import tensorflow, keras_resnet", None, "None", True, id="TensorFlow first"),
    ],
)
def test_tensorflow_starts_with_onednn_wherever_it_is_started_from(
    program, chosen, seen, greets, fake_tensorflow
):
    environment = {"KERAS_BACKEND": "tensorflow"}
    if chosen:
        program = f"import os; os.environ['TF_ENABLE_ONEDNN_OPTS'] = {chosen!r}\n{program}"
    done = python(fake_tensorflow, "-c", program, **environment)
    assert done.stdout.splitlines()[0] == f"oneDNN {seen}", done.stderr
    assert ("greetings" in done.stderr) == greets


def test_keras_starts_as_quietly(fake_tensorflow):
    (fake_tensorflow / "keras.py").write_text("import tensorflow")
    program = START.replace("start_tensorflow", "start_keras")
    done = python(fake_tensorflow, "-c", program, KERAS_BACKEND="tensorflow")
    assert (done.stdout, done.stderr) == ("oneDNN 1\n", "")


def test_what_tensorflow_says_shows_if_it_fails(fake_tensorflow):
    (fake_tensorflow / "tensorflow.py").write_text(FAKE + "raise RuntimeError('no')")
    done = python(fake_tensorflow, "-c", START, KERAS_BACKEND="tensorflow")
    assert done.stderr.startswith("greetings")
    assert done.stderr.endswith("RuntimeError: no\n")


def test_tensorflow_is_missed_in_one_line(tmp_path):
    """Also by `python -m keras_resnet`, which imports the package before it is a command."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: (\n"
        "    None if name == 'tensorflow' else find(name, *rest))\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    for module in ("keras_resnet", "keras_resnet_cli"):
        arguments = ["-m", module, "train", "--config=smoke", "--workdir=w"]
        done = python(tmp_path, *arguments, KERAS_BACKEND="tensorflow", PYTHONPATH=path)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "pip install 'keras-resnet-tpu[cpu]'" in line


def test_a_process_for_one_module_finds_the_package_from_anywhere(folder):
    """And takes nothing from the current folder, not even another package of that name."""
    import keras_resnet_cli

    (folder / "keras_resnet.py").write_text("raise SystemError")
    (folder / "numpy.py").write_text("raise SystemError")
    command = keras_resnet_cli.module_command("keras_resnet.commands", "libtpu-flags", "train")
    arguments = [*command, "--config=resnet50_imagenet_tpu"]
    done = subprocess.run(
        arguments, capture_output=True, text=True, cwd=folder, env={"PATH": os.environ["PATH"]}
    )
    assert done.stdout.startswith("--xla"), done.stderr
