"""Exports of networks with a low-pass filter where they stride, in every format."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import given_images, keras_answers, serve, tiny_classifier

from keras_resnet.export import export_file, export_saved_model, sample_images

pytestmark = pytest.mark.ci


@pytest.fixture(scope="module")
def model():
    return tiny_classifier("ResNet50D", antialias="blur")


@pytest.fixture(scope="module")
def images():
    return sample_images.smooth_images(6, 32, seed=5)


@pytest.fixture(scope="module")
def expected(model, images):
    return keras_answers(model, images)


def test_keras_files_are_folded(model, images, expected, tmp_path):
    path = tmp_path / "model.keras"
    assert export_file(model, path, format="keras").relative < 1e-5
    loaded = keras.saving.load_model(path)
    assert not any(isinstance(x, keras.layers.BatchNormalization) for x in loaded.layers)
    found = keras_answers(loaded, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_the_cpp_loader_answers_what_keras_does(
    model, images, expected, precision, tolerance, tmp_path
):
    exported = export_saved_model(model, tmp_path / "exported", precision=precision)
    requests = [("predict_images", {"images": images.astype("float32")})]
    (answer,) = serve(exported.path, requests, tmp_path)["answers"]
    np.testing.assert_allclose(answer["probabilities"], expected, atol=tolerance)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("int8", 0.1)])
def test_tflite_convolves_each_channel_by_itself(
    model, images, expected, precision, tolerance, tmp_path
):
    path = tmp_path / "model.tflite"
    samples = given_images(model, 16)
    export_file(model, path, format="tflite", precision=precision, samples=samples)
    interpreter = tf.lite.Interpreter(str(path))
    answer = interpreter.get_signature_runner("serving_default")
    answers = [answer(images=i[None].astype("float32"))["probabilities"] for i in images]
    np.testing.assert_allclose(np.concatenate(answers), expected, atol=tolerance)
    kinds = [details["op_name"] for details in interpreter._get_ops_details()]
    assert kinds.count("DEPTHWISE_CONV_2D") == 4


def test_averages_in_tflite(tmp_path):
    model = tiny_classifier("ResNet18", antialias="average")
    assert export_file(model, tmp_path / "x.tflite", format="tflite").relative < 1e-5


@pytest.mark.filterwarnings("ignore")
def test_onnx_files_answer_like_the_model(model, images, expected, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "model.onnx"
    assert export_file(model, path, format="onnx").relative < 1e-5
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (answer,) = session.run(["probabilities"], {"images": images.astype("float32")})
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-6)
