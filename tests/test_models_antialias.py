"""Networks with a low-pass filter where they stride: every block, stems, weights, bad input."""

import json

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run, small
from scipy import ndimage
from weights_helpers import assert_equal, filled, tiny, values

from keras_resnet import blocks, create_model
from keras_resnet.layers import BlurPool, PaddedMaxPool
from keras_resnet.models.costs import profile
from keras_resnet.models.features import feature_extractor, feature_pyramid
from keras_resnet.weights import Checkpoint, WeightsError, apply_weights, read_weights, row_of
from keras_resnet.weights.timm_config import read_config


def blurred(x, stride=2):
    """[1, 2, 1] / 4 along each axis of NumPy's tensor, then every `stride`-th pixel."""
    for axis in range(1, x.ndim - 1):
        x = ndimage.correlate1d(x, [0.25, 0.5, 0.25], axis=axis, mode="mirror")
    return x[(slice(None), *[slice(None, None, stride)] * (x.ndim - 2))]


def averaged(x):
    """Means of windows of 2 along each axis; those at the border are of what is inside."""
    for axis in range(1, x.ndim - 1):
        start = np.arange(0, x.shape[axis], 2)
        counts = np.minimum(2, x.shape[axis] - start)
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        x = np.add.reduceat(x, start, axis=axis) / counts.reshape(shape)
    return x


BLOCKS = {
    "basic": (blocks.basic_block, {}, "act1", "conv2"),
    "bottleneck": (blocks.bottleneck_block, {"groups": 2, "se_ratio": 0.25}, "act2", "conv3"),
    "v1 bottleneck": (blocks.bottleneck_block, {"stride_in_1x1": True}, "act1", "conv2"),
    "shortcut A": (blocks.basic_block, {"shortcut": "A"}, "act1", "conv2"),
    "shortcut D": (blocks.bottleneck_block, {"shortcut": "D"}, "act2", "conv3"),
    "v2 basic": (blocks.preact_basic_block, {}, "act1", "conv2"),
    "v2 bottleneck": (blocks.preact_bottleneck_block, {"dropout_rate": 0.1}, "act2", "conv3"),
    "v2, 1x1": (blocks.preact_bottleneck_block, {"stride_in_1x1": True}, "act1", "conv2"),
}


@pytest.mark.parametrize("space", [(13,), (9, 10), (5, 6, 7)], ids=len)
@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_stride_after_the_activation(kind, space):
    """The convolution has stride 1, its activation goes through the filter into the next one."""
    make, options, activation, following = BLOCKS[kind]
    for antialias, filtered in (("blur", blurred), ("average", averaged)):
        inputs = keras.Input((*space, 4))
        outputs = make(inputs, 8, 2, antialias=antialias, name="x", **options)
        model = randomize(keras.Model(inputs, outputs))
        assert outputs.shape[1:-1] == tuple(-(-n // 2) for n in space)
        assert model.get_layer(f"x_{activation}").output.shape[1:-1] == space
        names = (f"x_{activation}", "x_aa")
        inner = keras.Model(inputs, [model.get_layer(name).output for name in names])
        before, after = run(inner, images(model))
        np.testing.assert_allclose(after, filtered(before), atol=1e-5)
        source = model.get_layer("x_dropout" if "dropout_rate" in options else f"x_{following}")
        assert source.input is model.get_layer("x_aa").output


@pytest.mark.parametrize(
    ("kind", "antialias", "layers"),
    [
        ("imagenet", "blur", {"stem_pool": (9, 9), "stem_aa": (5, 5)}),
        ("deep", "blur", {"stem_pool": (9, 9), "stem_aa": (5, 5)}),
        ("deep_strided", "blur", {"stem_conv4": (9, 9), "stem_aa": (5, 5)}),
        # As timm's, without what is left over.
        ("imagenet", "average", {"stem_act": (9, 9), "stem_aa": (4, 4)}),
        ("deep_strided", "average", {"stem_conv4": (9, 9), "stem_aa": (4, 4)}),
        ("cifar", "blur", {"stem_act": (17, 17)}),
    ],
)
def test_stems(kind, antialias, layers):
    inputs = keras.Input((17, 17, 3))
    model = randomize(keras.Model(inputs, blocks.stem(inputs, 8, kind, antialias=antialias)))
    assert {name: model.get_layer(name).output.shape[1:3] for name in layers} == layers
    pools = [layer for layer in model.layers if isinstance(layer, PaddedMaxPool)]
    assert len(pools) == ("stem_pool" in layers)
    if "stem_aa" not in layers:
        assert not any(layer.name.endswith("_aa") for layer in model.layers)
        return
    source = "stem_conv4" if kind == "deep_strided" else "stem_pool" if pools else "stem_act"
    inner = [model.get_layer(name).output for name in (source, "stem_aa")]
    before, after = run(keras.Model(inputs, inner), images(model))
    expected = blurred(before) if antialias == "blur" else averaged(before[:, :8, :8])
    np.testing.assert_allclose(after, expected, atol=1e-5)


def test_a_dilation_in_a_strides_place_keeps_the_blur():
    """So the strided network's outputs are among those of the dilated one (timm)."""
    size = {"input_shape": (64, 64, 3), "include_top": False}
    strided = randomize(small("ResNetBlur18", **size))
    dilated = small("ResNetBlur18", output_stride=16, **size)
    dilated.set_weights(strided.get_weights())
    assert dilated.get_layer("stage4_block1_aa").strides == 1
    x = images(strided)
    found = run(dilated, x)[:, ::2, ::2]
    np.testing.assert_allclose(found, run(strided, x), rtol=1e-3, atol=1e-3)
    mean = small("ResNetAA50", output_stride=16, **size)
    assert not any(layer.name == "stage4_block1_aa" for layer in mean.layers)


def test_strides_that_differ_along_the_axes():
    strides = dict.fromkeys(("stage_stride", "stem_stride", "stem_pool_stride"), (1, 2, 2))
    model = small("ResNetBlur18", input_shape=(4, 32, 32, 1), include_top=False, **strides)
    assert model.output_shape[1:-1] == (4, 1, 1)
    layer = model.get_layer("stage2_block1_aa")
    assert (layer.strides, layer.size) == ((1, 2, 2), (1, 3, 3))


@pytest.mark.parametrize("antialias", ["blur", "average"])
def test_keras_padding_and_data_formats(antialias):
    options = {"antialias": antialias, "padding": "same"}
    model = randomize(small("ResNet50D", **options))
    paddings = {x.padding for x in model.layers if x.name.endswith("_aa")}
    assert paddings == {"same"}
    first = small("ResNet50D", input_shape=(3, 32, 32), data_format="channels_first", **options)
    assert [x.output.shape[1:] for x in first.layers if x.name.endswith("_aa")] == [
        (x.output.shape[-1], *x.output.shape[1:-1]) for x in model.layers if x.name.endswith("_aa")
    ]
    open_sizes = small("ResNet50D", input_shape=(None, None, 3), **options)
    open_sizes.set_weights(model.get_weights())
    x = images(model)
    np.testing.assert_allclose(run(open_sizes, x), run(model, x), rtol=1e-5, atol=1e-6)


def test_levels_and_the_pyramid():
    for name in ("ResNet50", "ResNet50V2"):
        size = {"depths": (2, 2, 2, 2), "input_shape": (64, 64, 3)}
        smooth, rough = small(name, antialias="blur", **size), small(name, **size)
        assert _shapes(feature_extractor(smooth)) == _shapes(feature_extractor(rough))
        # Also without a description, by the layers alone.
        bare = keras.Model(smooth.inputs, smooth.outputs)
        assert _shapes(feature_extractor(bare)) == _shapes(feature_extractor(rough))
        assert _shapes(feature_pyramid(smooth, 8)) == _shapes(feature_pyramid(rough, 8))


def _shapes(model):
    return {key: tensor.shape for key, tensor in model.output.items()}


def test_multiply_adds_count_the_filter():
    x = keras.Input((8, 9, 4))
    assert profile(keras.Model(x, BlurPool()(x))).multiply_adds == 4 * 5 * 4 * 9
    x = keras.Input((4, 8, 8, 2))
    assert profile(keras.Model(x, BlurPool((1, 2, 2))(x))).multiply_adds == 4 * 4 * 4 * 2 * 9


# Weights, which have no array that tells it


@pytest.mark.parametrize(
    ("theirs", "name", "antialias"),
    [
        ("resnetblur50", "ResNetBlur50", "blur"),
        ("resnetaa50", "ResNetAA50", "average"),
        ("resnetaa101d", "ResNet101D", "average"),
        ("seresnextaa101d_32x8d", "ResNeXt101_32x8d", "average"),
    ],
)
def test_timms_config_names_the_network(theirs, name, antialias, tmp_path):
    checkpoint = Checkpoint("weights", {"fc.bias": np.zeros(5, "float32")})
    read_config(checkpoint, {"architecture": theirs}, tmp_path / "config.json")
    sizes = {"depths", "widths", "classes"}
    checkpoint.arrays = {"conv1.weight": np.zeros((2048, 2048, 7), "float32")}
    row = row_of(checkpoint)
    assert (row.name, row.antialias) == (name, antialias)
    assert not sizes & checkpoint.network.keys()


@pytest.mark.parametrize("kind", ["model.keras", "model.weights.h5"])
def test_our_files_tell_it(tmp_path, kind):
    model = randomize(tiny("ResNet18", antialias="blur"))
    path = tmp_path / kind
    model.save_weights(path) if "weights" in kind else model.save(path)
    with pytest.warns(UserWarning, match="is of ResNet18 with .*antialias='blur'"):
        again = tiny("ResNet18", weights=path)
    assert again.architecture == model.architecture
    assert again.architecture["antialias"] == "blur"
    assert_equal(values(again), values(model))
    np.testing.assert_array_equal(run(again, images(model)), run(model, images(model)))
    if kind == "model.keras":
        x = images(model)
        loaded = keras.saving.load_model(path)
        np.testing.assert_array_equal(run(loaded, x), run(model, x))
        clone = keras.models.clone_model(model)
        assert clone.get_layer("stage2_block1_aa").get_config()["strides"] == 2


def test_a_model_that_is_already_built_refuses_weights_of_another(tmp_path):
    tiny("ResNet18", antialias="average").save(tmp_path / "model.keras")
    weights = read_weights(tmp_path / "model.keras")
    for options, own in (({}, "off"), ({"antialias": "blur"}, "blur")):
        model = tiny("ResNet18", **options)
        before = values(model)
        expected = rf"antialias='{own}', the weights in .* 'average': build .* antialias='average'"
        with pytest.raises(WeightsError, match=expected):
            apply_weights(model, weights, variant="ResNet18")
        assert_equal(values(model), before)
        apply_weights(model, weights, variant="ResNet18", given={"antialias"})


def test_weights_of_pytorch_fill_both():
    """Names and shapes are the same: only a config tells which network they are of."""
    _, arrays = filled("ResNet18")
    smooth = tiny("ResNetBlur18")
    apply_weights(smooth, Checkpoint("weights", arrays), variant="ResNetBlur18")
    plain = tiny("ResNet18")
    apply_weights(plain, Checkpoint("weights", arrays), variant="ResNet18")
    assert_equal(values(smooth), values(plain))


def test_it_is_described_only_where_it_is_not_the_rows_own():
    assert "antialias" not in json.dumps(tiny("ResNetBlur18").architecture)
    assert tiny("ResNetBlur18", antialias="off").architecture["antialias"] == "off"
    off = tiny("ResNetBlur18", antialias="off")
    assert [x.name for x in off.layers[1:]] == [x.name for x in tiny("ResNet18").layers[1:]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"antialias": "blurr"},
            "`antialias` is 'off', 'blur' .* received 'blurr'; did you mean 'blur'",
        ),
        ({"antialias": "avg"}, "received 'avg'; did you mean 'average'"),
        ({"aa_layer": "blur"}, "takes no argument 'aa_layer'. Did you mean 'antialias'"),
        ({"antialias": "blur", "stem_pool_padding": "end"}, "'end'.*take 'symmetric' or 'same'"),
        (
            {"antialias": "average", "stem_pool_size": 3},
            "leave its size and padding out; received 3",
        ),
        (
            {"antialias": "blur", "input_shape": (1, 32, 32, 3)},
            r"'stem_aa' mirrors 1 .* least 2; .*shape \(None, 1, .* antialias='average'",
        ),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        create_model("ResNet18", **{"input_shape": (32, 32, 3), **arguments})
