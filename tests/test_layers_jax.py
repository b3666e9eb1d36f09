"""Layers as the JAX backend runs them: against Keras' layers, on one device and on replicas."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "jax":
    pytest.skip("forms for JAX", allow_module_level=True)

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from keras_resnet.layers import (
    BatchNormalization,
    PaddedMaxPool,
    StochasticDepth,
    current_replica_axis,
    replica_axis,
)
from keras_resnet.layers.jax_max_pool import _gather_gradient, _max_pool, _plain_max_pool

CHANNELS, REPLICAS = 6, 4
SHAPES = {2: (24, CHANNELS), 3: (5, 7, CHANNELS), 4: (3, 4, 5, CHANNELS), 5: (2, 3, 2, 4, CHANNELS)}


def _batch(shape, seed=0, mean=2.0, std=3.0):
    return (np.random.default_rng(seed).normal(size=shape) * std + mean).astype("float32")


def _layer(shape, cls=BatchNormalization, **kwargs):
    layer = cls(**kwargs)
    layer.build(shape)
    channels = shape[layer.axis]
    rng = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=channels))
    layer.moving_mean.assign(rng.normal(size=channels))
    layer.moving_variance.assign(rng.uniform(0.5, 2, channels))
    return layer


def _loss(layer, **call):
    """(trained values, inputs, weights of the outputs) -> loss, (outputs, moving statistics)."""
    state = [variable.value for variable in layer.non_trainable_variables]

    def loss(trained, x, weights):
        y, updated = layer.stateless_call(trained, state, x, training=True, **call)
        return (y.astype(jnp.float32) * weights).sum(), (y, updated)

    return loss


def _step(layer, **call):
    """The same -> (by trained values, by inputs), (outputs, moving statistics)."""
    return jax.grad(_loss(layer, **call), (0, 1), has_aux=True)


def _trained(layer):
    return [variable.value for variable in layer.trainable_variables]


def _assert_same(results, expected, rtol=1e-5, atol=1e-5):
    results, expected = jax.tree.leaves(results), jax.tree.leaves(expected)
    for value, wanted in zip(results, expected, strict=True):
        scale = max(1.0, float(abs(wanted).max())) if wanted.size else 1.0
        np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol * scale)


def _on_replicas(function, out_specs):
    """`function` of (whole, split, split) mapped over the devices, told of their axis."""

    def replica(*args):
        with replica_axis("data"):
            return function(*args)

    split, whole = PartitionSpec("data"), PartitionSpec()
    mesh = Mesh(np.array(jax.devices()[:REPLICAS]), ("data",))
    return jax.jit(
        jax.shard_map(
            replica,
            mesh=mesh,
            in_specs=(whole, split, split),
            out_specs=out_specs,
            check_vma=False,
        )
    )


def test_the_axis_of_the_replicas_is_that_of_the_innermost_scope():
    assert current_replica_axis() is None
    with replica_axis("data"):
        assert current_replica_axis() == "data"
        with replica_axis(None):
            assert current_replica_axis() is None
        assert current_replica_axis() == "data"
    assert current_replica_axis() is None


@pytest.mark.parametrize("rank", SHAPES)
def test_batch_normalization_is_keras_s_in_any_rank(rank):
    x, weights = _batch(SHAPES[rank]), _batch(SHAPES[rank], seed=5, mean=0.5)
    ours, theirs = (
        _layer(x.shape, cls, momentum=0.9, epsilon=1e-5)
        for cls in (BatchNormalization, keras.layers.BatchNormalization)
    )
    arguments = _trained(ours), x, weights
    _assert_same(jax.jit(_step(ours))(*arguments), jax.jit(_step(theirs))(*arguments))


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize(("scale", "center"), [(True, False), (False, True), (False, False)])
def test_batch_normalization_is_keras_s_on_any_axis(axis, scale, center):
    x = np.moveaxis(_batch((3, 4, 5, CHANNELS)), -1, axis)
    ours, theirs = (
        _layer(x.shape, cls, axis=axis, momentum=0.8, epsilon=1e-4, scale=scale, center=center)
        for cls in (BatchNormalization, keras.layers.BatchNormalization)
    )
    arguments = _trained(ours), x, _batch(x.shape, seed=5)
    _assert_same(jax.jit(_step(ours))(*arguments), jax.jit(_step(theirs))(*arguments))


def test_float64_keeps_its_digits():
    with jax.enable_x64(True):
        x = _batch((16, 3, CHANNELS)).astype("float64") + 1000
        layer = BatchNormalization(dtype="float64")
        y = layer(x, training=True)
        assert y.dtype == jnp.float64
        expected = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5)
        np.testing.assert_allclose(y, expected, atol=1e-11)


def test_precision_of_the_variance():
    """100 deviations from zero: the error grows with the square of the distance to the shift."""
    x = _batch((16, 14, 14, CHANNELS), mean=100, std=1.0)
    wide = x.astype("float64")
    expected = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    for moving_mean, tolerance in ((0.0, 5e-3), (95.0, 3e-5)):
        layer = BatchNormalization(momentum=0.0)
        layer.build(x.shape)
        layer.moving_mean.assign(np.full(CHANNELS, moving_mean))
        y = jax.jit(_step(layer))(_trained(layer), x, x)[1][0]
        np.testing.assert_allclose(y, expected, atol=4 * tolerance)  # up to 4 deviations
    variances = []
    for seed in range(20):  # of the differences of squares many are negative
        constant = np.full((3, 7, 1, CHANNELS), 1 + seed / 7, "float32")
        assert abs(layer(constant, training=True)).max() < 1
        variances.append(np.array(layer.moving_variance))
    assert np.min(variances) == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_backward_pass_keeps_no_wide_copy(dtype):
    x = _batch((8, 6, 6, CHANNELS)).astype(dtype)
    layer = _layer(x.shape, dtype=f"mixed_{dtype}")

    def forward(x):
        return layer.stateless_call(
            _trained(layer), [v.value for v in layer.non_trainable_variables], x, training=True
        )[0]

    y, pull = jax.vjp(forward, x)
    kept = sorted((leaf.dtype.name, leaf.size) for leaf in jax.tree.leaves(pull))
    assert [name for name, size in kept if size >= x.size] == [dtype]
    assert pull(y)[0].dtype == dtype
    # What the rounding of inputs, outputs and upstream leaves of it; float32 has the same gradient.
    wide = jax.vjp(
        lambda x: _layer(x.shape).stateless_call(
            _trained(layer), [v.value for v in layer.non_trainable_variables], x, training=True
        )[0],
        x.astype("float32"),
    )[1](y.astype("float32"))[0]
    np.testing.assert_allclose(pull(y)[0].astype("float32"), wide, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_synchronized_replicas_are_one_batch(dtype, masked):
    with jax.enable_x64(dtype == "float64"):
        x, weights = (_batch((8, 5, CHANNELS), seed).astype(dtype) for seed in (0, 3))
        mask = np.random.default_rng(4).random((8, 5)) < 0.5 if masked else None
        alone, together = (
            _layer(x.shape, synchronized=synchronized, dtype=dtype)
            for synchronized in (False, True)
        )
        trained = _trained(alone)
        expected = jax.jit(_step(alone, mask=mask))(trained, x, weights)

        def step(trained, x_and_mask, weights):
            x, mask = x_and_mask
            (by_trained, by_x), (y, updated) = _step(together, mask=mask)(trained, x, weights)
            return (jax.lax.psum(by_trained, "data"), by_x), (y, updated)

        whole, split = PartitionSpec(), PartitionSpec("data")
        results = _on_replicas(step, ((whole, split), (split, whole)))(trained, (x, mask), weights)
        _assert_same(results, expected)


def test_other_replicas_normalize_by_their_own_statistics():
    x, weights = _batch((8, 3, CHANNELS)), _batch((8, 3, CHANNELS), seed=3)
    layer = _layer(x.shape)
    split = PartitionSpec("data")
    results = _on_replicas(
        lambda *args: jax.tree.map(lambda value: value[None], _step(layer)(*args)), split
    )(_trained(layer), x, weights)
    step = jax.jit(_step(layer))
    for replica in range(REPLICAS):
        part = slice(2 * replica, 2 * replica + 2)
        expected = step(_trained(layer), x[part], weights[part])
        _assert_same(jax.tree.map(lambda value, i=replica: value[i], results), expected)


def test_a_batch_that_jit_has_sharded_is_one_batch():
    x = _batch((8, 3, CHANNELS))
    layer = _layer(x.shape, synchronized=True)
    expected = jax.jit(_step(layer))(_trained(layer), x, x)
    mesh = Mesh(np.array(jax.devices()[:REPLICAS]), ("data",))
    split = jax.device_put(x, jax.sharding.NamedSharding(mesh, PartitionSpec("data")))
    _assert_same(jax.jit(_step(layer))(_trained(layer), split, split), expected)


def test_synchronized_is_kept_in_configurations_and_files(tmp_path):
    inputs = keras.Input((4, CHANNELS))
    model = keras.Model(inputs, BatchNormalization(synchronized=True, name="norm")(inputs))
    model.save(tmp_path / "model.keras")
    for copy in (
        keras.models.load_model(tmp_path / "model.keras"),
        keras.models.clone_model(model),
    ):
        assert copy.get_layer("norm").synchronized
        assert copy.get_layer("norm").get_config() == model.get_layer("norm").get_config()


def test_a_batch_without_examples_leaves_the_statistics():
    layer = _layer((0, 2, 2, CHANNELS))
    before = layer.get_weights()
    y = layer(np.zeros((0, 2, 2, CHANNELS), "float32"), training=True)
    assert y.shape == (0, 2, 2, CHANNELS)
    nothing_counts = np.zeros((1, 2, 2), bool)
    y = layer(_batch((1, 2, 2, CHANNELS)), training=True, mask=nothing_counts)
    assert np.isfinite(y).all()
    for value, wanted in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, wanted)


def test_recomputed_it_has_the_same_gradient():
    x, weights = _batch((8, 3, CHANNELS)), _batch((8, 3, CHANNELS), seed=3)
    layer = _layer(x.shape)
    expected = jax.jit(_step(layer))(_trained(layer), x, weights)
    again = jax.grad(jax.checkpoint(_loss(layer)), (0, 1), has_aux=True)
    _assert_same(jax.jit(again)(_trained(layer), x, weights), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("zero_pad", [False, True])
@pytest.mark.parametrize("padding", ["symmetric", "end"])
def test_max_pool_has_no_padded_copy_and_its_gradient(padding, zero_pad):
    x = _batch((2, 9, 6, 4), mean=-1.0)
    layer = PaddedMaxPool(zero_pad, padding=padding)
    weights = _batch(layer.compute_output_shape(x.shape), seed=2)
    assert " pad[" not in str(jax.make_jaxpr(layer)(x))
    sides = (1, 1) if padding == "symmetric" else (0, 1)
    border = 0.0 if zero_pad and padding == "symmetric" else -np.inf

    def copied(x):
        x = jnp.pad(x, [(0, 0), sides, sides, (0, 0)], constant_values=border)
        return keras.ops.max_pool(x, 3, 2, "valid", "channels_last")

    for pool in (layer, copied):
        np.testing.assert_array_equal(pool(x), copied(x))
    ours, theirs = (
        jax.jit(jax.grad(lambda x, pool=pool: (pool(x) * weights).sum()))(x)
        for pool in (layer, copied)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert np.count_nonzero(ours)


def test_max_pool_reads_no_border_as_a_tpu_compiles_it():
    """No copy in the gradient either: what JAX lowers for a TPU, which needs none here."""
    x = jnp.zeros((2, 9, 6, 4), jnp.bfloat16)
    layer = PaddedMaxPool(zero_pad=True)
    gradient = jax.jit(jax.grad(lambda x: layer(x).astype(jnp.float32).sum()))
    text = gradient.trace(x).lower(lowering_platforms=("tpu",)).as_text()
    assert "select_and_scatter" in text
    assert "stablehlo.pad" not in text


POOLS = {  # shape; size, stride and border of every axis
    "signal": ((2, 9, 3), (1, 3, 1), (1, 2, 1), ((0, 0), (1, 1), (0, 0))),
    "stem": ((2, 9, 6, 4), (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))),
    "end": ((2, 9, 6, 4), (1, 3, 2, 1), (1, 1, 3, 1), ((0, 0), (0, 1), (0, 2), (0, 0))),
    "gaps": ((2, 2, 10, 4), (1, 5, 2, 1), (1, 2, 4, 1), ((0, 0), (2, 2), (0, 3), (0, 0))),
    "channels first": ((2, 4, 8, 7), (1, 1, 3, 3), (1, 1, 2, 2), ((0, 0), (0, 0), (1, 1), (1, 1))),
    "volume": (
        (2, 5, 6, 7, 3),
        (1, 3, 3, 3, 1),
        (1, 2, 2, 2, 1),
        ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)),
    ),
    "no examples": ((0, 5, 6, 3), (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))),
}


@pytest.mark.parametrize("kind", ["normal", "relu", "ties", "constant", "zeros of both signs"])
@pytest.mark.parametrize("pool", POOLS)
def test_max_pool_s_gathering_gradient_is_jax_s(pool, kind):
    shape, *windows = POOLS[pool]
    rng = np.random.default_rng(0)
    x = {
        "normal": lambda: rng.normal(size=shape),
        "relu": lambda: np.maximum(rng.normal(size=shape) - 0.5, 0),
        "ties": lambda: rng.integers(0, 3, shape),
        "constant": lambda: np.full(shape, -2.0),
        "zeros of both signs": lambda: np.where(rng.random(shape) < 0.5, -0.0, 0.0),
    }[kind]()
    x = jnp.asarray(x, "float32")
    y, pull = jax.vjp(lambda x: _plain_max_pool(x, *windows), x)
    upstream = jnp.asarray(rng.normal(size=y.shape), "float32")
    gather = jax.jit(lambda *arrays: _gather_gradient(*windows, *arrays))
    np.testing.assert_array_equal(gather(x, y, upstream), pull(upstream)[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_max_pool_s_gradient_on_a_gpu_rounds_its_sum_once(dtype):
    shape, *windows = POOLS["stem"]
    x = jnp.asarray(np.maximum(_batch(shape, mean=-1.0), 0), dtype)
    y, pull = jax.vjp(lambda x: _plain_max_pool(x, *windows), x.astype("float32"))
    upstream = jnp.asarray(_batch(y.shape, seed=2), dtype)
    narrow = _gather_gradient(*windows, x, y.astype(dtype), upstream)
    assert narrow.dtype == dtype
    (expected,) = pull(upstream.astype("float32"))
    np.testing.assert_array_equal(narrow, expected.astype(dtype))


@pytest.mark.parametrize(
    ("platform", "scatters"), [("cpu", False), ("tpu", True), ("cuda", False), ("rocm", False)]
)
@pytest.mark.parametrize("replicas", [False, True])
def test_max_pool_s_gradient_is_that_of_its_platform(platform, scatters, replicas):
    """Each has one form alone in what is handed to its compiler."""
    x, windows = POOLS["stem"][0], POOLS["stem"][1:]
    gradient = jax.grad(lambda x: (_max_pool(x, *windows) ** 2).sum())
    if replicas:
        mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
        split = PartitionSpec("data")
        gradient = jax.shard_map(gradient, mesh=mesh, in_specs=split, out_specs=split)
    traced = jax.jit(gradient).trace(jax.ShapeDtypeStruct(x, "float32"))
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert ("select_and_scatter" in text) == scatters
    assert ("optimization_barrier" in text) != scatters


def test_max_pool_s_gradient_of_large_windows_is_the_scatter_everywhere():
    pool = lambda x: _max_pool(x, (1, 9, 9, 1), (1, 1, 1, 1), ((0, 0),) * 4).sum()  # noqa: E731
    traced = jax.jit(jax.grad(pool)).trace(jax.ShapeDtypeStruct((1, 12, 12, 2), "float32"))
    assert "select_and_scatter" in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_max_pool_s_second_derivatives():
    """Those of a sum of squares: twice the number of windows that each input has won."""
    shape, *windows = POOLS["stem"]
    x = jnp.asarray(np.random.default_rng(0).permutation(np.prod(shape)).reshape(shape), "float32")
    _, pull = jax.vjp(lambda x: _plain_max_pool(x, *windows), x)
    won = pull(jnp.ones_like(_plain_max_pool(x, *windows)))[0]

    def on_gpu(x):
        y = _plain_max_pool(x, *windows)
        return _gather_gradient(*windows, x, y, 2 * y)

    for gradient in (jax.grad(lambda x: (_max_pool(x, *windows) ** 2).sum()), on_gpu):
        _, tangent = jax.jvp(gradient, (x,), (jnp.ones_like(x),))
        np.testing.assert_array_equal(tangent, 2 * won)


def test_stochastic_depth_draws_on_each_replica_on_its_own():
    x = np.ones((REPLICAS * 64, 2), "float32")

    def drawn(layer):
        state = [variable.value for variable in layer.non_trainable_variables]
        run = lambda _, x, __: layer.stateless_call([], state, x, training=True)  # noqa: E731
        split, whole = PartitionSpec("data"), PartitionSpec()
        return _on_replicas(run, (split, whole))(x[0], x, x)

    y, (state,) = drawn(StochasticDepth(0.5, seed=1))
    parts = np.array(y)[:, 0].reshape(REPLICAS, 64)
    assert len({part.tobytes() for part in parts}) == REPLICAS
    assert abs((parts > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(parts.size)
    alone = StochasticDepth(0.5, seed=1)
    np.testing.assert_array_equal(parts[0], np.array(alone(x[:64], training=True))[:, 0])
    np.testing.assert_array_equal(state, alone.seed_generator.state)
