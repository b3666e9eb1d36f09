"""Blocks and stems against the papers' figures, written out in numpy."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from model_helpers import images, max_pool, randomize, run, subsample

from keras_resnet import blocks
from keras_resnet.blocks.common import Builder
from keras_resnet.blocks.options import LayerOptions

SIZES = {1: (13,), 2: (9, 10), 3: (5, 6, 7)}


class Numpy:
    """The operations of a network in float64 numpy, with the weights of a Keras model."""

    def __init__(self, model, name):
        self.name = name
        self.weights = {
            v.path: np.asarray(keras.ops.convert_to_numpy(v), "float64") for v in model.weights
        }

    def get(self, layer, variable):
        return self.weights.get(f"{self.name}_{layer}/{variable}")

    def conv(self, x, layer, stride=1, dilation=1, groups=1):
        kernel = self.get(layer, "kernel")
        rank = x.ndim - 2
        pad = [dilation * (k // 2) for k in kernel.shape[:rank]]
        x = np.pad(x, [(0, 0), *((p, p) for p in pad), (0, 0)])
        axes = tuple(range(1, rank + 1))
        spans = [dilation * (k - 1) + 1 for k in kernel.shape[:rank]]
        windows = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
        windows = windows[(slice(None), *[slice(None, None, stride)] * rank)]
        windows = windows[(..., *[slice(None, None, dilation)] * rank)]
        out = []
        for group in range(groups):
            part = np.array_split(windows, groups, axis=rank + 1)[group]
            filters = np.array_split(kernel, groups, axis=-1)[group]
            # part: batch, space, channels, taps; filters: taps, channels, filters
            out.append(
                np.tensordot(part, filters, (range(rank + 1, 2 * rank + 2), (rank, *range(rank))))
            )
        y = np.concatenate(out, axis=-1)
        bias = self.get(layer, "bias")
        return y if bias is None else y + bias

    def norm(self, x, layer, epsilon=1e-5):
        gamma, beta, mean, variance = (
            self.get(layer, key) for key in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta

    def conv_norm(self, x, index, **kwargs):
        return self.norm(self.conv(x, f"conv{index}", **kwargs), f"norm{index}")


def relu(x):
    return np.maximum(x, 0)


def average_pool(x, stride):
    """Windows of `stride` pixels; what lies beyond the border does not count."""
    for axis in range(1, x.ndim - 1):
        starts = range(0, x.shape[axis], stride)
        parts = [np.take(x, range(s, min(s + stride, x.shape[axis])), axis) for s in starts]
        x = np.concatenate([part.mean(axis, keepdims=True) for part in parts], axis)
    return x


def squeeze_excite(net, x):
    axes = tuple(range(1, x.ndim - 1))
    gate = relu(net.conv(x.mean(axes, keepdims=True), "se_reduce"))
    return x / (1 + np.exp(-net.conv(gate, "se_expand")))


def shortcut(net, x, filters, stride, kind, normalized=True):
    if kind.startswith("A"):
        zeros = filters - x.shape[-1]
        before = 0 if kind == "A" else zeros // 2
        widths = [(0, 0)] * (x.ndim - 1) + [(before, zeros - before)]
        return np.pad((average_pool if kind == "A-pooled" else subsample)(x, stride), widths)
    if kind == "D":
        x, stride = average_pool(x, stride), 1
    x = net.conv(x, "shortcut_conv", stride=stride)
    return net.norm(x, "shortcut_norm") if normalized else x


def built(make, rank, channels=4):
    """A model of one block, randomized, its input and its output."""
    inputs = keras.Input((*SIZES[rank], channels))
    model = randomize(keras.Model(inputs, make(inputs)))
    x = images(model)
    return model, x.astype("float64"), run(model, x)


def close(actual, expected):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "kind"),
    [(1, "B"), (2, "A"), (2, "A-centered"), (2, "A-pooled"), (2, "B"), (2, "D"), (3, "B")],
)
def test_basic_block(rank, stride, kind):
    model, x, y = built(lambda t: blocks.basic_block(t, 8, stride, shortcut=kind, name="b"), rank)
    net = Numpy(model, "b")
    branch = net.conv_norm(relu(net.conv_norm(x, 1, stride=stride)), 2)
    close(y, relu(branch + shortcut(net, x, 8, stride, kind)))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("stride_in_1x1", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_bottleneck_block(rank, stride_in_1x1, groups):
    model, x, y = built(
        lambda t: blocks.bottleneck_block(
            t,
            4,
            2,
            groups=groups,
            width=6,
            stride_in_1x1=stride_in_1x1,
            use_bias=True,
            se_ratio=0.5,
            name="b",
        ),
        rank,
    )
    net = Numpy(model, "b")
    strides = (2, 1) if stride_in_1x1 else (1, 2)
    branch = relu(net.conv_norm(x, 1, stride=strides[0]))
    branch = relu(net.conv_norm(branch, 2, stride=strides[1], groups=groups))
    branch = squeeze_excite(net, net.conv_norm(branch, 3))
    close(y, relu(branch + shortcut(net, x, 16, 2, "B")))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("filters", "stride"), [(8, 2), (4, 1), (4, 2)])
@pytest.mark.parametrize("from_preact", [False, True])
def test_preact_basic_block(rank, filters, stride, from_preact):
    model, x, y = built(
        lambda t: blocks.preact_basic_block(
            t, filters, stride, preact_shortcut=from_preact, use_bias=True, name="b"
        ),
        rank,
    )
    net = Numpy(model, "b")
    preact = relu(net.norm(x, "preact_norm"))
    branch = net.conv(relu(net.conv_norm(preact, 1, stride=stride)), "conv2")
    if filters == 4:
        side = subsample(preact if from_preact else x, stride)
    else:
        side = shortcut(net, preact, filters, stride, "B", normalized=False)
    close(y, branch + side)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kind", ["A", "B", "D"])
def test_preact_bottleneck_block(rank, kind):
    model, x, y = built(
        lambda t: blocks.preact_bottleneck_block(t, 3, 2, shortcut=kind, se_ratio=0.25, name="b"),
        rank,
    )
    net = Numpy(model, "b")
    preact = relu(net.norm(x, "preact_norm"))
    branch = relu(net.conv_norm(preact, 1))
    branch = net.conv(relu(net.conv_norm(branch, 2, stride=2)), "conv3")
    close(y, squeeze_excite(net, branch) + shortcut(net, preact, 12, 2, kind, normalized=False))


@pytest.mark.parametrize("kind", ["B", "D"])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_projection_of_what_has_the_shape_already(kind, normalized, stride):
    model, x, y = built(
        lambda t: blocks.basic_block(
            t,
            4,
            stride,
            shortcut=kind,
            projection="always",
            shortcut_norm=normalized,
            use_bias=True,
            name="b",
        ),
        2,
    )
    net = Numpy(model, "b")
    branch = net.conv_norm(relu(net.conv_norm(x, 1, stride=stride)), 2)
    close(y, relu(branch + shortcut(net, x, 4, stride, kind, normalized=normalized)))


@pytest.mark.parametrize(
    ("projection", "stride", "projects"),
    [
        ("auto", 2, False),
        ("shape", 1, False),
        ("shape", 2, True),
        ("always", 1, True),
        ("always", 2, True),
    ],
)
def test_projections_of_preactivation_blocks(projection, stride, projects):
    model, x, y = built(
        lambda t: blocks.preact_basic_block(t, 4, stride, projection=projection, name="b"), 2
    )
    net = Numpy(model, "b")
    preact = relu(net.norm(x, "preact_norm"))
    branch = net.conv(relu(net.conv_norm(preact, 1, stride=stride)), "conv2")
    side = subsample(x, stride)
    if projects:
        side = shortcut(net, preact, 4, stride, "B", normalized=False)
    close(y, branch + side)
    assert projects == any("shortcut_conv" in layer.name for layer in model.layers)


def test_dilation_of_a_stage_whose_stride_it_replaces():
    model, x, y = built(
        lambda t: blocks.basic_block(t, 4, dilation=4, first_dilation=2, name="b"), 2
    )
    net = Numpy(model, "b")
    branch = net.conv_norm(relu(net.conv_norm(x, 1, dilation=2)), 2, dilation=4)
    close(y, relu(branch + x))


@pytest.mark.parametrize("block", [blocks.basic_block, blocks.bottleneck_block])
def test_plain_blocks_have_no_shortcut(block):
    model, x, y = built(lambda t: block(t, 4, 2, residual=False, name="b"), 2)
    net = Numpy(model, "b")
    convs = [1, 2] if block is blocks.basic_block else [1, 2, 3]
    for index in convs:
        x = relu(
            net.conv_norm(x, index, stride=2 if index == convs[-2 if len(convs) == 3 else 0] else 1)
        )
    close(y, x)
    assert not any("shortcut" in layer.name or "add" in layer.name for layer in model.layers)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize("zero_pad", [False, True])
def test_imagenet_stem(rank, preactivation, zero_pad):
    model, x, y = built(
        lambda t: blocks.stem(t, 6, preactivation=preactivation, zero_pad_pool=zero_pad), rank
    )
    net = Numpy(model, "stem")
    x = net.conv(x, "conv", stride=2)
    x = x if preactivation else relu(net.norm(x, "norm"))
    close(y, max_pool(x, 0 if zero_pad else -np.inf))


@pytest.mark.parametrize("kind", ["cifar", "deep", "deep_strided"])
def test_other_stems(kind):
    model, x, y = built(lambda t: blocks.stem(t, 8, kind), 2)
    net = Numpy(model, "stem")
    if kind == "cifar":
        expected = relu(net.conv_norm(x, ""))
    else:
        for index, stride in ((1, 2), (2, 1), (3, 1)):
            x = relu(net.conv_norm(x, index, stride=stride))
        expected = max_pool(x, 0) if kind == "deep" else relu(net.conv_norm(x, 4, stride=2))
    close(y, expected)


@pytest.mark.parametrize("block", [blocks.basic_block, blocks.bottleneck_block])
def test_blocks_start_as_the_identity(block):
    inputs = keras.Input((6, 16))
    model = keras.Model(inputs, block(inputs, 16 if block is blocks.basic_block else 4))
    x = images(model)
    np.testing.assert_allclose(run(model, x), relu(x), atol=1e-6)
    inputs = keras.Input((6, 16))
    plain = block(inputs, 4, residual=False)
    assert run(keras.Model(inputs, plain), x).std() > 0.1  # gamma is not 0 there


def test_kernels_have_the_variance_of_he_2015():
    inputs = keras.Input((8, 8, 64))
    conv = keras.Model(inputs, blocks.conv_norm_act(inputs, 128, 3, name="x")).get_layer("x_conv")
    kernel = keras.ops.convert_to_numpy(conv.kernel)
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.02)  # fan out


def test_options_reach_the_layers():
    inputs = keras.Input((8, 8, 4))
    synchronized = keras.backend.backend() == "tensorflow"  # Keras has it nowhere else
    norm = {"momentum": 0.7, "epsilon": 1e-3, "synchronized": synchronized}
    y = blocks.bottleneck_block(
        inputs, 4, 2, norm=norm, activation="silu", dtype="mixed_bfloat16", name="b"
    )
    model = keras.Model(inputs, y)
    for index in (1, 2, 3):
        layer = model.get_layer(f"b_norm{index}")
        assert (layer.momentum, layer.epsilon, layer.synchronized) == (0.7, 1e-3, synchronized)
    assert model.get_layer("b_act1").activation is keras.activations.silu
    assert {layer.compute_dtype for layer in model.layers[1:]} == {"bfloat16"}
    assert model.get_layer("b_conv1").kernel.dtype == "float32"


def test_blocks_without_names_get_different_ones():
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, blocks.basic_block(blocks.basic_block(x, 4), 4))
    prefixes = {layer.name.rsplit("_", 1)[0] for layer in model.layers[1:]}
    assert len(prefixes) == 2


def test_channels_first_equals_channels_last():
    outputs = []
    for data_format in ("channels_last", "channels_first"):
        shape = (8, 8, 4) if data_format == "channels_last" else (4, 8, 8)
        inputs = keras.Input(shape)
        y = blocks.stem(inputs, 8, zero_pad_pool=False, data_format=data_format)
        y = blocks.bottleneck_block(
            y, 4, 2, shortcut="A", se_ratio=0.5, data_format=data_format, name="b"
        )
        model = keras.Model(inputs, blocks.norm_act(y, data_format=data_format, name="end"))
        outputs.append(model.output.shape)
    assert outputs == [(None, 1, 1, 16), (None, 16, 1, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 0}, "`filters` must be a positive integer, received 0"),
        ({"filters": 8, "stride": 1.5}, "`stride` .* received 1.5"),
        ({"filters": 8, "shortcut": "C"}, "`shortcut` is 'A'.* received 'C'"),
        ({"filters": 8, "residual": False, "drop_path_rate": 0.1}, "`drop_path_rate` is 0.1"),
        ({"filters": 8, "data_format": "NHWC"}, "received 'NHWC'"),
        ({"filters": 8, "norm": {"eps": 1e-3}}, "received 'eps'; did you mean 'epsilon'"),
        ({"filters": 8, "drop_path_rate": 1.0}, "1.0"),
        ({"filters": 8, "projection": "first"}, "`projection` is 'auto'.* received 'first'"),
        ({"filters": 8, "projection": "always", "shortcut": "A"}, "shortcut='A' adds zero"),
        ({"filters": 8, "weight_standardization": 1e-5}, "True or False, received 1e-05"),
        ({"filters": 8, "norm": {"groups": 4}}, "groups=4, which BatchNormalization does not"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        blocks.basic_block(keras.Input((8, 8, 4)), **arguments)


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2, 2, 4), (8, 8, None)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"rank 3, 4 or 5|number of channels"):
        blocks.basic_block(keras.Input(shape), 4)
    with pytest.raises(ValueError, match="one of cifar, imagenet"):
        blocks.stem(keras.Input((8, 8, 3)), kind="vgg")


def test_default_options():
    assert LayerOptions().norm == {
        "momentum": 0.9,
        "epsilon": 1e-5,
        "synchronized": False,
        "groups": 32,
    }


@pytest.mark.parametrize("rank", [1, 2])
def test_narrow_strided_pointwise_convolutions_pick_their_pixels_first(rank):
    """TensorFlow's gradient of their kernels corrupts memory; the values stay those of a stride."""
    x = np.random.default_rng(0).normal(size=(3, *[9] * rank, 8)).astype("float32")
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, Builder(inputs, {}).conv(inputs, 16, 1, 2, name="shortcut"))
    assert type(model.get_layer("shortcut")).__name__ == f"SubsamplingConv{rank}D"
    kernel = model.get_layer("shortcut").get_weights()[0].reshape(8, 16)
    picked = x[:, ::2, ::2] if rank == 2 else x[:, ::2]
    np.testing.assert_allclose(run(model, x), picked @ kernel, rtol=1e-5, atol=1e-5)


@pytest.mark.ci
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel")
def test_narrow_networks_train_with_odd_batches():
    """In a process of its own: glibc ends it where memory was written beyond its end."""
    program = """if True:
        import numpy as np, keras_resnet
        standardized = {"norm_layer": "group", "norm_groups": 4, "weight_standardization": True}
        for options in ({}, standardized):
            model = keras_resnet.create_model(
                "ResNet18", widths=(8, 16, 32, 64), classes=4, input_shape=(64, 64, 3), **options
            )
            model.compile("sgd", "sparse_categorical_crossentropy")
            for batch in (1, 3, 5):
                images = np.random.rand(4 * batch, 64, 64, 3).astype("float32")
                model.fit(images, np.arange(4 * batch) % 4, batch_size=batch, epochs=3, verbose=0)
        """
    environment = {**os.environ, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "7"}
    process = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2000:]
