"""Feature maps by level, and the pyramid against its definition in numpy."""

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run, small

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.models import ResNet
from keras_resnet.models.features import UpsampleLike, feature_extractor, feature_pyramid


@pytest.mark.parametrize(
    ("name", "kwargs", "strides"),
    [
        ("ResNet18", {}, (4, 8, 16, 32)),
        ("ResNet50", {"output_stride": 16}, (4, 8, 16, 16)),
        ("ResNet50D", {"output_stride": 8}, (4, 8, 8, 8)),
        ("ResNet50V2", {"depths": (2, 2, 2, 2)}, (4, 8, 16, 32)),
        ("ResNet50V2", {"depths": (2, 2, 2, 2), "output_stride": 8}, (4, 8, 8, 8)),
        ("ResNet18V2", {"include_top": False}, (4, 8, 16, 32)),
        ("ResNetRS50", {"input_shape": (64, 3)}, (4, 8, 16, 32)),
        ("SEResNet18", {"input_shape": (32, 32, 64, 1)}, (4, 8, 16, 32)),
        ("CifarResNet20", {}, (1, 2, 4)),
        ("CifarResNet164V2", {}, (1, 2, 4)),
    ],
)
def test_levels(name, kwargs, strides):
    model = randomize(small(name, **kwargs))
    features = feature_extractor(model)
    x = images(model)
    outputs = run(features, x)
    assert list(outputs) == [f"C{level}" for level in range(2, 2 + len(strides))]
    for stage, (key, stride) in enumerate(zip(outputs, strides, strict=True), start=1):
        assert outputs[key].shape[1:-1] == tuple(n // stride for n in x.shape[1:-1])
        expansion = 4 if ARCHITECTURES[name].bottleneck else 1
        if not ARCHITECTURES[name].stride_in_last_block:
            assert outputs[key].shape[-1] == expansion * (16, 32, 48, 64)[stage - 1]
    last_block = f"stage{len(strides)}_block{2 if kwargs.get('depths') or 'Cifar' in name else 1}"
    end = "final_act" if "V2" in name else f"{last_block}_out"
    expected = run(keras.Model(model.inputs[0], model.get_layer(end).output), x)
    np.testing.assert_array_equal(outputs[f"C{1 + len(strides)}"], expected)


def test_strided_last_blocks_give_the_finer_level():
    model = small("ResNet50V2", depths=(2, 2, 2, 2))
    features = feature_extractor(model)
    expected = model.get_layer("stage1_block1_add").output
    assert features.output["C2"] is expected
    assert expected.shape[1] == 8


def test_loaded_and_cloned_models(tmp_path):
    model = randomize(small("ResNet18"))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    x = images(model)
    expected = run(feature_extractor(model), x)
    for copy in (loaded, clone):
        for key, value in run(feature_extractor(copy), x).items():
            np.testing.assert_array_equal(value, expected[key])


def test_layers_are_shared_and_metadata_kept():
    model = small("ResNet18", rematerialize=True)
    features = feature_extractor(model)
    assert features.get_layer("stem_conv") is model.get_layer("stem_conv")
    assert features.preprocessing == model.preprocessing
    assert features.rematerialize


def upsampled(x, like):
    for axis in range(1, x.ndim - 1):
        x = np.take(x, np.arange(like.shape[axis]) // 2, axis)
    return x


@pytest.mark.parametrize("shape", [(64, 3), (40, 64, 3), (None, None, 3), (32, 32, 32, 3)])
def test_pyramid_follows_its_definition(shape):
    """Lin et al. 2017, figure 3: lateral 1×1, upsample by 2, add, 3×3; P6 subsamples P5."""
    model = randomize(small("ResNet18", input_shape=shape))
    pyramid = feature_pyramid(model, filters=8)
    for layer in pyramid.layers:
        if layer.name.startswith(("fpn_lateral", "P")) and layer.weights:
            randomize(layer, seed=len(layer.name))
    assert list(pyramid.output) == ["P2", "P3", "P4", "P5", "P6"]
    x = images(model)
    outputs, maps = run(pyramid, x), run(feature_extractor(model), x)
    above = None
    for level in (5, 4, 3, 2):
        lateral = pyramid.get_layer(f"fpn_lateral{level}")
        kernel, bias = (keras.ops.convert_to_numpy(v) for v in lateral.weights)
        merged = maps[f"C{level}"] @ kernel.reshape(kernel.shape[-2:]) + bias
        if above is not None:
            merged = merged + upsampled(above, merged)
        above = merged
        expected = run(pyramid.get_layer(f"P{level}"), merged.astype("float32"))
        np.testing.assert_allclose(outputs[f"P{level}"], expected, rtol=1e-4, atol=1e-4)
    every_second = (slice(None), *[slice(None, None, 2)] * (x.ndim - 2))
    np.testing.assert_array_equal(outputs["P6"], outputs["P5"][every_second])


def test_retinanet_levels():
    """Lin et al. 2017 (focal loss), section 4: P6 from C5, P7 from ReLU(P6), both strided."""
    model = randomize(small("ResNet18", input_shape=(128, 128, 3)))
    pyramid = feature_pyramid(model, 8, levels=(3, 7), coarse="conv")
    assert {k: v.shape[1] for k, v in pyramid.output.items()} == {
        "P3": 16,
        "P4": 8,
        "P5": 4,
        "P6": 2,
        "P7": 1,
    }
    assert pyramid.get_layer("P6").input.shape[-1] == 8 or pyramid.get_layer("P6_pad")
    x = images(model)
    p6 = run(pyramid, x)["P6"]
    padded = np.pad(np.maximum(p6, 0), [(0, 0), (1, 1), (1, 1), (0, 0)])
    expected = run(pyramid.get_layer("P7"), padded)
    np.testing.assert_allclose(run(pyramid, x)["P7"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ResNet50V2", "ResNetRS50", "CifarResNet20", "ResNeXt50_32x4d"])
def test_pyramid_of_other_families(name, tmp_path):
    model = small(name, output_stride=None if "Cifar" in name else 16, input_shape=(64, 64, 3))
    pyramid = feature_pyramid(model, 8, levels=(2, 4))
    assert isinstance(pyramid, ResNet)
    pyramid.save(tmp_path / "pyramid.keras")
    copy = keras.saving.load_model(tmp_path / "pyramid.keras")
    x = images(model)
    expected, again = run(pyramid, x), run(copy, x)
    assert sorted(again) == ["P2", "P3", "P4"]
    for key, value in again.items():
        np.testing.assert_array_equal(value, expected[key])


def test_upsampling_gradient_sums_the_copies():
    coarse = keras.Input((3, 1))
    fine = keras.Input((5, 1))
    model = keras.Model([coarse, fine], UpsampleLike()([coarse, fine]))
    y = run(model, [np.array([[[1.0], [2], [3]]], "float32"), np.zeros((1, 5, 1), "float32")])
    np.testing.assert_array_equal(y[0, :, 0], [1, 1, 2, 2, 3])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"levels": (1, 5)}, r"between 2 and 5.*received \(1, 5\)"),
        ({"levels": (6, 7)}, r"received \(6, 7\)"),
        ({"levels": (4, 3)}, r"received \(4, 3\)"),
        ({"coarse": "bilinear"}, "received 'bilinear'"),
        ({"filters": 0}, "filters"),
    ],
)
def test_bad_pyramids(kwargs, message):
    with pytest.raises(ValueError, match=message):
        feature_pyramid(small("ResNet18"), **kwargs)


def test_other_models_have_no_levels():
    x = keras.Input((8,))
    with pytest.raises(ValueError, match="'stage1_block1_"):
        feature_extractor(keras.Model(x, keras.layers.Dense(2)(x), name="mlp"))
