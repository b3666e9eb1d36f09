"""Batch normalization on several replicas: logical CPUs under MirroredStrategy."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf.distribute is TensorFlow's", allow_module_level=True)

import tensorflow as tf

from keras_resnet.layers import (
    BatchNormalization,
    average_moving_statistics,
    defer_moving_statistics,
)

CHANNELS = 3
GAMMA, BETA = np.array([0.5, -1.5, 2.0]), np.array([0.1, 0.2, 0.3])
# Examples on each replica, as many entries as needed are taken from the front.
SPLITS = {"even": (4, 4, 4, 4), "uneven": (5, 2, 1, 3), "empty": (6, 0, 3, 0)}


def _strategy(replicas):
    # TensorFlow's default for CPUs, collective operations, cannot serve groups of two sizes in
    # one process: "joining a group with size 4, but that group has size 2".
    return tf.distribute.MirroredStrategy(
        [f"CPU:{index}" for index in range(replicas)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


@pytest.fixture(params=[2, 4], ids=["2 replicas", "4 replicas"])
def mirrored(request):
    return _strategy(request.param)


@pytest.fixture
def pair():
    return _strategy(2)


def _batch(examples, seed=0, mean=2.0):
    shape = (examples, 3, 2, CHANNELS)
    return (np.random.default_rng(seed).normal(size=shape) * 3 + mean).astype("float32")


def _layer(**kwargs):
    layer = BatchNormalization(**kwargs)
    layer.build((None, 3, 2, CHANNELS))
    layer.gamma.assign(GAMMA)
    layer.beta.assign(BETA)
    layer.moving_mean.assign([1.0, 0.0, 3.0])
    return layer


def _step(layer, x, upstream, mask=None):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True, mask=mask)
        loss = tf.reduce_sum(tf.sin(tf.cast(y, tf.float32)) * upstream)
    return y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])


def _on_replicas(strategy, step, *arrays, sizes):
    """Per-replica results of `step` on the arrays, cut into pieces of `sizes`."""
    ends = np.cumsum(sizes[: strategy.num_replicas_in_sync])
    pieces = [
        strategy.experimental_distribute_values_from_function(
            lambda context, a=a: tf.constant(np.split(a, ends)[context.replica_id_in_sync_group])
        )
        for a in arrays
    ]
    results = tf.function(lambda *args: strategy.run(step, args=args), autograph=False)(*pieces)
    return [[t.numpy() for t in strategy.experimental_local_results(r)] for r in results]


def _copies(strategy, variable):
    return [value.numpy() for value in strategy.experimental_local_results(variable.value)]


def _assert_same_everywhere(strategy, layer):
    for variable in (layer.moving_mean, layer.moving_variance):
        for copy in _copies(strategy, variable):
            np.testing.assert_array_equal(copy, variable.numpy())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("split", SPLITS)
def test_synchronized_replicas_equal_one_device(mirrored, split, masked):
    """Outputs, every gradient and the moving statistics, on unequal and empty shares."""
    total = sum(SPLITS[split][: mirrored.num_replicas_in_sync])
    x, upstream = _batch(total), _batch(total, seed=1)
    mask = np.random.default_rng(2).random(x.shape[:-1]) < (0.7 if masked else 2)
    with mirrored.scope():
        layer = _layer(synchronized=True)
    alone = _layer()

    def step(x, upstream, mask):
        return _step(layer, x, upstream, mask if masked else None)

    y, dx, dgamma, dbeta = _on_replicas(mirrored, step, x, upstream, mask, sizes=SPLITS[split])
    expected = _step(
        alone, tf.constant(x), tf.constant(upstream), tf.constant(mask) if masked else None
    )
    np.testing.assert_allclose(np.concatenate(y), expected[0], atol=1e-5)
    np.testing.assert_allclose(np.concatenate(dx), expected[1], atol=2e-5)
    np.testing.assert_allclose(sum(dgamma), expected[2], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(sum(dbeta), expected[3], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean.numpy(), alone.moving_mean.numpy(), rtol=1e-5)
    np.testing.assert_allclose(
        layer.moving_variance.numpy(), alone.moving_variance.numpy(), rtol=1e-5
    )
    _assert_same_everywhere(mirrored, layer)


@pytest.mark.parametrize("split", SPLITS)
def test_unsynchronized_replicas_share_the_moving_statistics(mirrored, split):
    """Each replica normalizes by its own batch; the mean of their statistics is kept."""
    sizes = SPLITS[split][: mirrored.num_replicas_in_sync]
    x = _batch(sum(sizes))
    with mirrored.scope():
        layer = _layer()
    y, *_ = _on_replicas(mirrored, lambda x, u: _step(layer, x, u), x, x, sizes=sizes)

    shares = [s.astype("float64") for s in np.split(x, np.cumsum(sizes)[:-1]) if len(s)]
    means = np.array([s.mean((0, 1, 2)) for s in shares])
    variances = np.array([s.var((0, 1, 2)) for s in shares])
    np.testing.assert_allclose(
        layer.moving_mean.numpy(), 0.9 * np.array([1, 0, 3]) + 0.1 * means.mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
        layer.moving_variance.numpy(), 0.9 + 0.1 * variances.mean(0), rtol=1e-5
    )
    first = (shares[0] - means[0]) / np.sqrt(variances[0] + 1e-5) * GAMMA
    np.testing.assert_allclose(y[0], first + BETA, atol=1e-5)
    _assert_same_everywhere(mirrored, layer)


@pytest.mark.parametrize("synchronized", [False, True])
def test_nobody_has_examples(pair, synchronized):
    with pair.scope():
        layer = _layer(synchronized=synchronized)
    x = _batch(0)
    _on_replicas(pair, lambda x, u: _step(layer, x, u), x, x, sizes=(0, 0, 0, 0))
    np.testing.assert_array_equal(layer.moving_mean.numpy(), [1, 0, 3])
    np.testing.assert_array_equal(layer.moving_variance.numpy(), [1, 1, 1])


def test_precision_of_synchronized_variance(pair):
    """Far from the moving mean the error grows with the square of the distance, near it is small.

    At 300 standard deviations, 300² · 2⁻²⁴ is 0.5 %; measured: 2.3 %.
    """
    x = _batch(32, mean=900.0)
    true_variance = x.astype("float64").var((0, 1, 2))
    for moving_mean, tolerance in ((0.0, 0.05), (890.0, 2e-5)):
        with pair.scope():
            layer = BatchNormalization(synchronized=True, momentum=0.0)
            layer.build(x.shape)
            layer.moving_mean.assign([moving_mean] * CHANNELS)
        sizes = [32 // pair.num_replicas_in_sync] * 4
        _on_replicas(pair, lambda x, u: _step(layer, x, u), x, x, sizes=sizes)  # noqa: B023
        np.testing.assert_allclose(layer.moving_variance.numpy(), true_variance, rtol=tolerance)


def test_synchronized_bfloat16(pair):
    x = _batch(8)
    with pair.scope():
        layer = _layer(synchronized=True, dtype="mixed_bfloat16")
    alone = _layer(dtype="mixed_bfloat16")
    sizes = [8 // pair.num_replicas_in_sync] * 4
    y, *_ = _on_replicas(
        pair, lambda x, u: _step(layer, tf.cast(x, tf.bfloat16), u), x, x, sizes=sizes
    )
    expected = _step(alone, tf.cast(x, tf.bfloat16), tf.constant(x))
    assert y[0].dtype == expected[0].dtype.as_numpy_dtype
    np.testing.assert_allclose(
        np.concatenate(y).astype("float32"), tf.cast(expected[0], tf.float32), atol=0.04
    )
    np.testing.assert_allclose(layer.moving_mean.numpy(), alone.moving_mean.numpy(), rtol=1e-5)


def test_deferred_statistics_average_to_those_of_every_step(pair):
    """Without a collective in the step, which a nested function (as XLA's) does not allow."""
    replicas = pair.num_replicas_in_sync
    with pair.scope():
        deferred, every_step = (
            keras.Sequential([keras.Input((3, 2, CHANNELS)), BatchNormalization()])
            for _ in range(2)
        )
    defer_moving_statistics(deferred)

    def step(x, upstream):
        nested = tf.function(lambda x: deferred(x, training=True), jit_compile=True)
        return nested(x), every_step(x, training=True)

    for seed in range(3):
        x = _batch(4 * replicas, seed)
        _on_replicas(pair, step, x, x, sizes=(4, 4, 4, 4))
    layer, reference = deferred.layers[-1], every_step.layers[-1]
    copies = _copies(pair, layer.moving_mean)
    assert np.abs(copies[0] - copies[1]).max() > 0.01, "the replicas should have drifted apart"

    average_moving_statistics(deferred)
    _assert_same_everywhere(pair, layer)
    for value, wanted in zip(layer.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5)

    defer_moving_statistics(deferred, deferred=False)
    x = _batch(4 * replicas, seed=9)
    _on_replicas(pair, lambda x, u: (deferred(x, training=True), u), x, x, sizes=(4, 4, 4, 4))
    _assert_same_everywhere(pair, layer)


@pytest.mark.parametrize("synchronized", [False, True])
def test_nested_functions_are_told_to_defer(pair, synchronized):
    with pair.scope():
        layer = _layer(synchronized=synchronized)
    nested = tf.function(lambda: layer(tf.constant(_batch(2)), training=True))
    with pytest.raises(RuntimeError, match="defer_moving_statistics"):
        tf.function(lambda: pair.run(lambda: nested()), autograph=False)()


def test_averaging_without_a_strategy_changes_nothing():
    model = keras.Sequential([keras.Input((3, 2, CHANNELS)), BatchNormalization()])
    model(_batch(4), training=True)
    before = model.get_weights()
    average_moving_statistics(model)
    for value, wanted in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_synchronized_layers_cannot_be_deferred():
    inner = keras.Sequential([keras.Input((4,)), BatchNormalization(synchronized=True, name="n1")])
    model = keras.Sequential([inner, BatchNormalization(name="n2")])
    with pytest.raises(ValueError, match="received 1 such layers, the first is 'n1'"):
        defer_moving_statistics(model)


def test_frozen_layer_on_replicas(pair):
    with pair.scope():
        layer = _layer(synchronized=True)
    layer.trainable = False
    x = _batch(8)
    sizes = [8 // pair.num_replicas_in_sync] * 4
    y, *_ = _on_replicas(pair, lambda x: (layer(x, training=True),), x, sizes=sizes)
    expected = (x - [1, 0, 3]) / np.sqrt(1 + 1e-5) * GAMMA + BETA
    np.testing.assert_allclose(np.concatenate(y), expected, atol=2e-5)


@pytest.mark.parametrize("synchronized", [False, True])
def test_fit_under_mirrored_strategy(pair, synchronized):
    """Keras' own loop, the last batch of 9 examples uneven."""
    with pair.scope():
        inputs = keras.Input((3, 2, CHANNELS))
        norm = BatchNormalization(synchronized=synchronized)
        hidden = keras.layers.GlobalAveragePooling2D()(norm(inputs))
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        model.compile("sgd", "mse")
    x = _batch(25)
    model.fit(x, np.zeros((25, 1), "float32"), batch_size=16, epochs=2, verbose=0)
    assert np.abs(norm.moving_mean.numpy()).max() > 0.1
    _assert_same_everywhere(pair, norm)
