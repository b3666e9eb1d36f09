"""Group normalization against NumPy in float64: ranks, layouts, precisions, and how exact it is."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_resnet.layers import GroupNormalization

SHAPES = {2: (3, 8), 3: (3, 7, 8), 4: (2, 5, 6, 8), 5: (2, 3, 4, 5, 8)}


def reference(x, groups, epsilon=1e-5):
    """Wu and He 2018, equations 1 to 3, channels last."""
    x = np.asarray(x, "float64")
    split = x.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean, variance = (f(split, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    return ((split - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)


def drawn(shape, seed=0):
    return np.random.default_rng(seed).normal(2, 3, shape).astype("float32")


@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("groups", [1, 4, -1])
@pytest.mark.parametrize("axis", [-1, 1])
def test_it_is_the_formula(rank, groups, axis):
    x = drawn(SHAPES[rank])
    gamma, beta = drawn(8, 1), drawn(8, 2)
    expected = reference(x, 8 if groups == -1 else groups) * gamma + beta
    if axis == 1:
        x, expected = np.moveaxis(x, -1, 1), np.moveaxis(expected, -1, 1)
    layer = GroupNormalization(groups, axis=axis)
    layer.build(x.shape)
    layer.set_weights([gamma, beta])
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, atol=2e-5)
    again = GroupNormalization.from_config(layer.get_config())
    again.build(x.shape)
    again.set_weights([gamma, beta])
    np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), ops.convert_to_numpy(layer(x)))


def test_long_sums_stay_exact():
    """Keras' layer is off by 2e-5 here."""
    x = drawn((1, 112, 112, 64))
    found = ops.convert_to_numpy(GroupNormalization(32)(x))
    assert np.abs(found - reference(x, 32)).max() < 4e-6


def test_sixteen_bits_have_statistics_in_float32():
    x = drawn((2, 8, 8, 16)) + 500
    layer = GroupNormalization(4, dtype="mixed_bfloat16")
    x = ops.cast(x, "bfloat16")
    given = ops.convert_to_numpy(ops.cast(x, "float32"))
    outputs = layer(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    found = ops.convert_to_numpy(ops.cast(outputs, "float32"))
    np.testing.assert_allclose(found, reference(given, 4), atol=0.02)


def test_gradients_are_those_of_keras():
    x = drawn((4, 6, 6, 8))
    gradients = []
    for make in (GroupNormalization, keras.layers.GroupNormalization):
        inputs = keras.Input(x.shape[1:])
        first = keras.layers.Dense(8, kernel_initializer="identity")
        y = make(4, epsilon=1e-5)(first(inputs))
        model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.ops.square(y) * y))
        model.compile(keras.optimizers.SGD(1.0), "mse", jit_compile=False)
        model.train_on_batch(x, np.ones((4, 8), "float32"))
        gradients.append(ops.convert_to_numpy(first.kernel) - np.eye(8))
    np.testing.assert_allclose(*gradients, rtol=1e-3, atol=1e-5)
    assert np.abs(gradients[0]).max() > 1e-3
