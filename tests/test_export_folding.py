"""Folded networks: the same numbers for every family and rank, and which layers are left."""

import keras
import numpy as np
import pytest
from model_helpers import images, randomize, run, small

from keras_resnet import blocks, layers
from keras_resnet.models.folding import fold_batch_normalization, inference_copy

# Of pre-activation networks the normalizations that come first stay: one a block, and the final;
# but the first block's can fold into a stem that nothing else reads.
FAMILIES = {
    "ResNet18": 0,
    "ResNet50": 0,
    "ResNet50V1": 0,
    "ResNet50V2": 7,
    "ResNet18V2": 7,
    "ResNet50D": 0,
    "ResNeXt50_32x4d": 0,
    "WideResNet50_2": 0,
    "SEResNet50": 0,
    "ResNetRS200": 0,
    "ResNetBlur18": 0,
    "ResNetBlur50": 0,
    "ResNetAA50": 0,
    "CifarResNet20": 0,
    "CifarResNet110V2": 5,
    "CifarResNet164V2": 5,
    "WideResNet28_10": 6,
}


def _norms(model) -> int:
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_keeps_its_logits(name):
    model = randomize(small(name, classifier_activation=None))
    folded = fold_batch_normalization(model)
    inputs = images(model, batch=4)
    expected = run(model, inputs, training=False)
    np.testing.assert_allclose(
        run(folded, inputs, training=False), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    assert _norms(folded) == FAMILIES[name]
    assert (folded.preprocessing, folded.name) == (model.preprocessing, model.name)


@pytest.mark.parametrize("antialias", ["blur", "average"])
def test_a_filter_between_a_convolution_and_its_normalization_changes_nothing(antialias):
    """Means of weights with the sum 1 commute with a factor and a shift of each channel."""
    # At 38 pixels windows reach over every border.
    size = {"input_shape": (38, 38, 3), "classifier_activation": None}
    model = randomize(small("ResNetRS200", antialias=antialias, **size))
    folded = fold_batch_normalization(model)
    order = [layer.name for layer in model.layers]
    assert order.index("stem_aa") == order.index("stem_conv4") + 1 == order.index("stem_norm4") - 1
    expected = run(model, images(model), training=False)
    found = run(folded, images(model), training=False)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert _norms(folded) == 0


@pytest.mark.parametrize("space", [(20,), (10, 9, 8)], ids=["1-D", "3-D"])
@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "grouped"])
def test_folding_knows_every_rank(space, grouped):
    inputs = keras.Input((*space, 4))
    x = blocks.conv_norm_act(inputs, 8, use_bias=True)
    x = blocks.bottleneck_block(x, 8, stride=2, groups=2 if grouped else 1, se_ratio=0.25)
    model = randomize(keras.Model(inputs, x))
    folded = fold_batch_normalization(model)
    values = np.random.default_rng(1).normal(size=(2, *space, 4)).astype("float32")
    expected = run(model, values, training=False)
    actual = run(folded, values, training=False)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert (_norms(model), _norms(folded)) == (5, 0)


def test_a_convolution_that_others_read_too_is_not_folded():
    inputs = keras.Input((8, 8, 3))
    raw = keras.layers.Conv2D(4, 3, name="shared")(inputs)
    activated = keras.layers.Conv2D(4, 3, activation="relu", name="activated")(inputs)
    x = keras.layers.Add()([raw, layers.BatchNormalization()(raw)])
    x = keras.layers.Add()([x, layers.BatchNormalization()(activated)])
    model = randomize(keras.Model(inputs, x))
    folded = fold_batch_normalization(model)
    assert _norms(folded) == 2
    values = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(run(folded, values), run(model, values))


def test_without_folding_nothing_changes_and_layers_of_training_are_gone():
    model = randomize(small("ResNetRS200", block_dropout_rate=0.0))
    kinds = (keras.layers.Dropout, layers.StochasticDepth)
    assert any(isinstance(layer, kinds) for layer in model.layers)
    copy = inference_copy(model, fold=False)
    assert not any(isinstance(layer, kinds) for layer in copy.layers)
    inputs = images(model)
    np.testing.assert_array_equal(run(copy, inputs), run(model, inputs))


def test_channels_first_folds_alike_and_can_be_turned_around():
    """TensorFlow cannot run it on a CPU: its weights and its turned twin are compared instead."""
    shapes = {"channels_last": (32, 32, 3), "channels_first": (3, 32, 32)}
    last, first = (
        randomize(small("SEResNet50", input_shape=shape, data_format=key))
        for key, shape in shapes.items()
    )
    first.set_weights(last.get_weights())
    folded = fold_batch_normalization(first)
    assert folded.input_shape == (None, 3, 32, 32)
    for ours, theirs in zip(
        folded.get_weights(), fold_batch_normalization(last).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    turned = inference_copy(first, fold=False, channels_last=True)
    inputs = images(last)
    np.testing.assert_array_equal(run(turned, inputs), run(last, inputs))


def test_bfloat16_keeps_statistics_pool_and_classifier_in_float32():
    model = randomize(small("ResNet18V2", classifier_activation=None))
    copy = inference_copy(model, precision="bfloat16")
    dtypes = {layer.name: (layer.compute_dtype, layer.variable_dtype) for layer in copy.layers}
    assert dtypes["stem_conv"] == ("bfloat16", "bfloat16")
    assert dtypes["final_norm"] == ("bfloat16", "float32")
    assert dtypes["pool"] == dtypes["predictions"] == ("float32", "float32")
    inputs = images(model, batch=4)
    expected = run(model, inputs)
    # Some 20 layers, each rounding to 8 bits: 2**-9 a time, growing as a root.
    distance = np.abs(run(copy, inputs) - expected).max() / np.abs(expected).max()
    assert 1e-4 < distance < 0.05
