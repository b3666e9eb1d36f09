"""Batch normalization on one device: numbers against closed forms and against Keras' layer."""

import contextlib

import keras
import numpy as np
import pytest
from keras import ops

from keras_resnet.layers import BatchNormalization

CHANNELS = 6
SHAPES = {2: (24, CHANNELS), 3: (5, 7, CHANNELS), 4: (3, 4, 5, CHANNELS), 5: (2, 3, 2, 4, CHANNELS)}
BACKEND = keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="uses TensorFlow's API")
needs_gradients = pytest.mark.skipif(
    BACKEND not in ("tensorflow", "jax"), reason="elsewhere it is Keras' own layer"
)


def _batch(shape, seed=0, mean=2.0, std=3.0):
    return (np.random.default_rng(seed).normal(size=shape) * std + mean).astype("float32")


def _parameters(seed=1):
    """gamma, beta, moving mean and variance, none of them at its initial value."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(4, CHANNELS)).astype("float32")
    values[3] = np.abs(values[3]) + 0.5
    return list(values)


def _layer(shape, cls=BatchNormalization, **kwargs):
    layer = cls(**kwargs)
    layer.build(shape)
    layer.set_weights(_parameters())
    return layer


def _normalized(x, mean, variance, gamma, beta, epsilon=1e-5):
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def _training_step(layer, x, upstream):
    """Outputs, then the gradients of sum(outputs * upstream) by inputs, gamma and beta."""
    if BACKEND == "jax":
        return _training_step_on_jax(layer, x, upstream)
    import tensorflow as tf

    x, upstream = tf.convert_to_tensor(x), tf.convert_to_tensor(upstream)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(tf.cast(y, tf.float32) * upstream)
    return y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])


def _training_step_on_jax(layer, x, upstream):
    import jax

    state = [variable.value for variable in (layer.moving_mean, layer.moving_variance)]

    @jax.jit
    def step(x, gamma, beta):
        def loss(x, gamma, beta):
            mapping = zip(layer.variables, (gamma, beta, *state), strict=True)
            with keras.StatelessScope(state_mapping=list(mapping)) as scope:
                y = layer(x, training=True)
            updates = [scope.get_current_value(v) for v in layer.variables[2:]]
            return (y.astype("float32") * upstream).sum(), (y, updates)

        gradients, aside = jax.grad(loss, (0, 1, 2), has_aux=True)(x, gamma, beta)
        return gradients, *aside

    gradients, y, updates = step(x, layer.gamma.value, layer.beta.value)
    layer.moving_mean.assign(updates[0])
    layer.moving_variance.assign(updates[1])
    return y, *gradients


@pytest.mark.parametrize("rank", SHAPES)
def test_training_matches_closed_form(rank):
    x = _batch(SHAPES[rank])
    gamma, beta, moving_mean, moving_variance = _parameters()
    layer = _layer(x.shape)
    y = ops.convert_to_numpy(layer(x, training=True))

    wide, axes = x.astype("float64"), tuple(range(rank - 1))
    mean, variance = wide.mean(axes), wide.var(axes)
    np.testing.assert_allclose(y, _normalized(wide, mean, variance, gamma, beta), atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, moving_mean * 0.9 + mean * 0.1, rtol=1e-5)
    np.testing.assert_allclose(
        layer.moving_variance, moving_variance * 0.9 + variance * 0.1, rtol=1e-5
    )


@pytest.mark.parametrize("rank", SHAPES)
def test_inference_matches_closed_form_and_changes_nothing(rank):
    x = _batch(SHAPES[rank])
    gamma, beta, mean, variance = _parameters()
    layer = _layer(x.shape)
    y = ops.convert_to_numpy(layer(x, training=False))
    np.testing.assert_allclose(y, _normalized(x, mean, variance, gamma, beta), atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, mean)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize(("scale", "center"), [(True, True), (False, True), (True, False)])
def test_same_as_keras_layer(axis, scale, center):
    x = np.moveaxis(_batch((3, 4, 5, CHANNELS)), -1, axis)
    ours, theirs = (
        cls(axis=axis, momentum=0.8, epsilon=1e-4, scale=scale, center=center)
        for cls in (BatchNormalization, keras.layers.BatchNormalization)
    )
    for training in (True, True, False):
        y, expected = ours(x, training=training), theirs(x, training=training)
        np.testing.assert_allclose(
            ops.convert_to_numpy(y), ops.convert_to_numpy(expected), atol=1e-5
        )
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    for weight, expected in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-5)


def test_moving_variance_is_biased_where_pytorch_is_unbiased():
    # torch.nn.BatchNorm2d(1, momentum=0.5) on [1, 2, 3, 6]: running_var 2.8333335, from PyTorch
    # 2.13.0; 0.5 * 1 + 0.5 * 14/3. The batch's biased variance is 3.5.
    layer = BatchNormalization(momentum=0.5)
    layer(np.array([1, 2, 3, 6], "float32").reshape(1, 2, 2, 1), training=True)
    np.testing.assert_allclose(layer.moving_mean, [1.5], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [0.5 + 0.5 * 3.5], rtol=1e-6)
    unbiased = (ops.convert_to_numpy(layer.moving_variance) - 0.5) * 4 / 3 + 0.5
    np.testing.assert_allclose(unbiased, [2.8333335], rtol=1e-6)


@needs_gradients
@pytest.mark.parametrize("rank", SHAPES)
def test_gradients_match_closed_form(rank):
    """Ioffe and Szegedy (2015), section 3, in float64."""
    x, upstream = _batch(SHAPES[rank]), _batch(SHAPES[rank], seed=5, mean=0.5)
    gamma = _parameters()[0]
    _, dx, dgamma, dbeta = _training_step(_layer(x.shape), x, upstream)

    axes, wide = tuple(range(rank - 1)), x.astype("float64")
    std = np.sqrt(wide.var(axes) + 1e-5)
    normal = (wide - wide.mean(axes)) / std
    expected = (
        gamma / std * (upstream - upstream.mean(axes) - normal * (upstream * normal).mean(axes))
    )
    np.testing.assert_allclose(dx, expected, atol=1e-5)
    np.testing.assert_allclose(dgamma, (upstream * normal).sum(axes), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(dbeta, upstream.astype("float64").sum(axes), rtol=1e-5, atol=1e-4)


@needs_tensorflow
@pytest.mark.parametrize("mode", ["eager", "graph", "jit", "dynamic graph"])
def test_every_way_to_run_gives_the_same(mode):
    import tensorflow as tf

    x, upstream = _batch((4, 3, 3, CHANNELS)), _batch((4, 3, 3, CHANNELS), seed=3)
    reference, layer = _layer(x.shape), _layer(x.shape)
    expected = _training_step(reference, x, upstream)

    def step(x, upstream):
        return _training_step(layer, x, upstream)

    if mode == "dynamic graph":
        unknown = tf.TensorSpec([None, None, None, CHANNELS])
        step = tf.function(step, input_signature=[unknown, unknown])
    elif mode != "eager":
        step = tf.function(step, jit_compile=mode == "jit")
    for value, wanted in zip(step(tf.constant(x), tf.constant(upstream)), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=2e-5)
    for value, wanted in zip(layer.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5)


def _gradient_of_squared_gradient(layer, x):
    """By x, of the squared norm of the gradient of sum(outputs³)."""
    if BACKEND == "jax":
        import jax

        def loss(x):
            with keras.StatelessScope():
                return (layer(x, training=True) ** 3).sum()

        return jax.jit(jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum()))(x)
    import tensorflow as tf

    v = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(v)
        with tf.GradientTape() as inner:
            inner.watch(v)
            loss = tf.reduce_sum(layer(v, training=True) ** 3)
        penalty = tf.reduce_sum(inner.gradient(loss, v) ** 2)
    return outer.gradient(penalty, v)


@needs_gradients
def test_second_order_gradient():
    """Against a numerical derivative of the closed-form gradient, in float64."""
    x = _batch((8, CHANNELS), std=1.0)
    layer = BatchNormalization()
    layer.build(x.shape)
    second = ops.convert_to_numpy(_gradient_of_squared_gradient(layer, x))

    def penalty_of(x):
        std = np.sqrt(x.var(0) + 1e-5)
        normal = (x - x.mean(0)) / std
        up = 3 * normal**2
        return (((up - up.mean(0) - normal * (up * normal).mean(0)) / std) ** 2).sum()

    for index in [(0, 0), (3, 2), (7, 5)]:
        step = np.zeros(x.shape)
        step[index] = 1e-5
        wide = x.astype("float64")
        numerical = (penalty_of(wide + step) - penalty_of(wide - step)) / 2e-5
        np.testing.assert_allclose(second[index], numerical, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_bfloat16_keeps_float32_statistics(policy):
    x = _batch((8, 6, 6, CHANNELS))
    gamma, beta, moving_mean, moving_variance = _parameters()
    layer = _layer(x.shape, dtype=policy)
    y = layer(ops.cast(x, "bfloat16"), training=True)
    assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    rounded = ops.convert_to_numpy(ops.cast(ops.cast(x, "bfloat16"), "float32")).astype("float64")
    mean, variance = rounded.mean((0, 1, 2)), rounded.var((0, 1, 2))
    expected = _normalized(rounded, mean, variance, gamma, beta)
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(y, "float32")), expected, atol=0.04)
    if policy == "mixed_bfloat16":
        np.testing.assert_allclose(layer.moving_mean, moving_mean * 0.9 + mean * 0.1, rtol=2e-5)
        np.testing.assert_allclose(
            layer.moving_variance, moving_variance * 0.9 + variance * 0.1, rtol=2e-5
        )


@needs_tensorflow
def test_float64_is_not_narrowed():
    x = _batch((16, 3, CHANNELS)).astype("float64") + 1000
    y = ops.convert_to_numpy(BatchNormalization(dtype="float64")(x, training=True))
    expected = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-11)


@pytest.mark.parametrize("channels", [1, CHANNELS])
def test_mask_excludes_positions(channels):
    if channels == 1 and BACKEND not in ("tensorflow", "jax"):
        pytest.skip("Keras' own masked moments lose the channel axis if it has length 1")
    x = _batch((4, 7, channels))
    mask = np.random.default_rng(4).random((4, 7)) < 0.6
    layer = BatchNormalization()
    y = ops.convert_to_numpy(layer(x, training=True, mask=ops.convert_to_tensor(mask)))
    mean, variance = x[mask].mean(0), x[mask].var(0)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance, rtol=1e-4)


def test_mask_of_wrong_rank_is_refused():
    with pytest.raises(ValueError, match=r"mask\.shape=.*4, 7, 6"):
        BatchNormalization()(_batch((4, 7, 6)), training=True, mask=np.ones((4, 7, 6), bool))


def test_mask_comes_from_the_layer_before():
    tokens = keras.Input((5,), dtype="int32")
    embedded = keras.layers.Embedding(4, 3, mask_zero=True)(tokens)
    model = keras.Model(tokens, BatchNormalization(name="norm")(embedded))
    batch = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]])
    model(batch, training=True)
    table = ops.convert_to_numpy(model.layers[1].embeddings)
    mean = table[[1, 2, 3]].mean(0)
    np.testing.assert_allclose(model.get_layer("norm").moving_mean, 0.1 * mean, rtol=1e-5)


def test_one_value_a_channel():
    layer = BatchNormalization()
    y = layer(np.full((1, 1, 1, 2), 5.0, "float32"), training=True)
    np.testing.assert_allclose(ops.convert_to_numpy(y), 0, atol=1e-6)
    np.testing.assert_allclose(layer.moving_mean, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [0.9, 0.9], rtol=1e-6)


@needs_tensorflow
@pytest.mark.parametrize("dynamic", [False, True])
def test_batch_without_examples_leaves_the_statistics(dynamic):
    import tensorflow as tf

    layer = _layer((0, 2, 2, CHANNELS))
    before = layer.get_weights()
    run = tf.function(
        lambda x: layer(x, training=True),
        input_signature=[tf.TensorSpec([None if dynamic else 0, 2, 2, CHANNELS])],
    )
    assert run(tf.zeros([0, 2, 2, CHANNELS])).shape == (0, 2, 2, CHANNELS)
    for value, wanted in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, wanted)


@needs_tensorflow
@pytest.mark.parametrize("ratio", [10, 1000])
def test_variance_survives_a_large_mean(ratio):
    x = _batch((16, 14, 14, CHANNELS), mean=ratio, std=1.0)
    layer = BatchNormalization(momentum=0.0)
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_variance, x.astype("float64").var((0, 1, 2)), rtol=2e-5)


@needs_gradients
def test_frozen_layer_runs_in_inference_mode_and_passes_gradients():
    x, upstream = _batch((3, 4, 4, CHANNELS)), _batch((3, 4, 4, CHANNELS), seed=2)
    layer = _layer(x.shape)
    before = layer.get_weights()
    layer.trainable = False
    y, dx, _, _ = _training_step(layer, x, upstream)
    gamma, beta, mean, variance = _parameters()
    np.testing.assert_allclose(y, _normalized(x, mean, variance, gamma, beta), atol=1e-5)
    np.testing.assert_allclose(dx, upstream * gamma / np.sqrt(variance + 1e-5), rtol=1e-5)
    for value, wanted in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_configuration_and_saved_model_round_trip(tmp_path):
    inputs = keras.Input((4, 4, 3))
    outputs = BatchNormalization(epsilon=1e-4, synchronized=False, name="norm")(inputs)
    model = keras.Model(inputs, outputs)
    x = _batch((2, 4, 4, 3))
    model(x, training=True)
    config = model.get_layer("norm").get_config()
    assert set(config) == set(keras.layers.BatchNormalization(name="norm").get_config())
    assert BatchNormalization.from_config(config).get_config() == config
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.get_layer("norm")) is BatchNormalization
    np.testing.assert_array_equal(ops.convert_to_numpy(again(x)), ops.convert_to_numpy(model(x)))
    assert keras.saving.get_registered_name(BatchNormalization) == "keras_resnet>BatchNormalization"


@pytest.mark.parametrize("scope", [contextlib.nullcontext, keras.RematScope])
def test_fit_updates_the_statistics_once_a_step(scope):
    with scope():
        norm = BatchNormalization(name="norm")
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(norm(inputs)))
    x = _batch((8, 4, 4, 3))
    model.compile("sgd", "mse", jit_compile=False)
    model.fit(x, np.zeros((8, 3), "float32"), batch_size=8, epochs=1, verbose=0)
    np.testing.assert_allclose(
        model.get_layer("norm").moving_mean, 0.1 * x.mean((0, 1, 2)), rtol=1e-4
    )


def test_renorm_stays_that_of_keras():
    try:
        theirs = keras.layers.BatchNormalization(renorm=True, momentum=0.9, epsilon=1e-5)
    except (TypeError, ValueError):
        pytest.skip("this version of Keras has no renorm")
    ours, x = BatchNormalization(renorm=True), _batch((8, CHANNELS))
    for _ in range(2):
        y, expected = ours(x, training=True), theirs(x, training=True)
    np.testing.assert_allclose(ops.convert_to_numpy(y), ops.convert_to_numpy(expected), rtol=1e-5)
