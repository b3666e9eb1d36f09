"""The rewritten training call against the plain one, on every backend: the same numbers."""

import concurrent.futures
import contextlib

import keras
import numpy as np
import pytest
from model_helpers import randomize, small

from keras_resnet import create_model
from keras_resnet.errors import UsageError
from keras_resnet.fused import Form, FusedNode, describe, form_for, fused_nodes, training_as
from keras_resnet.layers.keras_internals import nodes_in_running_order

BACKEND = keras.backend.backend()
if BACKEND not in ("tensorflow", "jax"):
    pytest.skip("TensorFlow and JAX have a rewritten step", allow_module_level=True)

ON_JAX = BACKEND == "jax"
EVERYTHING = Form(True, True, blocks_stem=ON_JAX, joins_relu=ON_JAX, sums_by_products=True)


def step_of(model, images, form):
    """Loss, gradients by name, and what the step left in the other variables."""
    labels = np.arange(len(images)) % model.outputs[0].shape[-1]
    start = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    try:
        with _exact_products(), training_as(model, form):
            return (
                _step_on_jax(model, images, labels)
                if BACKEND == "jax"
                else _step_on_tensorflow(model, images, labels)
            )
    finally:
        for variable, value in zip(model.variables, start, strict=True):
            variable.assign(value)


@contextlib.contextmanager
def _exact_products():
    if BACKEND != "jax":
        yield
        return
    import jax

    with jax.default_matmul_precision("highest"):
        yield


def _step_on_jax(model, images, labels):
    import jax

    trained = [variable.value for variable in model.trainable_variables]
    rest = [variable.value for variable in model.non_trainable_variables]

    def loss_of(trained):
        logits, after = model.stateless_call(trained, rest, images, training=True)
        logs = jax.nn.log_softmax(logits.astype("float32"))
        return -logs[np.arange(len(labels)), labels].mean(), after

    (loss, after), gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(trained)
    return (
        float(loss),
        _named(model.trainable_variables, gradients),
        [np.asarray(jax.random.key_data(v) if v.dtype == "key" else v) for v in after],
    )


def _step_on_tensorflow(model, images, labels):
    import tensorflow as tf

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            logits = tf.cast(model(images, training=True), "float32")
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    loss, gradients = step()
    after = [variable.numpy() for variable in model.non_trainable_variables]
    return float(loss), _named(model.trainable_variables, gradients), after


def _named(variables, gradients):
    return {v.path: np.asarray(g) for v, g in zip(variables, gradients, strict=True)}


def fused_in(model):
    """The names of the layers of each rewrite."""
    form = Form(gram=True, pools_first=True)
    nodes = fused_nodes(nodes_in_running_order(model), model.outputs, form)
    return [[o.name for o in n.operations] for n in nodes if isinstance(n, FusedNode)]


def images_for(model, seed, batch=4):
    shape = [16 if size is None else size for size in model.inputs[0].shape[1:]]
    return np.random.default_rng(seed).normal(size=(batch, *shape)).astype("float32")


def difference(model, form=EVERYTHING):
    """The largest relative difference of a gradient, the loss and a statistic.

    Where a sum is within rounding of zero it may fall on either side of ReLU: of three batches the
    best counts, which no wrong formula passes.
    """
    found = []
    for batch in range(3):
        images = images_for(model, batch)
        plain, fused = (step_of(model, images, each) for each in (None, form))
        by_gradient = [_relative(fused[1][name], plain[1][name]) for name in plain[1]]
        by_state = [_relative(a, b) for a, b in zip(fused[2], plain[2], strict=True)]
        found.append((max(by_gradient), abs(fused[0] / plain[0] - 1), max(by_state, default=0.0)))
        if max(found[-1]) < 1e-5:
            break
    return min(found)


def _relative(found, expected):
    largest = np.abs(expected.astype(np.float64)).max(initial=0)
    return np.abs(found.astype(np.float64) - expected).max(initial=0) / max(largest, 1e-6)


NETWORKS = {
    "ResNet50": ("ResNet50", {}, 4),
    "average pool before the projection": ("ResNet50", {"shortcut": "D"}, 4),
    "deep stem, stochastic depth": ("ResNet50D", {"drop_path_rate": 0.4}, 4),
    "SE ends the pattern": ("SEResNet50", {}, 4),
    "grouped": ("ResNeXt50_32x4d", {"groups": 4}, 4),
    "no shortcut": ("ResNet50", {"residual": False}, 4),
    "other activation": ("ResNet50", {"activation": "silu"}, 3),
    "rematerialized": ("ResNet50", {"rematerialize": True, "drop_path_rate": 0.2}, 4),
    "blurred": ("ResNetBlur50", {}, 3),
    "averaged": ("ResNet50", {"antialias": "average"}, 3),
    "sound": ("ResNet50", {"input_shape": (64, 2)}, 4),
    "video": ("ResNet50", {"input_shape": (32, 32, 32, 1)}, 4),
    "epsilon, momentum": ("ResNet50", {"norm": {"epsilon": 1e-3, "momentum": 0.5}}, 4),
    "bottlenecks without a pool": ("CifarResNet20", {"block": "bottleneck"}, 3),
}


IN_EVERY_RUN = ("ResNet50", "deep stem, stochastic depth", "SE ends the pattern")


@pytest.mark.parametrize(
    "name", [n if n in IN_EVERY_RUN else pytest.param(n, marks=pytest.mark.ci) for n in NETWORKS]
)
def test_it_computes_what_the_plain_step_computes(name):
    """Loss, every gradient, every moving statistic and seed, gammas of either sign."""
    variant, options, count = NETWORKS[name]
    sizes = {"depths": (1, 2), "widths": (16, 32)}
    model = randomize(small(variant, classifier_activation=None, **sizes, **options))
    gamma = next(v for v in model.weights if "stem" in v.path and v.path.endswith("gamma"))
    gamma.assign(gamma * np.where(np.arange(gamma.shape[0]) % 3, 1, -1))
    assert len(fused_in(model)) == count
    gradient, loss, state = difference(model)
    assert max(loss, state) < 1e-5
    assert gradient < 5e-5


def test_what_the_pattern_takes_together():
    model = small("ResNet50", classifier_activation=None)
    assert fused_in(model)[0] == ["stem_conv", "stem_norm", "stem_act", "stem_pool"]
    parts = ["norm2", "act2", "shortcut_conv", "conv3", "shortcut_norm", "norm3", "add", "out"]
    assert sorted(fused_in(model)[2]) == sorted(f"stage2_block1_{part}" for part in parts)
    names = [name for group in fused_in(model) for name in group]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        ("ResNet50V2", {}),
        ("CifarResNet20", {}),
        ("ResNet50", {"norm_layer": "group"}),
        ("ResNet50", {"use_bias": True}),
        ("ResNet50", {"data_format": "channels_first"}),
        ("ResNet50", {"dtype": "mixed_float16"}),
    ],
)
def test_elsewhere_nothing_changes(variant, options):
    model = (
        small(variant, classifier_activation=None, **options)
        if ("data_format" not in options)
        else small(variant, classifier_activation=None, input_shape=(3, 32, 32), **options)
    )
    assert form_for(model, "auto", "TPU", BACKEND) is None
    with pytest.raises(UsageError, match="nothing that can be fused"):
        form_for(model, "always", "TPU", BACKEND)


def test_layers_of_different_types_stay_plain():
    model = small("ResNet50", dtype="mixed_bfloat16", depths=(1, 1), widths=(16, 32))
    before = fused_in(model)
    for name in ("stem_act", "stage1_block1_norm3", "stage2_block1_add"):
        model.get_layer(name).dtype_policy = keras.DTypePolicy("float32")
        (group,) = (group for group in before if name in group)
        before.remove(group)
        assert fused_in(model) == before


@pytest.mark.ci
def test_frozen_parts_stay_plain():
    model = small("ResNet50", classifier_activation=None)
    whole = len(fused_in(model))
    model.get_layer("stage2_block2_norm3").trainable = False
    model.get_layer("stem_norm").trainable = False
    model.get_layer("stage2_block1_norm2").trainable = False  # taken as it comes
    groups = fused_in(model)
    assert len(groups) == whole - 2
    assert "stage2_block1_act2" not in [name for group in groups for name in group]
    gradient, loss, state = difference(randomize(model))
    assert max(loss, state) < 1e-5
    assert gradient < 5e-5
    model.trainable = False
    assert fused_in(model) == []
    assert form_for(model, "always", "TPU", BACKEND) is None


def test_what_is_read_elsewhere_stays():
    model = small("ResNet50", classifier_activation=None)
    inside = model.get_layer("stage2_block2_norm3").output
    outer = keras.Model(model.input, [model.output, inside])
    names = [name for group in fused_in(outer) for name in group]
    assert "stage2_block2_norm3" in names  # what is read is what comes out
    assert "stage2_block2_add" not in names
    assert "stage2_block1_add" in names


def test_auto_is_where_it_was_measured():
    model = small("ResNet50", dtype="mixed_bfloat16")
    assert form_for(model, "auto", "TPU", "jax").gram
    assert form_for(model, "auto", "TPU", "tensorflow").gram
    on_gpu = Form(pools_first=True, blocks_stem=True, joins_relu=True)
    assert form_for(model, "auto", "GPU", "jax") == on_gpu
    assert form_for(model, "auto", "CPU", "jax") is None
    assert form_for(model, "never", "TPU", "jax") is None
    assert form_for(small("ResNet50"), "auto", "TPU", "jax") is None
    assert describe(None) == "plain"
    assert describe(EVERYTHING).startswith("fused: statistics of 1×1 convolutions")


def test_it_is_no_part_of_the_model(tmp_path):
    model = small("ResNet50", classifier_activation=None)
    config = model.get_config()
    with training_as(model, EVERYTHING):
        assert model.get_config() == config
        model.save(tmp_path / "model.keras")
        assert keras.models.clone_model(model).training_form is None
    assert model.training_form is None
    assert keras.models.load_model(tmp_path / "model.keras").training_form is None


def test_a_model_around_the_network_has_no_form():
    """Its call is Keras' own, which knows of none."""
    inner = small("ResNet50", include_top=False, depths=(1,), widths=(16,))
    model = keras.Model(inner.input, keras.layers.Flatten()(inner.output))
    with training_as(model, None):
        assert form_for(model, "auto", "CPU", BACKEND) is None
    with pytest.raises(UsageError, match="has nothing that can be fused"):
        form_for(model, "always", "CPU", BACKEND)


def test_threads_that_take_turns_leave_no_form():
    """As tf.distribute traces replicas: the first one leaves while the second is inside."""
    model = small("ResNet50", depths=(1,), widths=(16,))
    first, second = training_as(model, EVERYTHING), training_as(model, EVERYTHING)
    pool = concurrent.futures.ThreadPoolExecutor
    with pool(1) as one, pool(1) as other:
        one.submit(first.__enter__).result()
        other.submit(second.__enter__).result()
        one.submit(first.__exit__, None, None, None).result()
        assert other.submit(lambda: model.training_form).result() == EVERYTHING
        other.submit(second.__exit__, None, None, None).result()
        assert one.submit(lambda: model.training_form).result() is None
        assert other.submit(lambda: model.training_form).result() is None
    assert model.training_form is None


@pytest.mark.parametrize("prologue", [True, False])
def test_variances_where_means_are_large(prologue):
    """Means of 100 deviations: the squares of the means are 10,000 times the variances."""
    inputs = keras.Input((16, 16, 8))
    x = keras.layers.Conv2D(8, 1, use_bias=False, name="conv2")(inputs)
    from keras_resnet.layers import BatchNormalization

    if prologue:
        x = BatchNormalization(name="norm2")(x)
        x = keras.layers.Activation("relu")(x)
    x = keras.layers.Conv2D(32, 1, use_bias=False, name="conv3")(x)
    x = BatchNormalization(name="norm3", momentum=0.0)(x)
    model = keras.Model(inputs, keras.layers.Activation("relu")(x))
    rng = np.random.default_rng(0)
    if prologue:
        model.get_layer("norm2").beta.assign(np.full(8, 100.0))
    model.get_layer("conv2").kernel.assign(np.eye(8)[None, None])
    images = (rng.normal(size=(8, 16, 16, 8)) + (0 if prologue else 100)).astype("float32")
    nodes = fused_nodes(nodes_in_running_order(model), model.outputs, EVERYTHING)
    assert any(isinstance(node, FusedNode) for node in nodes)
    from keras_resnet.fused import run_nodes

    values = {id(model.inputs[0]): keras.ops.convert_to_tensor(images)}
    run_nodes(nodes, values, training=True)
    rows = images.reshape(-1, 8).astype(np.float64)
    if prologue:
        rows = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) + 100
    kernel = np.asarray(model.get_layer("conv3").kernel, np.float64)[0, 0]
    expected = rows @ kernel
    norm = model.get_layer("norm3")
    found = keras.ops.convert_to_numpy(norm.moving_variance)
    np.testing.assert_allclose(found, expected.var(0), rtol=2e-4)
    mean = keras.ops.convert_to_numpy(norm.moving_mean)
    np.testing.assert_allclose(mean, expected.mean(0), rtol=1e-4, atol=1e-4)
    output = keras.ops.convert_to_numpy(values[id(model.outputs[0])]).reshape(-1, 32)
    normalized = (expected - expected.mean(0)) / np.sqrt(expected.var(0) + 1e-5)
    np.testing.assert_allclose(output, np.maximum(normalized, 0), atol=2e-3)


@pytest.mark.parametrize(
    "dtype", ["mixed_bfloat16", pytest.param("bfloat16", marks=pytest.mark.ci)]
)
def test_bfloat16_is_as_near_to_float32_as_the_plain_step(dtype):
    """Gradients of both in bfloat16 against those in float32, over all of them together."""
    options = {"classifier_activation": None, "depths": (1, 1), "widths": (16, 32)}
    exact = randomize(create_model("ResNet50", input_shape=(32, 32, 3), classes=5, **options))
    model = create_model("ResNet50", input_shape=(32, 32, 3), classes=5, dtype=dtype, **options)
    model.set_weights(exact.get_weights())
    images = images_for(model, 0, batch=16)
    expected = step_of(exact, images, None)[1]

    def error(form):
        found = step_of(model, images, form)[1]
        over = sum(np.sum((found[n].astype("float32") - expected[n]) ** 2) for n in expected)
        return np.sqrt(over / sum(np.sum(value**2) for value in expected.values()))

    plain, fused = error(None), error(EVERYTHING)
    assert 0 < fused < 1.5 * plain
