"""Exports to one file: run after writing, compared, and the old file kept if they fail."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import CLASSES, ROOT, given_images, keras_answers, tiny_classifier

from keras_resnet.errors import UserError
from keras_resnet.export import export_file, sample_images
from keras_resnet.export.formats import FORMATS


@pytest.fixture(scope="module")
def model():
    return tiny_classifier("ResNet50D")


@pytest.fixture(scope="module")
def images(model):
    return sample_images.smooth_images(6, 32, seed=5)


@pytest.fixture(scope="module")
def expected(model, images):
    return keras_answers(model, images)


def test_keras_file_is_folded_and_complete(model, images, expected, tmp_path):
    path = tmp_path / "model.keras"
    difference = export_file(model, path, format="keras")
    assert difference.relative < 1e-5
    loaded = keras.saving.load_model(path)
    assert not any(isinstance(x, keras.layers.BatchNormalization) for x in loaded.layers)
    assert loaded.class_names == CLASSES
    found = keras_answers(loaded, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert [item.name for item in tmp_path.iterdir()] == ["model.keras"]


@pytest.mark.parametrize(
    ("precision", "tolerance", "bytes_per_weight"),
    [("float32", 1e-5, 4), ("float16", 5e-3, 2), ("int8", 0.1, 1)],
)
def test_tflite_files_answer_like_the_model(
    model, images, expected, tmp_path, precision, tolerance, bytes_per_weight
):
    path = tmp_path / "model.tflite"
    samples = given_images(model, 16)
    difference = export_file(model, path, format="tflite", precision=precision, samples=samples)
    assert difference.images == 16
    interpreter = tf.lite.Interpreter(str(path))
    run = interpreter.get_signature_runner("serving_default")
    answers = [run(images=image[None].astype("float32"))["probabilities"] for image in images]
    np.testing.assert_allclose(np.concatenate(answers), expected, atol=tolerance)
    kinds = {detail["dtype"] for detail in interpreter.get_tensor_details()}
    assert (np.int8 in kinds) == (precision == "int8")
    assert (np.float16 in kinds) == (precision == "float16")
    (entry,) = interpreter.get_input_details()
    assert (entry["dtype"], list(entry["shape"])) == (np.float32, [1, 32, 32, 3])


@pytest.mark.ci
def test_a_tflite_file_of_a_network_with_keras_padding(images, tmp_path):
    padded = {"padding": "same", "stem_pool_padding": "end", "block_kernel_size": (3, 4)}
    model = tiny_classifier("ResNet50D", **padded)
    assert export_file(model, tmp_path / "x.tflite", format="tflite").relative < 1e-5
    interpreter = tf.lite.Interpreter(str(tmp_path / "x.tflite"))
    answer = interpreter.get_signature_runner("serving_default")
    answers = [answer(images=i[None].astype("float32"))["probabilities"] for i in images]
    np.testing.assert_allclose(np.concatenate(answers), keras_answers(model, images), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_onnx_files_answer_like_the_model(model, images, expected, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "model.onnx"
    assert export_file(model, path, format="onnx").relative < 1e-5
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (images[:1], images):
        feed = {"images": batch.astype("float32")}
        (answer,) = session.run(["probabilities"], feed)
        np.testing.assert_allclose(answer, expected[: len(batch)], rtol=1e-4, atol=1e-6)


def test_onnx_without_its_packages_names_the_extra(model, tmp_path, monkeypatch):
    import importlib

    real = importlib.import_module

    def missing(name, *rest):
        if name == "tf2onnx":
            raise ImportError("No module named 'tf2onnx'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=r"keras-resnet-tpu\[onnx\]"):
        export_file(model, tmp_path / "model.onnx", format="onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_differs_is_not_kept(model, tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old one")
    monkeypatch.setitem(FORMATS["tflite"].tolerances, "float16", 1e-9)
    with pytest.raises(UserError, match="more than its tolerance"):
        export_file(model, path, format="tflite", precision="float16")
    assert path.read_bytes() == b"the old one"
    assert [item.name for item in tmp_path.iterdir()] == ["model.tflite"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from export_helpers import tiny_classifier
from keras_resnet.export import export_file, keras_file

def die(job):
    job.path.write_bytes(b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)

keras_file.write = die
export_file(tiny_classifier(), sys.argv[1], format="keras")
"""


@pytest.mark.ci
def test_what_a_killed_export_left_is_removed_by_the_next(model, tmp_path):
    search = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path / "model.keras")],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
    )
    assert done.returncode == -9
    left = {item.name for item in tmp_path.iterdir()}
    assert len(left) == 2  # a hidden folder and its lock
    assert all(name.startswith(".export-") for name in left)
    export_file(model, tmp_path / "other.keras", format="keras")
    assert [item.name for item in tmp_path.iterdir()] == ["other.keras"]


@pytest.mark.ci
def test_a_tolerance_of_ones_own_is_taken_with_a_warning(model, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS["keras"].tolerances, "float32", 1e-12)
    path = tmp_path / "model.keras"
    with pytest.raises(UserError, match=r"--tolerance=\de-0\d accepts it"):
        export_file(model, path, format="keras")
    with pytest.warns(UserWarning, match="more than the 1e-12 of the format; it was written"):
        difference = export_file(model, path, format="keras", tolerance=0.01)
    assert difference.accepted == 0.01
    assert "accepted up to 0.01" in str(difference)
    with pytest.raises(UserError, match="tolerance=0: a share"):
        export_file(model, path, format="keras", tolerance=0)


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")
def test_onnx_files_name_their_axes_and_say_what_they_are(model, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "model.onnx"
    export_file(model, path, format="onnx")
    written = onnx.load(path)
    onnx.checker.check_model(written)
    (entry,) = written.graph.input  # weights are none any more
    axes = entry.type.tensor_type.shape.dim
    assert [axis.dim_param or axis.dim_value for axis in axes] == ["batch", 32, 32, 3]
    for output in written.graph.output:
        axes = output.type.tensor_type.shape.dim
        assert [axis.dim_param or axis.dim_value for axis in axes] == ["batch", 6]
    said = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(said["classes"]) == CLASSES
    assert json.loads(said["preprocessing"])["mean"] == model.preprocessing["mean"]
    assert json.loads(said["versions"])["tensorflow"] == tf.__version__
    assert said["Image.NominalPixelRange"] == "NominalRange_0_255"
    # Kernels are in ONNX' order of axes, as no runtime has to turn them.
    kernels = {entry.name for entry in written.graph.initializer}
    assert all(node.input[1] in kernels for node in written.graph.node if node.op_type == "Conv")
