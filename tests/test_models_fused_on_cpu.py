"""The rewritten training call for CPUs with oneDNN (TensorFlow) against the plain one."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from model_helpers import randomize, small

if keras.backend.backend() != "tensorflow":
    pytest.skip("the form for CPUs is TensorFlow's", allow_module_level=True)

import tensorflow as tf
from conftest import mirrored_strategy
from test_models_fused_step import difference, images_for, step_of

from keras_resnet import create_model
from keras_resnet.fused import (
    FusedNode,
    describe,
    form_for,
    fused_nodes,
    run_nodes,
    training_as,
)
from keras_resnet.fused.forms import MEASURED_FASTER
from keras_resnet.fused.onednn_arithmetic import OneDnnArithmetic
from keras_resnet.layers import BatchNormalization
from keras_resnet.layers.keras_internals import nodes_in_running_order

ON_A_CPU = MEASURED_FASTER["tensorflow", "AMX"]
SIZES = {"depths": (1, 2), "widths": (16, 32), "classifier_activation": None}


def fused_in(model):
    nodes = fused_nodes(nodes_in_running_order(model), model.outputs, ON_A_CPU)
    return [[o.name for o in n.operations] for n in nodes if isinstance(n, FusedNode)]


# Variant, options, and how many operations: blocks' ends, and 1×1 convolutions beside them.
NETWORKS = {
    "identity and projection": ("ResNet50", {}, 3, 3),
    "stochastic depth": ("ResNet50D", {"drop_path_rate": 0.4}, 3, 3),
    "SE ends the pattern": ("SEResNet50", {}, 3, 10),
    "no shortcut": ("ResNet50", {"residual": False}, 3, 3),
    "other activation": ("ResNet50", {"activation": "silu"}, 3, 3),
    "rematerialized": ("ResNet50", {"rematerialize": True, "drop_path_rate": 0.2}, 3, 3),
    "few channels": ("ResNet50", {"widths": (4, 8)}, 3, 4),
    "many channels": ("ResNet50", {"widths": (16, 136)}, 2, 5),
    "blurred": ("ResNetBlur50", {}, 3, 3),
    "sound": ("ResNet50", {"input_shape": (64, 2)}, 3, 0),
    "video": ("ResNet50", {"input_shape": (32, 32, 32, 1)}, 3, 0),
    "zeros as channels": ("CifarResNet20", {"block": "bottleneck"}, 1, 5),
    "other normalization": ("ResNet50", {"norm_layer": "layer"}, 0, 7),
}


IN_EVERY_RUN = ("identity and projection", "SE ends the pattern")


@pytest.mark.parametrize(
    "name", [n if n in IN_EVERY_RUN else pytest.param(n, marks=pytest.mark.ci) for n in NETWORKS]
)
def test_it_computes_what_the_plain_step_computes(name):
    variant, options, ends, products = NETWORKS[name]
    model = randomize(small(variant, **{**SIZES, **options}))
    groups = fused_in(model)
    assert [sum(len(g) > 1 for g in groups), sum(len(g) == 1 for g in groups)] == [ends, products]
    gradient, loss, state = difference(model, ON_A_CPU)
    assert max(loss, state) < 1e-5
    assert gradient < 1e-5


def test_biases_of_products():
    """A network of which only 1×1 convolutions are taken; gradients of most biases are zero."""
    model = randomize(small("ResNet50V2", **SIZES))
    assert all(len(group) == 1 for group in fused_in(model))
    assert any(model.get_layer(name).use_bias for (name,) in fused_in(model))
    images = images_for(model, 0)
    plain, fused = (step_of(model, images, form) for form in (None, ON_A_CPU))
    for name, expected in plain[1].items():
        atol = 1e-5 * max(np.abs(expected).max(), 1e-2)
        np.testing.assert_allclose(fused[1][name], expected, rtol=0, atol=atol)


@pytest.mark.ci
def test_twenty_steps_end_where_those_of_the_plain_step_end():
    """Without ReLU: what rounding moves over zero would be seen in the losses steps later."""
    start = randomize(small("ResNet50", activation="silu", **SIZES)).get_weights()

    def train(form):
        model = small("ResNet50", activation="silu", **SIZES)
        model.set_weights(start)
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
        optimizer.build(model.trainable_variables)

        @tf.function(autograph=False)
        def step(images):
            with tf.GradientTape() as tape:
                logits = model(images, training=True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(16) % 5, logits)
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
            optimizer.apply(gradients, model.trainable_variables)
            return loss

        with training_as(model, form):
            losses = [float(step(images_for(model, seed, batch=16))) for seed in range(20)]
        return losses, model.get_weights()

    plain, fused = train(None), train(ON_A_CPU)
    np.testing.assert_allclose(fused[0], plain[0], rtol=1e-5)
    for found, expected in zip(fused[1], plain[1], strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


BFLOAT16 = {
    "identity and projection": ("ResNet50", {}),
    "stochastic depth": ("ResNet50", {"drop_path_rate": 0.4}),
    "SE": ("SEResNet50", {}),
    "no shortcut": ("ResNet50", {"residual": False}),
}


@pytest.mark.ci
@pytest.mark.parametrize("name", BFLOAT16)
def test_bfloat16_is_as_near_to_float32_as_the_plain_step(name):
    """Gradients of both in bfloat16 against those in float32, over all of them together."""
    variant, options = BFLOAT16[name]
    options = {"input_shape": (32, 32, 3), "classes": 5, **SIZES, **options}
    exact = randomize(create_model(variant, **options))
    model = create_model(variant, dtype="mixed_bfloat16", **options)
    for target, source in zip(model.variables, exact.variables, strict=True):
        target.assign(source)  # seeds of stochastic depth as well
    images = images_for(model, 0, batch=16)
    expected = step_of(exact, images, None)

    def error(form):
        found = step_of(model, images, form)
        for value, other in zip(found[2], expected[2], strict=True):
            np.testing.assert_allclose(value, other, rtol=0.05, atol=0.02)
        over = sum(np.sum((found[1][n] - g) ** 2) for n, g in expected[1].items())
        return np.sqrt(over / sum(np.sum(g**2) for g in expected[1].values()))

    plain, fused = error(None), error(ON_A_CPU)
    assert 0 < fused < 1.25 * plain


@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("mixed_bfloat16", 5e-3)])
@pytest.mark.parametrize("mean", [0, 100])
def test_statistics_where_means_are_large(mean, dtype, rtol):
    """Means of 100 deviations: the squares of the means are 10,000 times the variances."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 64))
    x = keras.layers.Conv2D(128, 1, use_bias=False, dtype=dtype, name="conv")(inputs)
    x = BatchNormalization(name="norm", momentum=0.0, dtype=dtype)(x)
    model = keras.Model(inputs, x)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 16, 16, 64)) + rng.normal(size=(8, 1, 1, 64)) + mean
    values = {id(model.inputs[0]): tf.cast(images, "float32")}
    run_nodes(fused_nodes(nodes_in_running_order(model), model.outputs, ON_A_CPU), values, True)

    def rounded(value):
        kind = "bfloat16" if dtype == "mixed_bfloat16" else "float32"
        return np.asarray(tf.cast(tf.cast(value, kind), "float64"))

    kernel = rounded(model.get_layer("conv").kernel)[0, 0]
    expected = rounded(images).reshape(-1, 64) @ kernel
    norm, deviation = model.get_layer("norm"), expected.std(0)
    np.testing.assert_allclose(norm.moving_variance.numpy(), expected.var(0), rtol=rtol)
    off = np.abs(norm.moving_mean.numpy() - expected.mean(0)) / deviation
    assert off.max() < max(rtol, 1e-4)
    output = np.asarray(tf.cast(values[id(model.outputs[0])], "float64")).reshape(-1, 128)
    normalized = (expected - expected.mean(0)) / np.sqrt(expected.var(0) + 1e-5)
    assert np.abs(output - normalized).max() < (0.05 if dtype == "mixed_bfloat16" else 1e-3)
    assert np.abs(output.mean(0)).max() < 0.01


def test_sums_of_bfloat16():
    """50,000 of them, as many as pixels of a stage: nine bits after the sum, not before."""
    values = tf.cast(np.random.default_rng(0).uniform(0, 2, (16, 56, 56, 8)), "bfloat16")
    expected = np.asarray(tf.cast(values, "float64")).sum((0, 1, 2))
    found = OneDnnArithmetic().plain_sums(values)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


@pytest.mark.ci
def test_synchronized_replicas_equal_one_device():
    """Of different sizes: three examples and one."""
    strategy = mirrored_strategy(2)
    options = SIZES | {"depths": (1, 1), "norm": {"synchronized": True}}
    with strategy.scope():
        model = randomize(small("ResNet50", **options))
    single = small("ResNet50", **SIZES | {"depths": (1, 1)})
    single.set_weights(model.get_weights())
    images = images_for(model, 0)
    own = map(tf.constant, np.split(images, [3]))
    parts = strategy.experimental_distribute_values_from_function(lambda _: next(own))

    def gradients(network, images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(network(images, training=True) ** 2)
        found = tape.gradient(loss, [v.value for v in network.trainable_variables])
        return [tf.distribute.get_replica_context().all_reduce("SUM", g) for g in found]

    with training_as(model, ON_A_CPU):
        found = tf.function(lambda x: strategy.run(gradients, (model, x)), autograph=False)(parts)
    expected = tf.function(gradients, autograph=False)(single, images)
    for ours, other in zip(found, expected, strict=True):
        ours = strategy.experimental_local_results(ours)[0].numpy()
        np.testing.assert_allclose(ours, other, rtol=0, atol=2e-5 * np.abs(other).max())
    for ours, other in zip(
        model.non_trainable_variables, single.non_trainable_variables, strict=True
    ):
        np.testing.assert_allclose(ours.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.ci
def test_a_block_ends_in_one_call():
    """Convolution, sum and ReLU are one primitive of oneDNN; backward convolution and sum."""
    program = """
import tensorflow as tf
from test_models_fused_on_cpu import ON_A_CPU, SIZES, images_for, small, step_of
model = small("ResNet50", dtype="mixed_bfloat16", **SIZES)
step_of(model, images_for(model, 0), ON_A_CPU)
"""
    here = os.path.dirname(__file__)
    environment = {
        **os.environ,
        "ONEDNN_VERBOSE": "1",
        "PYTHONPATH": os.pathsep.join([here, *sys.path]),
    }
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    calls = [line for line in ran.stdout.splitlines() if ",exec,cpu,convolution," in line]
    if not calls:
        pytest.skip("this TensorFlow computes without oneDNN")
    assert sum("post-ops:sum+eltwise_relu" in call for call in calls) == 3
    assert sum("post-ops:sum," in call for call in calls) == 4
    kernels = [call for call in calls if "backward_weights" in call]
    assert len(kernels) == 4  # the stem's and each block's 3×3
    assert not any("kh1" in call for call in kernels)


def test_auto_needs_the_instructions():
    model = small("ResNet50", dtype="mixed_bfloat16")
    assert form_for(model, "auto", "AMX", "tensorflow") == ON_A_CPU
    assert form_for(model, "auto", "CPU", "tensorflow") is None
    assert form_for(model, "always", "CPU", "tensorflow") == ON_A_CPU
    assert form_for(model, "never", "AMX", "tensorflow") is None
    assert form_for(small("ResNet50"), "auto", "AMX", "tensorflow") is None
    assert "kernel gradients of 1×1 convolutions as products" in describe(ON_A_CPU)


@pytest.mark.parametrize(
    ("flags", "xla", "kind"),
    [(True, "auto", "AMX"), (False, "auto", "CPU"), (True, "on", "CPU")],
)
def test_the_engine_asks_the_processor(flags, xla, kind, monkeypatch):
    from run_helpers import tiny_config

    from keras_resnet.training.tensorflow import step

    monkeypatch.setattr(step, "cpu_multiplies_bfloat16", lambda: flags)
    assert step.kind_of_form(mirrored_strategy(1), tiny_config(xla=xla)) == kind
