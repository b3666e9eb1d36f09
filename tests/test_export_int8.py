"""Exports in 8 bits: calibrated on images, run by their own runtimes, and honest about the cost."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from export_helpers import given_images, keras_answers, tiny_classifier

from keras_resnet.errors import UserError
from keras_resnet.export import comparison, export_file, load_predictor, probing, sample_images
from keras_resnet.export.formats import FORMATS, Job

IN_INT8 = [name for name, row in FORMATS.items() if "int8" in row.tolerances]
PACKAGES = {"onnx": ("onnxruntime", "tf2onnx"), "openvino": ("openvino", "nncf"), "tflite": ()}


@pytest.fixture(scope="module")
def model():
    return tiny_classifier()


@pytest.fixture(scope="module")
def images():
    return sample_images.smooth_images(6, 32, seed=7)


@pytest.mark.parametrize("name", IN_INT8)
def test_noise_is_refused(model, tmp_path, name):
    with pytest.raises(UserError, match="--calibration=PATHS"):
        export_file(model, tmp_path / "model", format=name, precision="int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("io", ["uint8", "int8"])
def test_tflite_takes_and_gives_8_bits(model, images, tmp_path, io):
    path = tmp_path / "model.tflite"
    samples = given_images(model, 16)
    export_file(model, path, format="tflite", precision="int8", samples=samples, io=io)
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    # A step is one shade: pixels go in as they are, or less 128.
    assert entry["dtype"] == np.dtype(io).type
    assert entry["quantization"] == (1.0, {"uint8": 0, "int8": -128}[io])
    outputs = interpreter.get_output_details()
    assert {output["dtype"] for output in outputs} == {np.dtype(io).type}
    (probabilities,) = (o for o in outputs if o["quantization"][0] == np.float32(1 / 256))
    found = []
    for image in images:
        pixels = image.astype(int) + entry["quantization"][1]
        interpreter.set_tensor(entry["index"], pixels[None].astype(io))
        interpreter.invoke()
        steps = interpreter.get_tensor(probabilities["index"]).astype(float)
        found.append((steps - probabilities["quantization"][1]) / 256)
    np.testing.assert_allclose(np.concatenate(found), keras_answers(model, images), atol=0.1)
    assert load_predictor(path).class_names == tuple(model.class_names)


def test_8_bits_at_the_ends_are_for_tflite_in_int8(model, tmp_path):
    for format, precision in (("tflite", "float32"), ("onnx", "int8")):
        with pytest.raises(UserError, match="io='uint8'"):
            export_file(model, tmp_path / "x", format=format, precision=precision, io="uint8")


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")
def test_onnx_kernels_have_a_scale_for_each_channel(model, images, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "model.onnx"
    export_file(model, path, format="onnx", precision="int8", samples=given_images(model, 16))
    graph = onnx.load(str(path)).graph
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    kinds = {node.op_type for node in graph.node}
    assert {"Conv", "QuantizeLinear", "DequantizeLinear"} <= kinds
    made_by = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type == "Conv":
            kernel, scale = (constants[name] for name in made_by[node.input[1]].input[:2])
            assert kernel.dtype == np.int8
            assert scale.shape == kernel.shape[:1]
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"images": images.astype("float32")})
    np.testing.assert_allclose(found, keras_answers(model, images), atol=0.1)


def test_the_layers_that_differ_most_come_first(model, images):
    """A format that doubles one layer's activations and loses the tenth of another's."""

    def probe(network, function, job):
        def run(pixels):
            found = {k: v.numpy() for k, v in function(tf.constant(pixels, tf.float32)).items()}
            found["stage2_block1_act1"] *= 2
            found["pool"] *= 0.9
            return found

        return run

    @dataclasses.dataclass(frozen=True)
    class Row:
        probe: object

    job = Job(model, None, "int8", True, None, given_images(model, 4))
    worst = probing.worst_layers(Row(probe), job, images)
    assert [name for name, _ in worst[:2]] == ["stage2_block1_act1", "pool"]
    np.testing.assert_allclose([share for _, share in worst], [1, 0.1, 0, 0, 0], atol=1e-6)


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", IN_INT8)
def test_a_loss_names_layers_of_the_network(model, tmp_path, monkeypatch, name):
    for package in PACKAGES[name]:
        pytest.importorskip(package)
    monkeypatch.setattr(comparison, "MAX_LOSS", -1)
    samples = given_images(model, 16, labels=np.arange(16) % 6)
    path = tmp_path / f"model{FORMATS[name].suffix}"
    difference = export_file(model, path, format=name, precision="int8", samples=samples)
    assert difference.loss == difference.top1_before - difference.top1_after
    assert len(difference.worst_layers) == probing.WORST
    shares = [share for _, share in difference.worst_layers]
    assert {name for name, _ in difference.worst_layers} <= {layer.name for layer in model.layers}
    assert shares == sorted(shares, reverse=True)
    assert 0 < shares[-1] < shares[0] < 0.3


def test_some_of_many_images_are_of_all_classes():
    """Whether the list goes class after class, or round and round."""
    numbers = sample_images._some_of(10_000, 1_000)
    assert len(numbers) == 1_000
    assert (np.diff(numbers) > 0).all()
    for classes in (numbers // 1_000, numbers % 10):
        assert np.bincount(classes, minlength=10).min() > 60
    assert (sample_images._some_of(5, 0) == np.arange(5)).all()
