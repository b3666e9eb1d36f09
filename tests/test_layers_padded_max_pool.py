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


def test_configuration():
    layer = PaddedMaxPool(True, "channels_first", name="pool")
    again = PaddedMaxPool.from_config(layer.get_config())
    assert (again.zero_pad, again.data_format, again.name) == (True, "channels_first", "pool")


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="for TPUStrategy")
@pytest.mark.parametrize("zero_pad", [False, True])
@pytest.mark.parametrize("rank", SIZES)
def test_the_form_for_a_tpu_has_the_same_values_and_gradients(rank, zero_pad):
    import tensorflow as tf

    # Many windows have their maximum twice, none has it on the border and inside.
    values = np.random.default_rng(1).integers(-3, 3, (*SIZES[rank], 4)).astype("float32") + 0.5
    if rank == 5:  # on CPU, TensorFlow's gradient in 3-D goes to each of several equal values
        values += np.random.default_rng(2).permutation(values.size).reshape(values.shape) / 1e4
    layer, x = PaddedMaxPool(zero_pad), tf.constant(values)
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
    np.testing.assert_array_equal(y, max_pool(values, 0 if zero_pad else -np.inf))
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
