"""What is easily said wrong, and what a model says of itself."""

import json

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run, small

import keras_resnet
from keras_resnet import create_model, feature_pyramid, profile
from keras_resnet.layers import BatchNormalization
from keras_resnet.preprocessing import PreprocessingError
from keras_resnet.training.metrics import describe_accuracy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": 224}, r"such as \(224, 224, 3\); received 224"),
        ({"input_shape": "224"}, r"such as \(224, 224, 3\); received '224'"),
        ({"input_shape": (224, 224)}, r"1-D network of 224 steps .* \(224, 224, 3\)"),
        ({"input_shape": (224, 224, 0)}, r"\(224, 224, 0\), where 0 is neither a positive"),
        ({"input_shape": ("a", 3)}, r"'a' is neither a positive integer nor None"),
        ({"input_tensor": (32, 32, 3)}, r"Keras tensor, .*; received \(32, 32, 3\)"),
        ({"norm": "sync"}, r"`norm` is a dict .*'synchronized': True.*; received 'sync'"),
        ({"projection": "always"}, r"'auto', 'shape' or 'first', received 'always'"),
        ({"projection": "first", "shortcut": "A"}, r"'always', but shortcut='A' adds zero"),
        ({"shortcut_norm": 1}, r"`shortcut_norm` is True or False, received 1"),
        ({"weight_standardization": 1e-8}, r"`weight_standardization` is True or False"),
        ({"norm_groups": 0}, r"`norm_groups` must be a positive integer, received 0"),
        ({"norm_groups": 8}, r"groups=8, which BatchNormalization does not take"),
    ],
)
def test_slips_are_quoted_with_what_is_meant(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model("ResNet18", **arguments)


@pytest.mark.parametrize("value", ["no", 0])
def test_include_top_is_a_truth_value(value):
    expected = f"`include_top` of ResNet18 is True or False, received {value!r}"
    with pytest.raises(TypeError, match=expected):
        create_model("ResNet18", include_top=value)


def test_the_first_argument_is_no_tensor():
    with pytest.raises(TypeError, match=r"To build on it: ResNet50\(input_tensor=\.\.\.\)"):
        keras_resnet.ResNet50(keras.Input((64, 64, 3)))
    with pytest.raises(TypeError, match=r"received a tensor of shape \(2, 64, 64, 3\)\. To build"):
        keras_resnet.ResNet50(np.zeros((2, 64, 64, 3)))
    with pytest.raises(TypeError, match=r"received np\.False_\.$"):
        keras_resnet.ResNet50(np.False_)
    with pytest.raises(TypeError, match=r"no argument 'model_name'\. Did you mean 'name'"):
        keras_resnet.ResNet50(model_name="mine")
    with pytest.raises(ValueError, match=r"`levels` are two numbers, .* received 3"):
        feature_pyramid(small("ResNet18"), levels=3)


def test_a_1d_network_of_as_many_channels_can_be_built():
    model = small("ResNet18", input_shape=None, input_tensor=keras.Input((64, 64)))
    assert model.get_layer("stem_conv").kernel.shape == (7, 64, 64)


def test_class_names_are_one_for_each_output():
    model = small("CifarResNet20")
    with pytest.raises(ValueError, match=r"needs 5 names.* received 1: a"):
        model.class_names = ["a"]
    for wrong in ("abcde", 5, dict.fromkeys(range(5), "a")):
        with pytest.raises(ValueError, match="`class_names` is a list of names, received"):
            model.class_names = wrong
    model.class_names = ["a", "b", "c", "d", "e"]
    # Where the model ends in features there is nothing to count.
    features = small("CifarResNet20", include_top=False, pooling="avg")
    features.class_names = ["a"]
    with pytest.raises(PreprocessingError, match="lacks image_size"):
        model.preprocessing = {"mean": "x"}
    with pytest.raises(PreprocessingError, match=r"mean is \(nan, 0, 0\); it must hold one number"):
        model.preprocessing = {**model.preprocessing, "mean": (float("nan"), 0, 0)}
    with pytest.raises(PreprocessingError, match="lacks image_size"):
        keras_resnet.ResNet(model.inputs, model.outputs, preprocessing={"mean": "x"})


def test_class_names_of_a_wrong_number_in_an_old_file_are_left_out():
    config = small("CifarResNet20").get_config()
    with pytest.warns(UserWarning, match="without class names: .* needs 5 names"):
        model = keras_resnet.ResNet.from_config({**config, "class_names": ["a", "b"]})
    assert model.class_names is None
    config["class_names"] = list("abcde")
    assert keras_resnet.ResNet.from_config(config).class_names == list("abcde")


@pytest.mark.parametrize(
    ("shape", "size"),
    [((64, 64, 3), 64), ((None, None, 3), 224), ((64, 96, 3), 224), (None, 224)],
)
def test_preprocessing_makes_images_of_the_models_size(shape, size):
    model = small("ResNet18", input_shape=shape)
    assert model.preprocessing.image_size == size
    assert json.loads(json.dumps(model.get_config()["preprocessing"]))["image_size"] == size


@pytest.mark.parametrize("shape", [(256, 3), (32, 32, 32, 3)])
def test_what_takes_no_images_has_no_preprocessing(shape):
    assert small("ResNet18", input_shape=shape).preprocessing is None


@pytest.mark.parametrize("name", ["ResNet18", "ResNet18D", "ResNet18V2", "CifarResNet20"])
@pytest.mark.parametrize("frames", [8, 16])
def test_short_clips(name, frames):
    model = randomize(small(name, input_shape=(frames, 32, 32, 3)))
    outputs = run(model, images(model))
    assert outputs.shape[1:] == (5,)
    assert np.isfinite(outputs).all()
    with pytest.raises(ValueError, match="needs at least 32 pixels"):
        create_model("ResNet18", input_shape=(8, 16, 16, 3))


def test_the_old_format_of_keras_is_loaded(tmp_path):
    model = randomize(small("CifarResNet20"))
    model.class_names = list("abcde")
    model.save(tmp_path / "m.h5")
    loaded = keras.saving.load_model(tmp_path / "m.h5")
    assert type(loaded) is keras_resnet.ResNet
    assert isinstance(loaded.get_layer("stem_norm"), BatchNormalization)
    assert (loaded.preprocessing, loaded.class_names) == (model.preprocessing, list("abcde"))
    np.testing.assert_array_equal(run(loaded, images(model)), run(model, images(model)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.convolution = keras.layers.Conv2D(4, 3)

    def call(self, x):
        return self.convolution(x)


def test_costs_of_sequential_models():
    convolution = keras.layers.Conv2D(4, 3, use_bias=False)
    for model in (
        keras.Sequential([keras.Input((8, 8, 3)), convolution]),
        keras.Sequential([keras.Sequential([keras.Input((8, 8, 3)), convolution])]),
    ):
        costs = profile(model, (8, 8, 3))
        assert (costs.parameters, costs.multiply_adds) == (4 * 3 * 9, 6 * 6 * 4 * 3 * 9)
    ours = small("CifarResNet20")
    wrapped = keras.Sequential([keras.Input((8, 8, 3)), ours])
    assert profile(wrapped).multiply_adds == profile(ours).multiply_adds
    with pytest.raises(ValueError, match="has not seen its input yet; pass `input_shape`"):
        profile(keras.Sequential([keras.layers.Conv2D(4, 3)]))
    for wrong, message in (
        (Subclassed(), "the model 'mine' of the class"),
        ("ResNet50", "'ResNet"),
    ):
        with pytest.raises(TypeError, match=f"functional or sequential .*, received {message}"):
            profile(wrong, (8, 8, 3))


def test_two_backbones_of_one_model():
    """docs/blocks.md: called as layers, under names of their own."""
    x = keras.Input((8, 8, 3))
    options = {"include_top": False, "pooling": "avg"}
    left, right = (keras_resnet.CifarResNet20(name=side, **options) for side in ("left", "right"))
    model = keras.Model(x, keras.layers.concatenate([left(x), right(x)]))
    inputs = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    expected = np.concatenate([run(left, inputs), run(right, inputs)], axis=1)
    np.testing.assert_allclose(run(model, inputs), expected, rtol=1e-5)


def test_frozen_layers_called_in_training_mode_keep_their_statistics():
    """docs/blocks.md: a frozen normalization is in inference mode, whatever `training` says."""
    backbone = randomize(small("CifarResNet20", include_top=False, pooling="avg"))
    backbone.trainable = False
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, keras.layers.Dense(2)(backbone(inputs, training=True)))
    x = images(backbone)
    before = [np.array(value) for value in backbone.get_weights()]
    outer(x, training=True)
    for value, kept in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, kept)
    in_training = keras.ops.convert_to_numpy(backbone(x, training=True))
    np.testing.assert_allclose(in_training, run(backbone, x), rtol=1e-5)
    # Not frozen, the same call moves them.
    backbone.trainable = True
    outer(x, training=True)
    assert any((a != b).any() for a, b in zip(backbone.get_weights(), before, strict=True))


def test_top5_is_not_told_of_five_classes():
    means = {"top1": 0.5, "top5": 1.0}
    assert describe_accuracy(means, 5) == "top1 0.5000"
    assert describe_accuracy(means, 6) == "top1 0.5000  top5 1.0000"
