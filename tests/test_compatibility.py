"""What version 0.1.0 left behind is read by this version, and answers as it did there.

`compatibility/make_v0_1_0.py` made the files and the answers. `compatibility/resume_across.py`, run
by hand, resumes runs across two versions and compares the bits.
"""

import json
import tarfile
from contextlib import chdir
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from compatibility.make_v0_1_0 import COMMON, KILLED, VARIANTS

import keras_resnet
from keras_resnet.commands import main

ARCHIVE = Path(__file__).parent / "compatibility" / "v0.1.0.tar.xz"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A folder with what 0.1.0 wrote."""
    folder = tmp_path_factory.mktemp("v0.1.0")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def command(old, capsys):
    """Runs a command in that folder and returns the lines that it prints."""

    def run(*arguments):
        with chdir(old):
            code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out.splitlines()

    return run


def answers(old, name):
    return json.loads((old / "answers.json").read_text())[name]


def predictions(command, *where):
    """Returns float [images, 10], the probabilities of each class."""
    rows = map(json.loads, command("predict", *where, "--top=10", "--json", "images"))
    ordered = [sorted(row["predictions"], key=lambda entry: entry["class_id"]) for row in rows]
    return np.array([[entry["probability"] for entry in row] for row in ordered])


def assert_evaluation(command, workdir, expected):
    found = json.loads("".join(command("evaluate", f"--workdir={workdir}", "--json")))
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.ci
def test_models_of_every_kind(old):
    stored = np.load(old / "variants.npz")
    files = sorted((old / "variants").glob("*.keras"))
    assert [path.stem for path in files] == sorted(set(stored) - {"inputs"})
    for path in files:
        model = keras.saving.load_model(path)
        outputs = keras.ops.convert_to_numpy(model(stored["inputs"]))
        np.testing.assert_allclose(outputs, stored[path.stem], atol=1e-5, rtol=1e-5)
        # As weights they fit what this version builds.
        anew = keras_resnet.create_model(path.stem, **VARIANTS[path.stem], weights=path)
        outputs = keras.ops.convert_to_numpy(anew(stored["inputs"]))
        np.testing.assert_allclose(outputs, stored[path.stem], atol=1e-5, rtol=1e-5)


def test_a_finished_run(old, command):
    expected = answers(old, "finished")
    assert_evaluation(command, "finished", expected["evaluation"])
    for where in ("--workdir=finished", "--model=finished/model.keras"):
        found = predictions(command, where)
        np.testing.assert_allclose(found, expected["predictions"], atol=1e-5)


@pytest.mark.ci
def test_exports(old, command, tmp_path):
    """The SavedModel of 0.1.0, and one that this version makes of its run."""
    expected = answers(old, "finished")["exported"]
    output = tmp_path / "again"
    command("export", "--workdir=finished", "--limit=16", f"--output={output}")
    for folder in ("saved_model", output):
        found = predictions(command, f"--model={folder}")
        np.testing.assert_allclose(found, expected, atol=1e-5)
    command("verify-export", "saved_model/1")


def test_tflite(old, command):
    """The old file and one that this version makes of the run give the stored logits."""
    stored = np.load(old / "tflite.npz")
    export = ["export", "--workdir=finished", "--limit=16"]
    command(*export, "--output=again.tflite", "--format=tflite")
    for name in ("model.tflite", "again.tflite"):
        run = tf.lite.Interpreter(str(old / name)).get_signature_runner("serving_default")
        logits = [run(images=image[None])["logits"] for image in stored["images"]]
        np.testing.assert_allclose(np.concatenate(logits), stored["logits"], atol=1e-5, rtol=1e-5)


@pytest.mark.ci
def test_a_killed_run(old, command):
    """Its checkpoint answers as it did; the command that began the run ends it as 0.1.0 did."""
    expected = answers(old, "killed")
    assert_evaluation(command, "killed", expected["evaluation"])
    found = predictions(command, "--workdir=killed")
    np.testing.assert_allclose(found, expected["predictions"], atol=1e-5)

    delta = [f"--config.{key}={value}" for key, value in {**COMMON, **KILLED}.items()]
    lines = command("train", "--config=smoke", "--workdir=killed", *delta)
    assert any("resuming   at step 4" in line for line in lines), lines
    ended = json.loads((old / "killed" / "result.json").read_text())
    for key, value in answers(old, "resumed")["evaluation"].items():
        # Four more steps on another processor may round otherwise.
        assert ended[key] == pytest.approx(value, abs=1e-4), key
