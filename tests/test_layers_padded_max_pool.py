"""The stem's max pool: as NumPy and torch have it, and the form that a TPU runs, through XLA."""

import sys

import keras
import numpy as np
import pytest
from keras import ops
from model_helpers import max_pool

from keras_resnet.layers import PaddedMaxPool, compiled_for_tpu

SIZES = {3: (2, 9), 4: (2, 9, 6), 5: (2, 9, 6, 5)}


@pytest.mark.parametrize("zero_pad", [False, True])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("rank", SIZES)
def test_pools_what_numpy_pools(rank, data_format, zero_pad):
    x = np.random.default_rng(0).normal(size=(*SIZES[rank], 4)).astype("float32") - 1
    expected = max_pool(x, 0 if zero_pad else -np.inf)
    if data_format == "channels_first":
        if keras.backend.backend() == "tensorflow":
            pytest.skip("TensorFlow pools channels_first on GPU only")
        x, expected = np.moveaxis(x, -1, 1), np.moveaxis(expected, -1, 1)
    layer = PaddedMaxPool(zero_pad, data_format)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), expected)
    assert layer.compute_output_shape(x.shape) == expected.shape


# Of windows: sizes, strides, padding. (2, 9) and so on are their inputs' sizes.
WINDOWS = {
    "same": (3, 2, "same"),
    "even same": (4, 3, "same"),
    "end": (3, 2, "end"),
    "wide end": (5, 2, "end"),
    "apart": (2, 4, "end"),
    "symmetric": (5, 3, "symmetric"),
}


def pooled(x, size, stride, padding, border=-np.inf):
    """By each window's own slice; numpy, channels last."""
    for axis in range(1, x.ndim - 1):
        n = x.shape[axis]
        if padding == "end":  # Caffe's pooling_layer.cpp: ceil, then clip
            count, before = max(-(-(n - size) // stride), 0) + 1, 0
        elif padding == "same":  # tf.nn's notes on padding
            count = -(-n // stride)
            before = max((count - 1) * stride + size - n, 0) // 2
        else:
            before = size // 2
            count = (n + 2 * before - size) // stride + 1
        parts = []
        for start in (i * stride - before for i in range(count)):
            inside = range(max(start, 0), min(start + size, n))
            part = np.take(x, inside, axis).max(axis, keepdims=True)
            reaches_out = start < 0 or start + size > n
            parts.append(np.maximum(part, border) if reaches_out else part)
        x = np.concatenate(parts, axis)
    return x


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("rank", SIZES)
def test_windows_and_borders_of_other_kinds(rank, window):
    size, strides, padding = WINDOWS[window]
    x = np.random.default_rng(0).normal(size=(*SIZES[rank], 4)).astype("float32")
    expected = pooled(x, *WINDOWS[window])
    layer = PaddedMaxPool(pool_size=size, strides=strides, padding=padding)
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), expected)
    open_sizes = keras.Input((*[None] * (rank - 2), 4))
    model = keras.Model(open_sizes, layer(open_sizes))
    if min(SIZES[rank][1:]) >= size:  # else "end" has to know it
        np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), expected)


def test_a_window_for_each_axis():
    x = np.random.default_rng(0).normal(size=(2, 5, 8, 4)).astype("float32")
    expected = np.stack([pooled(rows, 3, 2, "end") for rows in x])
    layer = PaddedMaxPool(pool_size=(1, 3), strides=(1, 2), padding="end")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(x)), expected)
    assert layer.compute_output_shape((None, 5, None, 4)) == (None, 5, None, 4)


def test_configuration():
    windows = {"pool_size": (1, 2), "strides": (1, 2), "padding": "end"}
    layer = PaddedMaxPool(True, "channels_first", name="pool", **windows)
    again = PaddedMaxPool.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert layer.get_config().items() >= {"zero_pad": True, "name": "pool", **windows}.items()
    # Files that were written before there was a choice.
    old = PaddedMaxPool.from_config({"zero_pad": False, "data_format": "channels_last"})
    assert (old.pool_size, old.strides, old.padding) == (3, 2, "symmetric")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "valid"}, "symmetric, same, end; received 'valid'"),
        ({"pool_size": 2}, "`pool_size` is 2: an even window"),
        ({"strides": (2, 2, 2)}, r"`strides` .* received \(2, 2, 2\)"),
    ],
)
def test_windows_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        PaddedMaxPool(**arguments)(np.zeros((1, 4, 4, 1), "float32"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TPUStrategy")
@pytest.mark.parametrize(
    ("zero_pad", "window"),
    [(False, None), (True, None), *((False, window) for window in WINDOWS), (True, "symmetric")],
)
@pytest.mark.parametrize("rank", SIZES)
def test_the_form_for_a_tpu_has_the_same_values_and_gradients(rank, zero_pad, window):
    import tensorflow as tf

    # Many windows have their maximum twice, none has it on the border and inside.
    values = np.random.default_rng(1).integers(-3, 3, (*SIZES[rank], 4)).astype("float32") + 0.5
    # On a CPU, TensorFlow's gradient in 3-D goes to each of several equal values; where oneDNN
    # pools odd windows in 2-D, to another one than the first.
    if rank == 5 or window:
        values += np.random.default_rng(2).permutation(values.size).reshape(values.shape) / 1e4
    size, strides, padding = WINDOWS.get(window, (3, 2, "symmetric"))
    layer = PaddedMaxPool(zero_pad, pool_size=size, strides=strides, padding=padding)
    x = tf.constant(values)
    weights = tf.random.stateless_normal(layer.compute_output_shape(x.shape), [0, 1])

    def values_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_sum(y * weights)
        return y, tape.gradient(total, x)

    @tf.function(jit_compile=True)
    def for_tpu(x):
        with compiled_for_tpu():
            y, gradient = values_and_gradient(x)
        assert y.shape == weights.shape  # before anything runs
        return y, gradient

    y, gradient = for_tpu(x)
    border = 0 if zero_pad else -np.inf
    np.testing.assert_array_equal(y, pooled(values, size, strides, padding, border))
    operations = {op.type for op in for_tpu.get_concrete_function(x).graph.get_operations()}
    assert "XlaReduceWindow" in operations
    assert not operations & {"Pad", "PadV2"}
    np.testing.assert_allclose(gradient, values_and_gradient(x)[1], atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="XLA through TensorFlow")
def test_only_xla_s_form_loads_what_it_is_made_of(monkeypatch):
    module = "keras_resnet.layers.tensorflow_max_pool"
    monkeypatch.delitem(sys.modules, module, raising=False)
    import tensorflow as tf

    layer, example = PaddedMaxPool(), tf.TensorSpec((1, 4, 4, 1))
    tf.function(layer).get_concrete_function(example)
    assert module not in sys.modules
    with compiled_for_tpu():
        tf.function(layer).get_concrete_function(example)
    assert module in sys.modules
