"""Stochastic depth: which examples it drops, and what it makes of the others."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_resnet.layers import StochasticDepth


@pytest.mark.parametrize("shape", [(4000, 3), (4000, 2, 2), (4000, 2, 1, 2), (4000, 1, 2, 1, 2)])
def test_drops_whole_examples_and_keeps_the_expectation(shape):
    """Of n examples about n * rate are dropped: within 4 standard deviations."""
    rate = 0.3
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    y = ops.convert_to_numpy(StochasticDepth(rate, seed=1)(x, training=True))
    factors = (y / x).reshape(len(x), -1)
    np.testing.assert_allclose(factors, np.repeat(factors[:, :1], factors.shape[1], 1), rtol=1e-5)
    kept = factors[:, 0] > 0
    np.testing.assert_allclose(factors[kept], 1 / 0.7, rtol=1e-5)
    assert not factors[~kept].any()
    assert abs(factors[:, 0].mean() - 1) < 4 * np.sqrt(rate / 0.7 / len(x))


@pytest.mark.parametrize(("rate", "training"), [(0.0, True), (0.5, False), (0.5, None)])
def test_is_the_identity_at_rate_0_and_in_inference(rate, training):
    x = np.random.default_rng(0).normal(size=(8, 3, 3, 2)).astype("float32")
    y = StochasticDepth(rate)(x, training=training)
    np.testing.assert_array_equal(ops.convert_to_numpy(y), x)


def test_draws_differ_from_call_to_call_and_the_seed_fixes_them():
    x = np.ones((64, 2), "float32")
    layers = [StochasticDepth(0.5, seed=seed) for seed in (1, 1, 2)]
    first, same, other = (ops.convert_to_numpy(layer(x, training=True)) for layer in layers)
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()
    assert (first != ops.convert_to_numpy(layers[0](x, training=True))).any()


def test_small_rates_survive_bfloat16():
    """0.001 is less than the distance between bfloat16 numbers below 1."""
    x = ops.ones((20000, 1), "bfloat16")
    y = StochasticDepth(0.001, seed=0, dtype="bfloat16")(x, training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    dropped = (ops.convert_to_numpy(ops.cast(y, "float32")) == 0).sum()
    assert 4 <= dropped <= 36, "20 expected"


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan"), "0.5", True, None])
def test_refuses_rates_outside_the_range(rate):
    with pytest.raises(ValueError, match=rf"at least 0 and less than 1 .* received {rate!r}"):
        StochasticDepth(rate)


def test_trains_and_survives_saving(tmp_path):
    inputs = keras.Input((4,))
    branch = StochasticDepth(0.25, seed=3, name="drop")(keras.layers.Dense(4)(inputs))
    model = keras.Model(inputs, keras.layers.add([inputs, branch]))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    model.fit(x, x, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.get_layer("drop").get_config() == model.get_layer("drop").get_config()
    np.testing.assert_allclose(
        ops.convert_to_numpy(again(x)), ops.convert_to_numpy(model(x)), rtol=1e-6
    )
    assert keras.saving.get_registered_name(StochasticDepth) == "keras_resnet>StochasticDepth"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute, XLA")
def test_replicas_and_compiled_code():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        layer = StochasticDepth(0.5, seed=1)
    x = tf.ones([64, 1])

    @tf.function
    def step():
        return strategy.run(lambda: layer(x, training=True))

    first, second = strategy.experimental_local_results(step())
    assert (first.numpy() != second.numpy()).any(), "replicas should draw on their own"
    layer = StochasticDepth(0.5, seed=1)
    compiled = tf.function(lambda: layer(x, training=True), jit_compile=True)
    assert set(compiled().numpy().ravel()) == {0.0, 2.0}
