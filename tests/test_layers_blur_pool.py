"""BlurPool: the filter, its borders, every rank and format, and inputs that it cannot take."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from keras_resnet.layers import BlurPool

BINOMIAL = {1: [1.0], 3: [0.25, 0.5, 0.25], 5: [0.0625, 0.25, 0.375, 0.25, 0.0625]}


def _reference(x, strides, sizes, first=0):
    """SciPy's correlation with a mirrored border along each axis, then every stride-th pixel."""
    for axis, (stride, size) in enumerate(zip(strides, sizes, strict=True), start=1):
        # SciPy's "mirror" is what others call "reflect".
        x = ndimage.correlate1d(x, BINOMIAL[size], axis=axis, mode="mirror")
        x = x[(*(slice(None),) * axis, slice(first if stride > 1 else 0, None, stride))]
    return x


def _images(*space, channels=3):
    return np.random.default_rng(0).normal(size=(2, *space, channels)).astype("float32")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("space", "strides"),
    [
        *((space, 2) for space in ((9,), (8,), (8, 9), (7, 2), (5, 6, 4))),
        ((9, 10), 3),
        ((8, 9), (1, 2)),
        ((4, 6, 7), (1, 2, 2)),
    ],
)
def test_equals_scipys_correlation(space, strides, data_format):
    x = _images(*space)
    per_axis = np.broadcast_to(strides, len(space))
    expected = _reference(x, per_axis, 2 * per_axis - 1)
    layer = BlurPool(strides, data_format=data_format)
    if data_format == "channels_first":
        x = np.moveaxis(x, -1, 1)
    found = ops.convert_to_numpy(layer(x))
    assert found.shape == layer.compute_output_shape(x.shape)
    if data_format == "channels_first":
        found = np.moveaxis(found, 1, -1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("strides", "size"), [(1, 3), ((1, 2), (3, 5)), (2, 1), (2, 5)])
def test_sizes_of_ones_own(strides, size):
    x, pair = _images(9, 8), lambda value: np.broadcast_to(value, 2)
    found = BlurPool(strides, size, data_format="channels_last")(x)
    expected = _reference(x, pair(strides), pair(size))
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-6)


@pytest.mark.parametrize("n", [6, 7])
def test_same_padding_has_keras_grid(n):
    """Where the stride divides the size, Keras' windows of 3 begin at the first pixel."""
    x = _images(n, n)
    layer = BlurPool(padding="same", data_format="channels_last")
    found = ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(found, _reference(x, (2, 2), (3, 3), (n + 1) % 2), atol=1e-6)
    # Keras' own inside the border.
    kernel = np.broadcast_to(np.outer(*[BINOMIAL[3]] * 2)[:, :, None, None], (3, 3, 3, 1))
    keras_own = ops.depthwise_conv(x, kernel.astype("float32"), 2, "same", "channels_last")
    inside = (slice(None), slice(1, 2), slice(1, 2))
    np.testing.assert_allclose(found[inside], ops.convert_to_numpy(keras_own)[inside], atol=1e-6)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("strides", [2, 3])
def test_open_sizes_give_the_same(padding, strides):
    layer = BlurPool(strides, padding=padding, data_format="channels_last")
    inputs = keras.Input((None, None, 3))
    outputs = layer(inputs)
    assert outputs.shape == (None, None, None, 3)
    model = keras.Model(inputs, outputs)
    for n, m in itertools.pairwise(range(5, 11)):
        x = _images(n, m)
        np.testing.assert_allclose(model.predict(x, verbose=0), layer(x), atol=1e-6)


def test_a_constant_stays_and_the_checkerboard_goes():
    """The sum of the weights is 1 up to the border; the highest frequency is filtered out."""
    layer = BlurPool(data_format="channels_last")
    blurred = layer(np.full((1, 7, 8, 2), 3, "float32"))
    np.testing.assert_array_equal(blurred, np.full((1, 4, 4, 2), 3))
    checkerboard = (np.indices((8, 8)).sum(axis=0) % 2 * 2.0 - 1)[None, :, :, None]
    np.testing.assert_allclose(layer(checkerboard.astype("float32")), 0, atol=1e-7)


def test_its_config_its_name_and_16_bits():
    layer = BlurPool((1, 2), (3, 3), "same", "channels_first", name="aa", dtype="mixed_bfloat16")
    again = BlurPool.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert not layer.weights
    assert keras.saving.get_registered_name(BlurPool) == "keras_resnet>BlurPool"
    x = _images(8, 8)
    half = BlurPool(data_format="channels_last", dtype="mixed_bfloat16")(x)
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
    exact = BlurPool(data_format="channels_last")(ops.cast(ops.cast(x, "bfloat16"), "float32"))
    np.testing.assert_allclose(ops.cast(half, "float32"), exact, atol=2**-7, rtol=2**-7)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a gradient of TensorFlow's")
@pytest.mark.parametrize("padding", ["symmetric", "same"])
def test_the_gradient_in_16_bits_is_that_of_32(padding):
    import tensorflow as tf

    def step(dtype, training):
        x, upstream = (tf.cast(tf.cast(v, "bfloat16"), dtype) for v in (_images(8, 9), weights))
        layer = BlurPool(padding=padding, data_format="channels_last", dtype=dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = layer(x, training=training)
        return [tf.cast(v, "float32") for v in (outputs, tape.gradient(outputs, x, upstream))]

    weights = np.random.default_rng(1).normal(size=(2, 4, 5, 3))
    exact = step("float32", True)
    for training in (True, False):
        for found, expected in zip(step("bfloat16", training), exact, strict=True):
            np.testing.assert_allclose(found, expected, atol=2**-6, rtol=2**-6)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"strides": 0}, (1, 4, 4, 1), "`strides` must be a positive integer.* received 0"),
        ({"size": 2}, (1, 4, 4, 1), "`size` of a BlurPool must be odd, received 2"),
        ({"padding": "valid"}, (1, 4, 4, 1), "symmetric, same; received 'valid'"),
        ({}, (1, 4, 1, 1), r"'aa' mirrors 1 .* at least 2; received the shape \(1, 4, 1, 1\)"),
        ({"strides": 3}, (1, 2, 4, 1), "'aa' mirrors 2 .* at least 3"),
    ],
)
def test_what_it_cannot_take(arguments, shape, message):
    with pytest.raises(ValueError, match=message):
        BlurPool(**arguments, data_format="channels_last", name="aa")(np.zeros(shape, "float32"))
