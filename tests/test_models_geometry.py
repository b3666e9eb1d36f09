"""Padding, kernels and strides against plain Keras networks that are written out here."""

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run

import keras_resnet
from keras_resnet import blocks, create_model, feature_extractor, feature_pyramid, profile
from keras_resnet.weights import WeightsError, WeightsNote, apply_weights

LOGITS = {"classifier_activation": None}


class Plain:
    """A network of Keras' own layers, all padded by Keras, with the names of keras.applications."""

    def __init__(self, shape, stem, widths, kernel=3, stride=2, **options):
        self.rank, self.kernel, self.stride = len(shape) - 1, kernel, stride
        self.options = {"bottleneck": False, "preact": False, "average": False, **options}
        x = inputs = keras.Input(shape)
        size, step, pool = stem
        x = self.layer("Conv", widths[0], size, strides=step, use_bias=False, name="conv1_conv")(x)
        if not self.options["preact"]:
            x = self.norm_act(x, "conv1_bn")
        if pool:
            x = self.layer("MaxPooling", pool[0], strides=pool[1], name="pool1_pool")(x)
        for stage, width in enumerate(widths, start=2):
            for block in (1, 2):
                step = stride if block == 1 and stage > 2 else 1
                x = self.block(x, width, step, f"conv{stage}_block{block}")
        if self.options["preact"]:
            x = self.norm_act(x, "post_bn")
        x = getattr(keras.layers, f"GlobalAveragePooling{self.rank}D")()(x)
        self.model = keras.Model(inputs, keras.layers.Dense(5, name="predictions")(x))
        randomize(self.model)

    def layer(self, kind, *args, **kwargs):
        return getattr(keras.layers, f"{kind}{self.rank}D")(*args, padding="same", **kwargs)

    def conv(self, x, filters, size, step, name):
        return self.layer("Conv", filters, size, strides=step, use_bias=False, name=name)(x)

    def norm(self, x, name):
        return keras.layers.BatchNormalization(epsilon=1e-5, name=name)(x)

    def norm_act(self, x, name):
        return keras.layers.ReLU()(self.norm(x, name))

    def block(self, x, width, step, name):
        return (self.preact if self.options["preact"] else self.postact)(x, width, step, name)

    def postact(self, x, width, step, name):
        out, y = width, x
        if self.options["bottleneck"]:
            out = 4 * width
            y = self.norm_act(self.conv(y, width, 1, 1, f"{name}_1_conv"), f"{name}_1_bn")
            y = self.norm_act(
                self.conv(y, width, self.kernel, step, f"{name}_2_conv"), f"{name}_2_bn"
            )
            y = self.norm(self.conv(y, out, 1, 1, f"{name}_3_conv"), f"{name}_3_bn")
        else:
            y = self.norm_act(
                self.conv(y, width, self.kernel, step, f"{name}_1_conv"), f"{name}_1_bn"
            )
            y = self.norm(self.conv(y, width, self.kernel, 1, f"{name}_2_conv"), f"{name}_2_bn")
        if step != 1 or x.shape[-1] != out:
            if self.options["average"] and step != 1:
                x, step = self.layer("AveragePooling", step, strides=step)(x), 1
            x = self.norm(self.conv(x, out, 1, step, f"{name}_0_conv"), f"{name}_0_bn")
        return keras.layers.ReLU()(keras.layers.Add()([x, y]))

    def preact(self, x, width, step, name):
        a = self.norm_act(x, f"{name}_preact_bn")
        y = self.conv(a, width, self.kernel, step, f"{name}_1_conv")
        y = self.norm_act(y, f"{name}_1_bn")
        y = self.conv(y, width, self.kernel, 1, f"{name}_2_conv")
        if x.shape[-1] != width:
            x = self.conv(a, width, 1, step, f"{name}_0_conv")
        return keras.layers.Add()([x, y])


def own(name="ResNet18", widths=(8, 16, 24), **arguments):
    """The network of this package that has the same layers, without Keras' padding."""
    arguments = {"depths": (2,) * len(widths), "widths": widths, "classes": 5, **arguments}
    return create_model(name, stem_width=widths[0], **LOGITS, **arguments)


# Case -> what the plain network is built from, and how ours says the same.
CASES = {
    "photos": (((32, 48, 3), (7, 2, (3, 2)), (8, 16, 24)), {}, {}),
    "odd photos": (((45, 33, 3), (7, 2, (3, 2)), (8, 16, 24)), {}, {}),
    "cifar": (((32, 32, 3), (3, 1, None), (8, 16, 24)), {}, {"stem": "cifar"}),
    "bottlenecks": (
        ((40, 40, 3), (7, 2, (3, 2)), (8, 16)),
        {"bottleneck": True},
        {"name": "ResNet50", "widths": (8, 16)},
    ),
    "average pools": (
        ((39, 42, 3), (7, 2, (3, 2)), (8, 16, 24)),
        {"average": True},
        {"shortcut": "D"},
    ),
    "v2": (
        ((32, 32, 3), (7, 2, (3, 2)), (8, 16, 24)),
        {"preact": True},
        {"name": "ResNet18V2"},
    ),
    "sound": (
        ((250, 2), (16, 2, (4, 4)), (8, 16, 24)),
        {"kernel": 16, "stride": 4},
        {
            "stem_kernel_size": 16,
            "stem_pool_size": 4,
            "stem_pool_stride": 4,
            "block_kernel_size": 16,
            "stage_stride": 4,
        },
    ),
    "long kernels": (
        ((96, 1), (31, 2, None), (8, 16)),
        {"kernel": 31},
        {
            "stem": "cifar",
            "stem_kernel_size": (31,),
            "stem_stride": 2,
            "block_kernel_size": 31,
            "widths": (8, 16),
        },
    ),
    "clips": (
        ((6, 32, 30, 1), ((3, 7, 7), (1, 2, 2), ((1, 3, 3), (1, 2, 2))), (8, 16, 24)),
        {"stride": (1, 2, 2), "kernel": (1, 3, 3)},
        {
            "stem_kernel_size": (3, 7, 7),
            "stem_stride": (1, 2, 2),
            "stem_pool_size": (1, 3, 3),
            "stem_pool_stride": (1, 2, 2),
            "stage_stride": (1, 2, 2),
            "block_kernel_size": [1, 3, 3],
        },
    ),
    "volumes": (((16, 16, 18, 1), (7, 2, (3, 2)), (8, 16)), {}, {"widths": (8, 16)}),
}


@pytest.fixture(scope="module", params=CASES)
def trained(request, tmp_path_factory):
    """A file of a plain Keras network, its logits, and how ours is called."""
    built, options, arguments = CASES[request.param]
    model = Plain(*built, **options).model
    path = tmp_path_factory.mktemp("plain") / "plain.keras"
    model.save(path)
    x = images(model)
    return path, x, run(model, x), {"input_shape": built[0], **arguments}


def assert_logits(model, x, expected):
    np.testing.assert_allclose(run(model, x), expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_networks_trained_with_keras_padding_give_their_logits(trained):
    path, x, expected, arguments = trained
    with pytest.warns(WeightsNote, match="with padding='same'"):
        told = own(weights=path, **arguments)
    assert_logits(told, x, expected)
    # Without a file that tells it.
    asked = own(padding="same", **arguments)
    asked.set_weights(told.get_weights())
    assert_logits(asked, x, expected)


def test_the_padding_matters(trained):
    path, x, expected, arguments = trained
    if any(key.endswith("kernel_size") and value == 16 for key, value in arguments.items()):
        with pytest.raises(ValueError, match="an even kernel has no middle"):
            own(weights=path, padding="symmetric", **arguments)
        return
    model = own(weights=path, padding="symmetric", **arguments)
    difference = np.abs(run(model, x) - expected).max() / np.ptp(expected)
    # An odd size has the same padding on both sides.
    assert difference > 0.02 or arguments["input_shape"] == (45, 33, 3)


def test_a_model_that_is_already_built_refuses_another_padding(trained):
    path, _, _, arguments = trained
    built = own(padding="same", **arguments)
    apply_weights(built, path, variant="ResNet18")
    if 16 in arguments.values():
        return
    built = own(**arguments)
    before = built.get_weights()
    with pytest.raises(WeightsError, match="build the model with padding='same'"):
        apply_weights(built, path, variant="ResNet18")
    for ours, theirs in zip(built.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_files_and_copies_keep_it(trained, tmp_path):
    path, x, expected, arguments = trained
    model = own(weights=path, padding="same", **arguments)
    model.save(tmp_path / "ours.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    again = keras_resnet.ResNet.from_config(model.get_config())
    again.set_weights(model.get_weights())
    shape = arguments["input_shape"]
    with pytest.warns(WeightsNote, match="padding='same'"):
        by_file = create_model(weights=tmp_path / "ours.keras", input_shape=shape, **LOGITS)
    for copy in (clone, again, by_file, keras.saving.load_model(tmp_path / "ours.keras")):
        assert copy.architecture == model.architecture
        assert_logits(copy, x, expected)


def test_folding_keeps_it(trained):
    pytest.importorskip("tensorflow")
    from keras_resnet.models.folding import fold_batch_normalization

    path, x, expected, arguments = trained
    model = own(weights=path, padding="same", **arguments)
    assert_logits(fold_batch_normalization(model), x, expected)


@pytest.mark.parametrize("case", ["odd photos", "v2", "clips"])
def test_data_formats_agree(case):
    built, _, arguments = CASES[case]
    arguments = {"padding": "same", "stem_pool_padding": "end", **arguments}
    last = randomize(own(input_shape=built[0], **arguments))
    shape = (built[0][-1], *built[0][:-1])
    first = own(input_shape=shape, data_format="channels_first", **arguments)
    first.set_weights(last.get_weights())
    x = images(last)
    expected = run(last, x)
    if keras.backend.backend() == "tensorflow":  # which cannot run it on a CPU
        from keras_resnet.models.folding import inference_copy

        turned = inference_copy(first, fold=False, channels_last=True)
        assert_logits(turned, x, expected)
        return
    assert_logits(first, np.moveaxis(x, -1, 1), expected)


def test_old_files_tell_it_too(tmp_path):
    built, options, arguments = CASES["photos"]
    model = Plain(*built, **options).model
    model.save(tmp_path / "plain.h5")
    x = images(model)
    with pytest.warns(WeightsNote, match="with padding='same'"):
        ours = own(weights=tmp_path / "plain.h5", input_shape=built[0], **arguments)
    assert_logits(ours, x, run(model, x))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_files_that_pad_by_layers(padding, tmp_path):
    """As keras.applications do, with and without a max pool that Keras pads."""
    x = inputs = keras.Input((32, 32, 3))
    for filters, name in ((8, "conv1_conv"), (8, "a"), (16, "b")):
        x = keras.layers.ZeroPadding2D(1)(x)
        x = keras.layers.Conv2D(filters, 3, strides=2, name=name)(x)
    x = keras.layers.ZeroPadding2D(1)(x) if padding == "valid" else x
    x = keras.layers.MaxPooling2D(3, 2, padding=padding)(x)
    keras.Model(inputs, x).save(tmp_path / "x.keras")
    told = keras_resnet.weights.read_weights(tmp_path / "x.keras").network
    assert told == ({} if padding == "valid" else {"stem_pool_padding": "same"})


def test_a_stem_without_a_pool_takes_none_from_a_file(tmp_path):
    built, _, arguments = CASES["cifar"]
    model = Plain(*built).model
    padded = keras.layers.ZeroPadding2D(1)(model.output[:, :, None, None])
    extra = keras.layers.MaxPooling2D(3, 2)(padded)
    keras.Model(model.inputs, [*model.outputs, extra]).save(tmp_path / "x.keras")
    told = keras_resnet.weights.read_weights(tmp_path / "x.keras").network
    assert told == {"padding": "same", "stem_pool_padding": "symmetric", "epsilon": 1e-5}
    x = images(model)
    with pytest.warns(WeightsNote, match="padding='same': so"):
        ours = own(weights=tmp_path / "x.keras", input_shape=built[0], **arguments)
    assert_logits(ours, x, run(model, x))


def test_two_paddings_in_one_file_are_said(tmp_path):
    x = inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(8, 3, 2)(keras.layers.ZeroPadding2D(1)(x))
    keras.Model(inputs, keras.layers.Conv2D(8, 3, 2, "same")(x)).save(tmp_path / "x.keras")
    with pytest.warns(WeightsNote, match="some convolutions with Keras' padding"):
        assert keras_resnet.weights.read_weights(tmp_path / "x.keras").network == {}


# Sizes, strides and kernels


CLIPS = {
    "stem_stride": (1, 2, 2),
    "stem_pool_stride": (1, 2, 2),
    "stage_stride": ((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    "block_kernel_size": ((1, 3, 3), (1, 3, 3), (3, 3, 3)),
    "include_top": False,
    "classes": None,
}


def test_levels_of_a_network_of_clips():
    model = own(input_shape=(5, 32, 48, 3), **CLIPS)
    sizes = {key: value.shape[1:4] for key, value in feature_extractor(model).output.items()}
    assert sizes == {"C2": (5, 8, 12), "C3": (5, 4, 6), "C4": (3, 2, 3)}
    kernels = [model.get_layer(f"stage{s}_block2_conv2").kernel_size for s in (1, 2, 3)]
    assert kernels == [(1, 3, 3), (1, 3, 3), (3, 3, 3)]
    assert profile(model).multiply_adds == _counted_by_hand(model)


def _counted_by_hand(model):
    """Outputs times taps of each convolution."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv3D):
            taps = np.prod(layer.kernel_size) * layer.input.shape[-1]
            total += np.prod(layer.output.shape[1:]) * taps
    return total


def test_the_pyramid_of_a_network_of_clips(tmp_path):
    """Each level is its lateral plus the coarser one, repeated as often as the strides say."""
    model = randomize(own(input_shape=(5, 32, 48, 3), **CLIPS))
    pyramid = feature_pyramid(model, 4, levels=(2, 5))
    sizes = {key: value.shape[1:4] for key, value in pyramid.output.items()}
    assert sizes == {"P2": (5, 8, 12), "P3": (5, 4, 6), "P4": (3, 2, 3), "P5": (2, 1, 2)}
    x = images(model)
    outputs = run(pyramid, x)
    names = ["fpn3_add", "fpn2_add", "fpn_lateral4", "fpn_lateral3", "fpn_lateral2"]
    inner = keras.Model(pyramid.inputs[0], [pyramid.get_layer(name).output for name in names])
    three, two, four, *laterals = run(inner, x)
    repeated = four.repeat(2, 1).repeat(2, 2).repeat(2, 3)[:, :5]
    np.testing.assert_allclose(three, laterals[0] + repeated, atol=1e-5)
    np.testing.assert_allclose(two, laterals[1] + three.repeat(2, 2).repeat(2, 3), atol=1e-5)
    pyramid.save(tmp_path / "pyramid.keras")
    copy = run(keras.saving.load_model(tmp_path / "pyramid.keras"), x)
    for key, value in copy.items():
        np.testing.assert_array_equal(value, outputs[key])


def test_axes_without_strides_have_none_beyond_the_network():
    model = own(input_shape=(3, 32, 32, 3), **{**CLIPS, "stage_stride": (1, 2, 2)})
    coarse = feature_pyramid(model, 4, levels=(3, 6), coarse="conv").output
    assert {key: value.shape[1:4] for key, value in coarse.items()} == {
        "P3": (3, 4, 4),
        "P4": (3, 2, 2),
        "P5": (3, 1, 1),
        "P6": (3, 1, 1),
    }


def test_a_strided_first_stage_is_no_stride_in_last_blocks():
    strides = ((2,), (2,), (2,))
    model = own(input_shape=(64, 64, 3), depths=(1, 1, 1), stage_stride=strides)
    sizes = [value.shape[1] for value in feature_extractor(model).output.values()]
    assert sizes == [8, 4, 2]
    last = own("ResNet50V2", input_shape=(64, 96, 3), stage_stride=(1, 2), include_top=False)
    sizes = [value.shape[1:3] for value in feature_extractor(last).output.values()]
    assert sizes == [(16, 24), (16, 12), (16, 6)]


@pytest.mark.parametrize("name", ["ResNet18", "ResNet18D", "ResNet18V2", "ResNet50V2"])
def test_a_dilated_network_contains_the_strided_one(name):
    """Along the axis with larger strides; the other has none that could become dilations."""
    arguments = {"input_shape": (24, 64, 3), "stage_stride": (1, 2), "include_top": False}
    arguments["depths"] = (1, 2, 2)
    strided = randomize(own(name, **arguments))
    dilated = own(name, output_stride=4, **arguments)
    dilated.set_weights(strided.get_weights())
    x = images(strided)
    y = run(dilated, x)
    assert y.shape[1:3] == (6, 16)
    if name != "ResNet18D":  # whose pools do not overlap where they are strided
        np.testing.assert_allclose(y[:, :, ::4], run(strided, x), rtol=1e-3, atol=1e-3)


def test_strides_of_three():
    model = own(input_shape=(96, 96, 3), stage_stride=3, include_top=False)
    assert model.output_shape[1:3] == (3, 3)
    pyramid = feature_pyramid(model, 4, levels=(2, 4)).output
    assert [value.shape[1] for value in pyramid.values()] == [24, 8, 3]
    dilated = own(input_shape=(96, 96, 3), stage_stride=3, output_stride=12, include_top=False)
    assert dilated.get_layer("stage3_block2_conv1").dilation_rate == (3, 3)
    with pytest.raises(ValueError, match="36, 12 or 4, received 8"):
        own(input_shape=(96, 96, 3), stage_stride=3, output_stride=8)


@pytest.mark.parametrize(
    ("block", "conv"),
    [
        (blocks.basic_block, "b_conv1"),
        (blocks.bottleneck_block, "b_conv2"),
        (blocks.preact_basic_block, "b_conv1"),
        (blocks.preact_bottleneck_block, "b_conv2"),
    ],
)
def test_symmetric_padding_along_each_axis(block, conv):
    """PyTorch's `padding=(1, 2)` for a kernel of (3, 5): zeros around the input."""
    x = keras.Input((7, 8, 4))
    model = randomize(keras.Model(x, block(x, 8, (1, 2), kernel_size=(3, 5), name="b")))
    layer = model.get_layer(conv)
    before = model.get_layer(f"{conv}_pad").input
    values, result, outputs = run(
        keras.Model(x, [before, layer.output, *model.outputs]), images(model)
    )
    padded = np.pad(values, [(0, 0), (1, 1), (2, 2), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 5), axis=(1, 2))[:, :, ::2]
    kernel = keras.ops.convert_to_numpy(layer.kernel)
    expected = np.einsum("nyxcij,ijcf->nyxf", windows, kernel)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
    assert outputs.shape[1:3] == (7, 4)


def test_shortcut_d_along_each_axis():
    """Clipped windows where there is a stride, zeros behind where a dilation took its place."""
    x = keras.Input((6, 7, 4))
    dilations = {"dilation": (1, 2), "first_dilation": 1}
    block = blocks.basic_block(x, 8, (2, 1), shortcut="D", name="b", **dilations)
    model = randomize(keras.Model(x, block))
    pooled = keras.Model(x, model.get_layer("b_shortcut_conv").input)
    values = images(model)
    rows = (values[:, ::2] + values[:, 1::2]) / 2
    behind = np.pad(rows, [(0, 0), (0, 0), (0, 1), (0, 0)])
    expected = (behind[:, :, :-1] + behind[:, :, 1:]) / 2
    np.testing.assert_allclose(run(pooled, values), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["A", "A-centered", "A-pooled"])
def test_option_a_with_a_stride_along_one_axis(kind):
    x = keras.Input((7, 8, 4))
    model = randomize(keras.Model(x, blocks.basic_block(x, 8, (1, 2), shortcut=kind, name="b")))
    side = keras.Model(x, model.get_layer("b_shortcut").output)
    values = images(model)
    expected = values[:, :, ::2]
    if kind == "A-pooled":
        expected = (values[:, :, ::2] + values[:, :, 1::2]) / 2
    before = 0 if kind == "A" else 2
    expected = np.pad(expected, [(0, 0)] * 3 + [(before, 4 - before)])
    np.testing.assert_allclose(run(side, values), expected, atol=1e-6)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(run(again, values), run(model, values))


def test_a_block_of_ones_own_keeps_its_own_kernel():
    seen = []

    def block(x, filters, stride, *, name, kernel_size=7, **options):
        seen.append(kernel_size)
        return blocks.conv_norm_act(x, filters, 1, stride, name=name, **options)

    own(block=block, input_shape=(32, 32, 3))
    own(block=block, input_shape=(32, 32, 3), block_kernel_size=(3, 5))
    assert seen == [7] * 6 + [(3, 5)] * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "valid"}, r"`padding` is 'symmetric' .* received 'valid'"),
        ({"block_kernel_size": 4}, "`kernel_size` is 4: an even kernel.*padding='same' takes it"),
        ({"stem_kernel_size": (7, 6)}, r"`kernel_size` is \(7, 6\): an even kernel"),
        ({"stem_pool_size": 2}, "`pool_size` is 2: an even window"),
        ({"stem_pool_padding": "caffe"}, "symmetric, same, end; received 'caffe'"),
        ({"stem_pool_size": (3, 3, 3)}, r"2 of them, .* received \(3, 3, 3\)"),
        ({"stem_stride": (1, 2, 2)}, r"`stem_stride` .* 2 of them, .* received \(1, 2, 2\)"),
        ({"stem_stride": 0}, "`stem_stride` must be a positive integer.* received 0"),
        ({"stage_stride": 1.5}, "`stage_stride` must be a positive integer.* received 1.5"),
        ({"stage_stride": ((1, 1), (2, 2))}, "each of the 3 stages, received"),
        ({"block_kernel_size": (3, 3, 3)}, r"`block_kernel_size` .* received \(3, 3, 3\)"),
        ({"block_kernel_size": "3"}, "`block_kernel_size` .* received '3'"),
        ({"stem": "cifar", "stem_pool_stride": 2}, "'cifar' has no pool, received a stride of 2"),
        ({"stem": "cifar", "stem_pool_size": 3}, "'cifar' has no pool whose size"),
        ({"stem": "deep_strided", "stem_pool_padding": "end"}, "'deep_strided' has no pool"),
        (
            {"name": "ResNet50V2", "stage_stride": ((2,), (2,), (2,))},
            "the first stage has none",
        ),
        ({"stem_stride": (2, 8), "input_shape": (8, 63, 3)}, r"at least 16 × 64 pixels"),
        (
            {"stage_stride": ((1,), (1, 2), (2, 2)), "output_stride": 8},
            r"the stride \(2, 1\) and the dilation \(1, 2\) at once",
        ),
    ],
)
def test_what_cannot_be_is_quoted(arguments, message):
    if "output_stride" in arguments:
        arguments = {**arguments, "stem_stride": (1, 4), "output_stride": 8}
    with pytest.raises(ValueError, match=message):
        own(**{"input_shape": (128, 128, 3), **arguments})
