"""Normalizations, activations and blocks of one's own, from building to serving."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run, small
from test_models_round_trip import check_round_trips

from keras_resnet import blocks, models
from keras_resnet.blocks.normalization import is_normalization
from keras_resnet.models import ResNet, create_model
from keras_resnet.models.costs import profile
from keras_resnet.models.features import feature_extractor, feature_pyramid


@keras.saving.register_keras_serializable("tests")
class Whitening(keras.layers.Layer):
    """A normalization that Keras does not know, with an axis and no gamma."""

    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis

    def build(self, input_shape):
        self.bias = self.add_weight(shape=(input_shape[self.axis],), name="bias")

    def call(self, inputs):
        centered = inputs - keras.ops.mean(inputs, axis=self.axis, keepdims=True)
        shape = [1] * len(inputs.shape)
        shape[self.axis] = -1
        return centered + keras.ops.reshape(keras.ops.cast(self.bias, inputs.dtype), shape)

    def get_config(self):
        return {**super().get_config(), "axis": self.axis}


@keras.saving.register_keras_serializable("tests")
def bounded_relu(x):
    return keras.ops.relu(x) / (1 + keras.ops.relu(x))


def four_groups(name):
    return keras.layers.GroupNormalization(4, name=name)


def own_block(x, filters, stride, *, name, dilation=1, first_dilation=1, **layer_options):
    """Depthwise and pointwise, a shortcut by convolution; what `create_model` documents."""
    y = keras.layers.DepthwiseConv2D(
        3, stride, "same", dilation_rate=dilation, name=f"{name}_depthwise"
    )(x)
    y = blocks.conv_norm_act(y, filters, 1, name=f"{name}_point", **layer_options)
    if x.shape != y.shape:
        x = blocks.conv_norm_act(x, filters, 1, stride, name=f"{name}_side", **layer_options)
    return keras.layers.Add(name=f"{name}_sum")([x, y])


CASES = {
    "group": ("CifarResNet20", {"norm_layer": "group"}),
    "layer": ("CifarResNet164V2", {"norm_layer": "layer"}),
    "standardized kernels": (
        "CifarResNet20",
        {"norm_layer": "group", "weight_standardization": True, "shortcut": "B"},
    ),
    "instance": ("ResNet50", {"norm_layer": "instance"}),
    "Keras class": ("CifarResNet20", {"norm_layer": keras.layers.UnitNormalization}),
    "own class": ("CifarResNet20", {"norm_layer": Whitening}),
    "function": ("CifarResNet20", {"norm_layer": four_groups}),
    "named activation": ("SEResNet18", {"activation": "silu"}),
    "own activation": ("CifarResNet110V2", {"activation": bounded_relu}),
    "activation layer": ("CifarResNet20", {"activation": keras.layers.LeakyReLU}),
    "own block": ("ResNet18", {"block": own_block}),
    "all": (
        "WideResNet16_4",
        {"block": own_block, "norm_layer": Whitening, "activation": bounded_relu},
    ),
}
cases = pytest.mark.parametrize("case", CASES)
tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="training and export are TensorFlow's"
)


@functools.cache  # building takes longest
def build(case):
    name, own = CASES[case]
    return randomize(small(name, classifier_activation=None, **own))


@cases
def test_round_trips(case, tmp_path):
    check_round_trips(build(case), tmp_path)


@pytest.mark.parametrize("case", [pytest.param("group", marks=pytest.mark.ci), "all"])
def test_fit_and_recomputing_blocks(case):
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    y = np.arange(16) % 5
    losses = []
    for rematerialize in (False, True):
        keras.utils.set_random_seed(0)
        name, own = CASES[case]
        model = small(name, depths=(1, 1, 1), rematerialize=rematerialize, **own)
        adam, loss = keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy"
        model.compile(adam, loss, jit_compile=False)
        history = model.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-3)


@tensorflow_only
@cases
def test_only_kernels_of_convolutions_and_dense_layers_decay(case):
    from keras_resnet.training.optimizers import DECAYED_LAYERS, decayed_variables

    model = build(case)
    decayed = {v.path for v in decayed_variables(model)}
    kernels = {la.kernel.path for la in model.layers if isinstance(la, DECAYED_LAYERS)}
    assert decayed == kernels
    assert not any(
        variable.path in decayed
        for layer in model.layers
        if is_normalization(layer)
        for variable in layer.weights
    )


@tensorflow_only
@cases
def test_freezing_norms_of_any_kind(case):
    from keras_resnet.training.finetuning import freeze

    model = build(case)
    freeze(model, "norm")
    frozen = {layer.name for layer in model.layers if not layer.trainable}
    model.trainable = True
    assert frozen == {layer.name for layer in model.layers if "_norm" in layer.name}
    assert frozen


@tensorflow_only
@cases
def test_folding_for_inference(case):
    from keras_resnet.models.folding import fold_batch_normalization, inference_copy

    model = build(case)
    folded = fold_batch_normalization(model)
    x = images(model, batch=4)
    expected = run(model, x, training=False)
    np.testing.assert_allclose(
        run(folded, x, training=False), expected, rtol=0, atol=2e-5 * np.abs(expected).max()
    )
    kept = [layer.name for layer in model.layers if is_normalization(layer)]
    left = [layer.name for layer in folded.layers if is_normalization(layer)]
    if "norm_layer" in CASES[case][1]:
        assert left == kept
    rounded = inference_copy(model, precision="bfloat16")
    for layer in rounded.layers:
        if is_normalization(layer) and layer.variables:
            assert (layer.compute_dtype, layer.variable_dtype) == ("bfloat16", "float32")


@tensorflow_only
def test_channels_first_can_be_turned_around_with_any_norm():
    from keras_resnet.models.folding import inference_copy

    for norm_layer in ("group", "layer", Whitening):
        first, last = (
            randomize(small("CifarResNet20", norm_layer=norm_layer, **arguments))
            for arguments in (
                {"input_shape": (3, 8, 8), "data_format": "channels_first"},
                {"input_shape": (8, 8, 3)},
            )
        )
        first.set_weights(last.get_weights())
        turned = inference_copy(first, fold=False, channels_last=True)
        x = images(last)
        np.testing.assert_array_equal(run(turned, x), run(last, x))


@cases
def test_features_pyramid_and_costs(case):
    model = build(case)
    features = feature_extractor(model)
    strides = {3: [1, 2, 4], 4: [4, 8, 16, 32]}[len(features.output)]
    size = model.input_shape[1]
    assert [size // t.shape[1] for t in features.output.values()] == strides
    pyramid = feature_pyramid(model, 8, levels=(2, 7), coarse="conv")
    assert isinstance(pyramid, ResNet)
    wanted = CASES[case][1].get("activation", "relu")
    made = pyramid.get_layer("fpn_act7")
    if isinstance(wanted, type):
        assert type(made) is wanted
    else:
        assert made.activation is keras.activations.get(wanted)
    assert profile(model).multiply_adds > 0
    assert np.isfinite(run(pyramid, images(model))["P7"]).all()


def test_costs_of_a_block_of_ones_own_by_hand():
    inputs = keras.Input((8, 8, 4))
    model = keras.Model(inputs, own_block(inputs, 6, 2, name="b"))
    assert profile(model).multiply_adds == 16 * 4 * 9 + 16 * 4 * 6 + 16 * 4 * 6


def test_levels_of_a_network_with_strides_in_its_last_blocks():
    """keras.applications' v2 with other blocks: a level is the last tensor of its resolution."""
    model = small("ResNet50V2", depths=(2, 2, 2, 2), block=own_block, use_bias=False)
    features = feature_extractor(model)
    assert features.output["C2"] is model.get_layer("stage1_block1_sum").output
    assert [32 // t.shape[1] for t in features.output.values()] == [4, 8, 16, 32]


def test_a_block_is_given_what_it_names_and_the_options_of_layers():
    calls = []

    def block(x, filters, stride, *, name, se_ratio, width, zero_init_last_gamma, **options):
        calls.append((filters, stride, name, se_ratio, width, zero_init_last_gamma, options))
        return own_block(x, filters, stride, name=name, **options)

    small("SEResNet18", block=block, base_width=128, zero_init_last_gamma=False, activation="silu")
    filters, stride, name, se_ratio, width, zero, options = calls[1]
    assert (filters, stride, name) == (32, 2, "stage2_block1")
    assert (se_ratio, width, zero) == (1 / 16, 64, False)
    assert options["activation"] == "silu"
    assert sorted(options) == ["activation", "data_format", "dtype", "norm", "norm_layer"]


def test_a_scale_of_zero_where_there_is_one():
    for norm_layer in ("group", four_groups, keras.layers.LayerNormalization):
        model = small("CifarResNet20", norm_layer=norm_layer, zero_init_last_gamma=True)
        assert not np.any(model.get_layer("stage1_block1_norm2").gamma)
        assert np.all(model.get_layer("stage1_block1_norm1").gamma)
    model = small("CifarResNet20", norm_layer=Whitening, zero_init_last_gamma=True)  # has none
    assert isinstance(model.get_layer("stage1_block1_norm2"), Whitening)


def test_groups_divide_the_channels():
    model = small("CifarResNet20", widths=(24, 32, 64), norm={"epsilon": 1e-3}, norm_layer="group")
    norms = {name: model.get_layer(f"{name}_norm1") for name in ("stage1_block1", "stage3_block1")}
    assert [norm.groups for norm in norms.values()] == [8, 32]
    assert [norm.epsilon for norm in norms.values()] == [1e-3, 1e-3]


def test_own_rows_build_too():
    mine = dataclasses.replace(models.CifarResNet20, name="Mine", depths=(1, 1, 1), block=own_block)
    mine = dataclasses.replace(mine, shortcut="B", norm_layer="group")
    model = mine(classes=3, input_shape=(8, 8, 3))
    assert (model.name, model.output_shape) == ("mine", (None, 3))
    assert isinstance(model.get_layer("stem_norm"), keras.layers.GroupNormalization)


def test_partials_of_layer_classes(tmp_path):
    """What they set stays; what they leave open is filled in."""
    norm = functools.partial(keras.layers.GroupNormalization, groups=4, epsilon=1e-2)
    leaky = functools.partial(keras.layers.LeakyReLU, negative_slope=0.3)
    model = small("CifarResNet20", norm_layer=norm, activation=leaky, zero_init_last_gamma=True)
    layer = model.get_layer("stage1_block1_norm2")
    assert (layer.groups, layer.epsilon, layer.axis) == (4, 1e-2, -1)
    assert not np.any(layer.gamma)
    assert model.get_layer("stem_act").negative_slope == pytest.approx(0.3)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), model(images), atol=1e-6)


def test_a_layer_without_a_dtype_of_its_own():
    class Halving(keras.layers.Layer):
        def __init__(self, name):
            super().__init__(name=name)

        def call(self, x):
            return x / 2

    model = small("CifarResNet20", norm_layer=Halving, activation=Halving)
    assert isinstance(model.get_layer("stem_norm"), Halving)
    with pytest.raises(ValueError, match="cannot be called with dtype="):
        small("CifarResNet20", norm_layer=Halving, dtype="mixed_bfloat16")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ResNet18", {"norm_layer": "groups"}, "received 'groups'; did you mean 'group'"),
        ("ResNet18", {"norm_layer": four_groups("x")}, "pass a name, a layer class or a function"),
        ("ResNet18", {"norm_layer": 3}, "received 3"),
        ("ResNet18", {"norm_layer": int}, "one of a Keras layer, received <class 'int'>"),
        ("ResNet18", {"norm_layer": keras.layers.Dense}, "`norm_layer`=.*Dense.*'units'.*partial"),
        ("ResNet18", {"activation": int}, "one of a Keras layer, received <class 'int'>"),
        ("ResNet18", {"activation": keras.layers.Activation}, "`activation`=.*partial that sets"),
        ("ResNet18", {"activation": "silo"}, "received 'silo'; did you mean 'silu'"),
        ("ResNet18", {"activation": 3}, "`activation` is the name .* received 3"),
        ("ResNet18", {"norm_layer": lambda name: None}, "'stem_norm' it returned None"),
        ("ResNet18", {"norm_layer": lambda name: four_groups("x")}, "of that name"),
        ("ResNet18", {"norm_layer": "group", "norm": {"momentum": 0.5}}, "momentum=0.5, which Gr"),
        ("ResNet18", {"activation": keras.layers.ReLU()}, "pass the class, ReLU, instead"),
        ("ResNet18", {"activation": "rely"}, "received 'rely'; did you mean 'relu'"),
        ("ResNet18", {"block": "bottelneck"}, "'bottelneck'; did you mean 'bottleneck'"),
        ("ResNet18", {"block": lambda x, filters, stride, name: x}, "does not take norm, norm_lay"),
        ("ResNet18", {"block": lambda x, *args, **options: None}, "returned None as stage1_block1"),
        ("ResNet18", {"block": lambda x, *args, **options: x[0]}, "rank of its input, 4"),
        ("ResNet18", {"block": 3}, "function of a tensor, filters and a stride.* received 3"),
        ("ResNet18", {"block": keras.layers.Dense}, "`block` is a name, or a function.*Dense"),
        ("ResNet18", {"block": "basic", "bottleneck": True}, "leave bottleneck=True out"),
        ("SEResNet18", {"block": own_block}, r"`se_ratio` is 0\.0625.*own_block blocks"),
        ("CifarResNet20", {"block": own_block}, "`shortcut` is 'A'"),
        ("ResNet18", {"block_dropout_rate": 0.1}, r"`block_dropout_rate` is 0\.1.*basic blocks"),
        ("ResNet18", {"base_width": 128}, "`base_width` is 128.*basic blocks"),
        ("ResNet18V2", {"groups": 2}, "`groups` is 2.*pre-activation basic blocks"),
    ],
)
def test_bad_parts(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **arguments)
