"""Group normalization and weight standardization in every export format."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import given_images, keras_answers, serve
from model_helpers import randomize

from keras_resnet.export import export_file, export_saved_model, sample_images
from keras_resnet.layers.standardized_conv import PLAIN_CONVOLUTIONS
from keras_resnet.models import create_model

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model():
    shape = {"depths": (1,) * 4, "widths": (8, 16, 32, 64), "stem_width": 16, "classes": 6}
    model = randomize(create_model("ResNet50x1_BiT", input_shape=(64, 64, 3), **shape))
    model.layers[-1].kernel.assign(model.layers[-1].kernel / 4)
    return model


@pytest.fixture(scope="module")
def images():
    return sample_images.smooth_images(4, 64, seed=5)


@pytest.fixture(scope="module")
def expected(model, images):
    return keras_answers(model, images)


@pytest.mark.ci
def test_keras_files_have_plain_convolutions(model, images, expected, tmp_path):
    path = tmp_path / "model.keras"
    assert export_file(model, path, format="keras").relative < 1e-5
    loaded = keras.saving.load_model(path)
    assert not any(type(layer) in PLAIN_CONVOLUTIONS for layer in loaded.layers)
    found = keras_answers(loaded, images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-5), ("float16", 5e-3), ("int8", 0.15)]
)
def test_tflite(model, images, expected, tmp_path, precision, tolerance):
    path = tmp_path / "model.tflite"
    samples = given_images(model, 16)
    export_file(model, path, format="tflite", precision=precision, samples=samples)
    run = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
    answers = [run(images=image[None].astype("float32"))["probabilities"] for image in images]
    np.testing.assert_allclose(np.concatenate(answers), expected, atol=tolerance)


@pytest.mark.ci
def test_onnx(model, images, expected, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "model.onnx"
    assert export_file(model, path, format="onnx").relative < 1e-5
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch in (images[:1], images):
        (answer,) = session.run(["probabilities"], {"images": batch.astype("float32")})
        np.testing.assert_allclose(answer, expected[: len(batch)], rtol=1e-4, atol=1e-6)


@pytest.mark.ci
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_the_cpp_loader_answers_what_keras_does(
    model, images, expected, tmp_path, precision, tolerance
):
    exported = export_saved_model(model, tmp_path / "served", precision=precision)
    requests = [("predict_images", {"images": images.astype("float32")})]
    (answer,) = serve(exported.path, requests, tmp_path)["answers"]
    np.testing.assert_allclose(answer["probabilities"], expected, atol=tolerance)
