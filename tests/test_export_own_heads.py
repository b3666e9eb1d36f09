"""Models that others made on our networks: every format says what Keras itself says, or why not."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import CLASSES, serve
from model_helpers import randomize
from test_models_own_parts import Whitening, bounded_relu, own_block

from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.export import export_file, export_saved_model, sample_images
from keras_resnet.export.own_heads import as_classifier
from keras_resnet.export.signatures import make_network
from keras_resnet.models import create_model
from keras_resnet.models.loading import load_model

SIZE = 32
IMAGES = sample_images.smooth_images(4, SIZE, seed=3)
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SMALL = {"depths": (1, 1, 1), "widths": (16, 16, 16), "input_shape": (SIZE, SIZE, 3)}


def backbone(name="CifarResNet20", **options):
    return create_model(name, include_top=False, pooling="avg", **{**SMALL, **options})


def functional(**options):
    base = backbone(**options)
    return keras.Model(base.input, keras.layers.Dense(6, "softmax", name="mine")(base.output))


def as_layer(base=None):
    inputs = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.Dropout(0.5)((base or backbone())(inputs))
    return keras.Model(inputs, keras.layers.Dense(6, "softmax")(pooled))


def with_rescaling():
    inputs = keras.Input((SIZE, SIZE, 3))
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    return keras.Model(inputs, keras.layers.Dense(6, "softmax")(backbone()(scaled)))


def sequential():
    layers = [keras.layers.Rescaling(1 / 255), backbone(), keras.layers.Dense(6)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers, keras.layers.Softmax()])


def mixed(policy="mixed_bfloat16"):
    """As Keras' guide to mixed precision makes the end of a network."""
    base = backbone(dtype=policy)
    logits = keras.layers.Dense(6, dtype=policy)(base.output)
    return keras.Model(base.input, keras.layers.Activation("softmax", dtype="float32")(logits))


def quantized():
    model = functional()
    model.quantize("int8")
    return model


# How to make it, what it scales itself, and how far its answers may be from Keras' own: 8 bits of
# the activations of a quantized layer, and 8 bits of mantissa.
CASES = {
    "functional": (functional, False, 1e-5),
    "as a layer": (as_layer, False, 1e-5),
    "Rescaling": (with_rescaling, True, 1e-5),
    "Sequential": (sequential, True, 1e-5),
    "mixed_bfloat16": (mixed, False, 0.05),
    "float16": (lambda: mixed("float16"), False, 0.005),
    "int8": (quantized, False, 0.02),
    "GroupNorm": (lambda: functional(norm_layer="group"), False, 1e-5),
    "BlurPool": (lambda: functional(antialias="blur"), False, 1e-5),
    "own parts": (
        lambda: functional(
            name="WideResNet16_4",
            block=own_block,
            norm_layer=Whitening,
            activation=bounded_relu,
        ),
        False,
        1e-5,
    ),
}
FORMATS = ("keras", "tflite", "onnx", "saved_model")


def answers(model, scales_pixels):
    """Probabilities by Keras alone, of IMAGES as they are or prepared as for ImageNet."""
    pixels = IMAGES if scales_pixels else (IMAGES / 255 - MEAN) / STD
    return keras.ops.convert_to_numpy(model(pixels.astype("float32"), training=False))


def made(case):
    keras.utils.set_random_seed(7)
    make, scales_pixels, tolerance = CASES[case]
    model = make()
    if case != "int8":
        randomize(model)
    return model, answers(model, scales_pixels).astype("float32"), tolerance


@pytest.mark.parametrize(
    "case",
    [
        case if case in ("Sequential", "int8") else pytest.param(case, marks=pytest.mark.ci)
        for case in CASES
    ],
)
def test_classifiers_made_on_our_networks_answer_as_keras_does(case):
    model, expected, tolerance = made(case)
    network = make_network(as_classifier(model, "imagenet"))
    _, logits = network(tf.constant(IMAGES, tf.float32))
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=tolerance)
    assert network.preprocessing.image_size == SIZE


def run_file(path, scratch, format):
    """The probabilities in an exported file, by its own runtime."""
    pixels = IMAGES.astype("float32")
    if format == "saved_model":
        (answer,) = serve(path, [("predict_images", {"images": pixels})], scratch)["answers"]
        return answer["probabilities"]
    if format == "tflite":
        run = tf.lite.Interpreter(str(path)).get_signature_runner("serving_default")
        return np.concatenate([run(images=image[None])["probabilities"] for image in pixels])
    if format == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["probabilities"], {"images": pixels})[0]
    _, logits = make_network(load_model(path))(tf.constant(pixels))
    return tf.nn.softmax(logits).numpy()


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_every_format_of_every_such_model(case, format, tmp_path):
    if format == "onnx":
        pytest.importorskip("tf2onnx")
    model, expected, tolerance = made(case)
    samples = sample_images.drawn(as_classifier(model, "imagenet").preprocessing, 4)
    if format == "saved_model":
        options = {"preprocessing": "imagenet", "samples": samples}
        path = export_saved_model(model, tmp_path / "served", **options).path
    else:
        path = tmp_path / f"model.{format}"
        export_file(model, path, format=format, preprocessing="imagenet", samples=samples)
    np.testing.assert_allclose(
        run_file(path, tmp_path, format), expected, atol=max(tolerance, 1e-4)
    )


def test_a_backbone_inside_says_how_images_are_prepared():
    base = backbone()
    base.preprocessing = {**base.preprocessing, "image_size": SIZE, "mean": [0.1, 0.2, 0.3]}
    assert as_classifier(as_layer(base)).preprocessing["mean"] == [0.1, 0.2, 0.3]
    with pytest.raises(UserError, match="--preprocessing=imagenet, or =FILE"):
        make_network(as_classifier(functional()))


def test_what_the_file_says_is_what_is_done_and_kept(tmp_path, capsys):
    model = functional()
    model.save(tmp_path / "own.keras")
    wanted = {"image_size": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
    (tmp_path / "how.json").write_text(json.dumps(wanted))
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    arguments = [f"--model={tmp_path}/own.keras", f"--output={tmp_path}/x.keras", "--format=keras"]
    arguments += [f"--preprocessing={tmp_path}/how.json", f"--labels={tmp_path}/names.txt"]
    assert main(["export", *arguments]) == 0
    exported = load_model(tmp_path / "x.keras")
    assert {key: exported.preprocessing[key] for key in wanted} == wanted
    assert exported.class_names == CLASSES
    capsys.readouterr()
    assert main(["export", *arguments[:3], f"--preprocessing={tmp_path}/no.json"]) == 1
    assert "no.json: cannot be read (No such file" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused_in_one_line():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UserError, match="is a Own, no graph of layers"):
        as_classifier(Own())
    model = functional()
    model.quantize("int4")
    with pytest.raises(UserError, match="Dense mine is quantized to int4"):
        as_classifier(model)
