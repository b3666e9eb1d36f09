"""Models: names, signature, ranks, dilation, plain twins, bad input."""

import inspect
import math
import random

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run, small

import keras_resnet.models as models
from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.blocks.options import LayerOptions
from keras_resnet.models import ResNet, create_model


def expected_names_of_resnet50():
    """Layer names are API: weights, features and users' code go by them."""
    names = ["stem_conv_pad", "stem_conv", "stem_norm", "stem_act", "stem_pool"]
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for block in range(1, depth + 1):
            prefix = f"stage{stage}_block{block}_"
            parts = ["conv1", "norm1", "act1", "conv2", "norm2", "act2", "conv3", "norm3"]
            if block == 1:
                parts += ["shortcut_conv", "shortcut_norm"]
                parts += ["conv2_pad"] if stage > 1 else []
            names += [prefix + part for part in [*parts, "add", "out"]]
    return [*names, "pool", "predictions"]


def test_layer_names_of_resnet50():
    model = create_model("ResNet50")
    assert sorted(layer.name for layer in model.layers[1:]) == sorted(expected_names_of_resnet50())


@pytest.mark.parametrize(
    ("name", "present", "absent"),
    [
        ("ResNet18D", ["stem_conv3", "stage2_block1_shortcut_pool", "stem_pool"], ["stem_conv"]),
        ("ResNetRS50", ["stem_act4", "stage1_block1_se_scale", "dropout"], ["stem_pool"]),
        ("CifarResNet20", ["stage2_block1_shortcut", "stem_act"], ["stem_pool"]),
        ("ResNet50V2", ["stage1_block1_preact_act", "final_norm", "final_act"], ["stem_norm"]),
        ("SEResNet18", ["stage1_block1_se_reduce", "stage1_block1_se_gate"], ["dropout"]),
    ],
)
def test_layer_names_of_other_families(name, present, absent):
    names = {layer.name for layer in small(name).layers}
    assert names >= set(present)
    assert not names & set(absent)


def test_every_variant_is_a_function_with_the_signature_of_keras_applications():
    reference = list(inspect.signature(keras.applications.ResNet50).parameters)
    for name in ARCHITECTURES:
        function = getattr(models, name)
        assert name in models.__all__
        assert function.__name__ == name
        assert list(inspect.signature(function).parameters)[: len(reference)] == reference
    model = models.ResNet18(True, None, None, (32, 32, 3), None, 7, None, name="mine")
    assert (model.name, model.output_shape) == ("mine", (None, 7))
    with pytest.raises(TypeError, match="'include_top' twice"):
        models.ResNet18(True, include_top=True)
    with pytest.raises(TypeError, match="at most 7 positional"):
        models.ResNet18(*range(8))


@pytest.mark.parametrize(
    ("pooling", "shape"), [(None, (2, 1, 1, 64)), ("avg", (2, 64)), ("max", (2, 64))]
)
def test_without_top(pooling, shape):
    model = small("ResNet18", include_top=False, pooling=pooling, input_shape=(24 + 8, 32, 3))
    y = run(model, images(model))
    assert y.shape == shape
    features = run(
        keras.Model(model.inputs[0], model.get_layer("stage4_block1_out").output), images(model)
    )
    expected = {"avg": features.mean((1, 2)), "max": features.max((1, 2)), None: features}[pooling]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_open_sizes():
    assert create_model("CifarResNet20", include_top=False).input_shape == (None, None, None, 3)
    model = randomize(small("ResNet18", input_shape=(None, None, 3)))
    fixed = small("ResNet18", input_shape=(40, 33, 3))
    fixed.set_weights(model.get_weights())
    x = images(fixed)
    np.testing.assert_allclose(run(model, x), run(fixed, x), rtol=1e-5, atol=1e-6)


def test_input_tensor():
    inputs = keras.Input((64, 64, 1))
    scaled = keras.layers.Conv2D(3, 1, name="color")(inputs)
    model = small("ResNet18", input_tensor=scaled)
    assert model.input_shape == (None, 64, 64, 1)
    assert model.get_layer("color") in model.layers


def test_activation_and_classes():
    model = randomize(small("ResNet18", classes=3))
    logits = small("ResNet18", classes=3, classifier_activation=None)
    logits.set_weights(model.get_weights())
    x = images(model)
    exp = np.exp(run(logits, x))
    np.testing.assert_allclose(run(model, x), exp / exp.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "bfloat16", "float64"])
def test_dtype_policy(policy):
    model = small("CifarResNet20", dtype=policy, dropout_rate=0.1)
    compute = policy.replace("mixed_", "")
    inner = [layer for layer in model.layers[1:] if layer.name != "predictions"]
    assert {layer.compute_dtype for layer in inner} == {compute}
    head = "float32" if policy == "mixed_bfloat16" else compute
    assert model.get_layer("predictions").compute_dtype == head
    assert {v.dtype for v in model.trainable_variables} == {
        "float32" if policy == "mixed_bfloat16" else compute
    }


def test_global_policy_reaches_the_layers():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small("CifarResNet20")
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("stage1_block1_conv1").compute_dtype == "bfloat16"
    assert model.get_layer("predictions").compute_dtype == "float32"
    assert run(model, images(model)).dtype == np.float32


STRIDED = ["ResNet18", "ResNet50", "ResNet50V1", "ResNet50V2", "ResNet18V2", "SEResNet18"]


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("output_stride", [16, 8])
def test_dilated_network_contains_the_strided_one(name, output_stride):
    """Where strides became dilations, every 2nd or 4th pixel is a pixel of the strided network."""
    kwargs = {
        "include_top": False,
        "input_shape": (96, 64, 3),
        "depths": (1, 1, 2, 2),
        "se_ratio": 0,
    }
    strided = randomize(small(name, **kwargs))
    dilated = small(name, output_stride=output_stride, **kwargs)
    dilated.set_weights(strided.get_weights())
    x = images(strided)
    factor = 32 // output_stride
    y = run(dilated, x)
    assert y.shape[1:3] == (96 // output_stride, 64 // output_stride)
    np.testing.assert_allclose(y[:, ::factor, ::factor], run(strided, x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "strides"), [("CifarResNet20", (4, 2, 1)), ("ResNet18D", (32, 16, 8))]
)
@pytest.mark.parametrize("size", [(64,), (64, 32), (32, 32, 32)])
def test_output_strides_of_all_ranks(name, strides, size):
    for stride in strides:
        model = small(name, include_top=False, input_shape=(*size, 2), output_stride=stride)
        assert model.output_shape[1:-1] == tuple(n // stride for n in size)


@pytest.mark.parametrize(
    "name",
    [
        *("ResNet18", "ResNet18V2", "CifarResNet164V2"),
        *(pytest.param(name, marks=pytest.mark.ci) for name in ("ResNet50D", "ResNetRS50")),
    ],
)
def test_ranks_agree(name):
    """On an image one pixel wide, the 2-D and 3-D networks are the 1-D one: kernels by center."""
    line = randomize(small(name, input_shape=(64, 3)))
    x = images(line)
    expected = run(line, x)
    for rank in (2, 3):
        model = small(name, input_shape=(64, *[None] * (rank - 1), 3))
        for source, target in zip(line.weights, model.weights, strict=True):
            value = keras.ops.convert_to_numpy(source)
            if len(target.shape) > value.ndim:
                kernel = np.zeros(target.shape, "float32")
                center = tuple(n // 2 for n in target.shape[1:rank])
                kernel[(slice(None), *center)] = value
                value = kernel
            target.assign(value)
        y = run(model, x.reshape(2, 64, *[1] * (rank - 1), 3))
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["CifarResNet20", "ResNet50", "ResNet18V2"])
def test_plain_twin(name):
    plain, residual = small(name, residual=False), small(name)
    shortcuts = ("_add", "_shortcut", "_shortcut_conv", "_shortcut_norm", "_shortcut_pool")
    lost = {la.name for la in residual.layers[1:]} - {la.name for la in plain.layers[1:]}
    assert lost
    assert all(layer.endswith(shortcuts) for layer in lost)
    assert run(plain, images(plain), training=True).std() > 1e-4  # not zero-initialized away


def test_stochastic_depth_is_linear_in_depth():
    model = create_model("CifarResNet20", drop_path_rate=0.4)
    rates = {la.name: la.rate for la in model.layers if la.name.endswith("drop_path")}
    assert len(rates) == 8  # the first block's rate is 0
    assert rates["stage3_block3_drop_path"] == pytest.approx(0.4)
    assert rates["stage2_block1_drop_path"] == pytest.approx(0.4 * 3 / 8)


def test_options_by_argument():
    synchronized = keras.backend.backend() == "tensorflow"  # Keras has it nowhere else
    norm = {"momentum": 0.5, "synchronized": synchronized}
    model = small("ResNet50V1", norm=norm, se_ratio=0.25, dropout_rate=0.3)
    layer = model.get_layer("stage1_block1_norm1")
    assert (layer.momentum, layer.epsilon, layer.synchronized) == (0.5, 1.001e-5, synchronized)
    assert model.get_layer("dropout").rate == 0.3
    assert model.get_layer("stage1_block1_se_reduce").filters == 16
    assert not np.any(model.get_layer("stage1_block1_norm3").gamma)
    kept = small("ResNet50", zero_init_last_gamma=False)
    assert np.all(kept.get_layer("stage1_block1_norm3").gamma)
    wide = small("WideResNet28_10", block_dropout_rate=0.3)
    assert wide.get_layer("stage1_block1_dropout").rate == 0.3


@pytest.mark.parametrize(
    ("name", "zero"), [("ResNet18", True), ("SEResNet18", True), ("CifarResNet20", False)]
)
def test_where_blocks_start_as_the_identity(name, zero):
    model = small(name)
    gammas = [model.get_layer(f"stage{stage}_block1_norm2").gamma for stage in (1, 2, 3)]
    assert all(np.all(np.asarray(gamma) == (0 if zero else 1)) for gamma in gammas)


@pytest.mark.parametrize(
    ("name", "features"), [("CifarResNet20", 48), ("ResNet18", 64), ("ResNet50", 256)]
)
def test_classifiers_start_by_fan_in(name, features):
    """As PyTorch starts linear layers: uniform within 1 / sqrt(features)."""
    kernel = np.asarray(small(name, classes=200).get_layer("predictions").kernel)
    assert kernel.shape == (features, 200)
    assert np.abs(kernel).max() <= features**-0.5
    assert np.abs(kernel).max() >= 0.99 * features**-0.5
    assert kernel.std() == pytest.approx((3 * features) ** -0.5, rel=0.02)
    other = small(name, classes=200, classifier_initializer="normal")
    assert np.asarray(other.get_layer("predictions").kernel).std() == pytest.approx(0.01, rel=0.03)
    zeros = small(name, classifier_initializer="zeros").get_layer("predictions").kernel
    assert not np.any(np.asarray(zeros))
    with pytest.raises(ValueError, match=r"received 'fanin'; did you mean 'fan_in'\?"):
        small(name, classifier_initializer="fanin")


def test_convolutions_start_as_he_et_al_or_as_pytorch():
    """Deviations by the formulas of the two; the numbers of each convolution are its own."""
    he = small("CifarResNet20")
    pytorch = small("CifarResNet20", kernel_initializer="fan_in")
    given = small("CifarResNet20", kernel_initializer=keras.initializers.RandomNormal(stddev=0.1))
    for name in ("stage1_block1_conv1", "stage3_block1_conv1"):
        kernel = np.asarray(he.get_layer(name).kernel)
        *taps, inputs, outputs = kernel.shape
        assert kernel.std() == pytest.approx((2 / math.prod(taps) / outputs) ** 0.5, rel=0.05)
        bound = (math.prod(taps) * inputs) ** -0.5
        kernel = np.abs(pytorch.get_layer(name).kernel)
        assert 0.99 * bound <= kernel.max() <= bound
        assert np.std(given.get_layer(name).kernel) == pytest.approx(0.1, rel=0.05)
    first, second = (given.get_layer(f"stage1_block1_conv{n}").kernel for n in (1, 2))
    assert not np.any(np.asarray(first) == np.asarray(second))
    state = random.getstate()  # of the seeds that initializers draw
    LayerOptions()
    assert random.getstate() == state
    with pytest.raises(ValueError, match=r"`kernel_initializer` .* received 'fanin'; did you mean"):
        small("CifarResNet20", kernel_initializer="fanin")


def test_seed_fixes_the_weights():
    def weights():
        keras.utils.set_random_seed(3)
        return small("CifarResNet20").get_weights()

    for first, second in zip(weights(), weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow's CPU kernels are channels-last"
)
@pytest.mark.parametrize(
    "name", ["ResNet18D", "ResNet50V2", "ResNet18V2", "SEResNet18", "CifarResNet20"]
)
def test_data_formats_agree(name):
    last = randomize(small(name))
    shape = (last.input_shape[3], *last.input_shape[1:3])
    first = small(name, data_format="channels_first", input_shape=shape)
    first.set_weights(last.get_weights())
    x = images(last)
    y = run(first, np.moveaxis(x, -1, 1))
    np.testing.assert_allclose(y, run(last, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_stride": 4}, "32, 16 or 8, received 4"),
        ({"output_stride": "16"}, "received '16'"),
        ({"input_shape": (31, 64, 3)}, r"at least 32 pixels.*\(31, 64, 3\)"),
        ({"input_shape": (64,)}, r"one, two or three spatial axes.*\(64,\)"),
        ({"input_shape": (64, 64, 64, 64, 3)}, "one, two or three"),
        ({"input_shape": (64, 64, None)}, "number of channels"),
        ({"data_format": "NCHW"}, "received 'NCHW'"),
        ({"classes": 0}, "`classes` must be a positive integer, received 0"),
        ({"classes": 10.0}, "received 10.0"),
        ({"pooling": "mean"}, "`pooling` is None, 'avg' or 'max', received 'mean'"),
        ({"drop_path_rate": 1.2}, "`drop_path_rate` .* received 1.2"),
        ({"dropout_rate": -0.1}, "`dropout_rate` .* received -0.1"),
        ({"se_ratio": -1}, "`se_ratio` .* received -1"),
        ({"stem": "vgg"}, "received 'vgg'"),
        ({"shortcut": "Z"}, "received 'Z'"),
        ({"norm": {"eps": 1}}, "'eps'"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("ResNet18", **arguments)


def test_dilations_and_grouping_that_cannot_be():
    with pytest.raises(ValueError, match="4, 2 or 1, received 8"):
        create_model("CifarResNet20", output_stride=8)
    with pytest.raises(ValueError, match=r"`groups` is 32.*basic"):
        create_model("ResNet18", groups=32)


class TestMetadata:
    def test_preprocessing_is_plain_and_copied(self):
        model = small("ResNet18")
        assert model.preprocessing == {
            "image_size": 32,
            "crop_ratio": 0.875,
            "interpolation": "bilinear",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "channel_order": "rgb",
            "resize": "round",
            "exif": "apply",
            "max_pixels": 2**28,
            "scaled_decoding": "never",
        }
        with pytest.raises(TypeError):  # it is a value, of which changed copies are made
            model.preprocessing["image_size"] = 1
        assert model.preprocessing["image_size"] == 32
        own = dict(model.preprocessing)
        own |= {"image_size": np.int64(8), "mean": (np.float32(0.5),), "std": [1]}
        model.preprocessing = own
        own["image_size"] = 9
        assert model.preprocessing == {**own, "image_size": 8, "mean": [0.5], "std": [1.0]}
        assert type(model.preprocessing["image_size"]) is int
        with pytest.raises(ValueError, match="lacks crop_ratio"):
            model.preprocessing = {"image_size": 8}
        model.class_names = tuple("abcde")
        assert model.class_names == list("abcde")
        model.preprocessing = model.class_names = None
        assert model.get_config()["preprocessing"] is None

    def test_clone_with_a_function_keeps_it(self):
        model = small("ResNet18")
        model.class_names = list("abcde")
        clone = keras.models.clone_model(
            model, clone_function=lambda la: type(la).from_config(la.get_config())
        )
        assert isinstance(clone, ResNet)
        assert clone.preprocessing == model.preprocessing
        assert clone.class_names == list("abcde")
