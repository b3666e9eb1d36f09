"""Accumulation, averages, class weights, float16 and XLA in the training loop."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from test_training_step import CLASSES, PIXELS, batches, dataset, linear_model

from keras_resnet.config import default_config
from keras_resnet.errors import UsageError
from keras_resnet.layers import BatchNormalization
from keras_resnet.training import optimizers
from keras_resnet.training.metrics import averages
from keras_resnet.training.state import averaged_variables
from keras_resnet.training.tensorflow import TensorFlowEngine
from keras_resnet.training.tensorflow.batches import split_batches
from keras_resnet.training.tensorflow.ema import WeightAverage
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.tensorflow.strategy import make_strategy


def config_of(**groups):
    config = default_config()
    config.batch_size = 8
    config.optimizer.update({"learning_rate": 0.5, "weight_decay": 0.1})
    for key, value in groups.items():
        setattr(config, key, value)
    return config


def norm_model():
    """The linear model behind a batch normalization, which it needs to learn fast."""
    inputs = keras.Input((PIXELS, PIXELS, 3))
    x = keras.layers.Flatten()(BatchNormalization(momentum=0.5)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
    model.preprocessing = linear_model().preprocessing
    return model


def train(
    config,
    strategy,
    data,
    make_model=linear_model,
    average=None,
    calls=1,
    scale=None,
    between=lambda model: None,
):
    """Trains on `data`; returns (averages, model, WeightAverage or None, optimizer).

    `between` is called before the first and after every call of the loop.
    """
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = make_model()
        rate = config.optimizer.learning_rate
        optimizer = optimizers.make_optimizer(config, rate, model)
        average = average and WeightAverage(model, *average)
    if scale:
        optimizer.dynamic_scale.assign(scale)
    weights = config.loss.class_weights
    steps = Steps(model, optimizer, strategy, config, average, weights)
    elements = split_batches(dataset(data), strategy.num_replicas_in_sync, config.accumulate_steps)
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: elements))
    between(model)
    sums = []
    for _ in range(calls):
        sums.append(steps.train_loop(iterator, tf.constant(len(data) // calls)))
        between(model)
    return averages(np.concatenate(sums)), model, average, optimizer


@pytest.mark.parametrize(
    ("name", "replicas", "xla"),
    [("sgd", 1, "off"), ("sgd", 2, "on"), ("lars", 1, "on"), ("lars", 2, "off")],
)
def test_accumulation_equals_the_larger_batch(name, replicas, xla):
    config, data = config_of(xla=xla), batches(4)
    config.optimizer.update({"name": name, "learning_rate": 0.1, "clip_norm": 0.5})
    means, whole, *_ = train(config, make_strategy("cpu"), data)
    config.accumulate_steps = 2
    again, parts, *_ = train(config, mirrored_strategy(replicas), data, calls=2)
    assert again == pytest.approx(means, rel=1e-5)
    for ours, theirs in zip(parts.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("mixed", [False, True])
def test_micro_batches_hold_the_same_examples_on_any_number_of_replicas(replicas, mixed):
    batch = {"label": np.arange(16, dtype="int32")}
    if mixed:
        batch["mix"] = np.zeros((16, 6), "float32")
    elements = [
        element["label"]
        for element in split_batches(dataset([batch]), replicas, 2).as_numpy_iterator()
    ]
    parts = [set(np.concatenate(elements[i * replicas : (i + 1) * replicas])) for i in range(2)]
    even = {0, 1, 4, 5, 8, 9, 12, 13} if mixed else set(range(0, 16, 2))
    assert parts == [even, set(range(16)) - even]
    if mixed:  # neighbors are still neighbors
        assert all((np.diff(element.reshape(-1, 2)) == 1).all() for element in elements)


@pytest.mark.parametrize(
    ("replicas", "xla", "warmup"),
    [(1, "off", True), (1, "on", False), (2, "off", False), (2, "on", True)],
)
def test_average_follows_weights_and_moving_statistics(replicas, xla, warmup):
    decay, history = 0.8, []  # the history is what the weights are after each step
    strategy = mirrored_strategy(replicas)
    _, model, average, _ = train(
        config_of(xla=xla),
        strategy,
        batches(4),
        norm_model,
        (decay, warmup),
        calls=4,
        between=lambda model: history.append([v.numpy() for v in averaged_variables(model)]),
    )
    expected = [value.astype("float64") for value in history[0]]
    for t, weights in enumerate(history[1:], start=1):
        rate = 1 - (min(decay, (1 + t) / (10 + t)) if warmup else decay)
        expected = [e + rate * (w - e) for e, w in zip(expected, weights, strict=True)]
    assert len(expected) == 6  # gamma, beta, two moving statistics, kernel, bias
    before = model.get_weights()
    with average.in_model():
        for variable, wanted in zip(averaged_variables(model), expected, strict=True):
            for copy in strategy.experimental_local_results(variable.value):
                np.testing.assert_allclose(copy, wanted, rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_frozen_layers_are_not_averaged():
    model = norm_model()
    model.layers[1].trainable = False
    assert [variable.name for variable in averaged_variables(model)] == ["kernel", "bias"]


def test_class_weights_enter_the_training_loss():
    data = batches(1)
    config = config_of()
    config.loss.class_weights = tuple(float(index) for index in range(CLASSES))
    means, model, *_ = train(config, make_strategy("cpu"), data)
    keras.utils.set_random_seed(0)
    (batch,) = data
    x = (batch["image"] / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    kernel, bias = linear_model().get_weights()
    logits = x.reshape(8, -1) @ kernel + bias
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    losses = -log_p[np.arange(8), batch["label"]] * batch["label"]
    assert means["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    # The gradient of the bias is that of the weighted mean; the first step is Nesterov's 1.9 rate.
    error = np.exp(log_p) - np.eye(CLASSES)[batch["label"]]
    gradient = (error * batch["label"][:, None]).mean(axis=0)
    np.testing.assert_allclose(model.get_weights()[1], bias - 1.9 * 0.5 * gradient, rtol=1e-4)


@pytest.fixture
def float16():
    keras.config.set_dtype_policy("mixed_float16")
    yield config_of(precision="mixed_float16")
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("xla", ["off", "on"])
def test_float16_trains_like_float32(float16, xla):
    float16.xla, float16.optimizer.learning_rate, data = xla, 0.01, batches(3)
    means, model, _, optimizer = train(float16, make_strategy("cpu"), data, scale=256.0)
    keras.config.set_dtype_policy("float32")
    wanted, reference, *_ = train(
        config_of(optimizer=float16.optimizer), make_strategy("cpu"), data
    )
    assert means["loss"] == pytest.approx(wanted["loss"], rel=5e-3)
    start = linear_model().get_weights()[1]
    moved = reference.get_weights()[1] - start
    assert np.abs(moved).max() > 0.005
    np.testing.assert_allclose(model.get_weights()[1] - start, moved, rtol=0.02, atol=1e-4)
    assert int(optimizer.iterations.numpy()) == 3


@pytest.mark.parametrize("xla", ["off", "on"])
def test_float16_overflow_halves_the_scale_and_leaves_the_weights(float16, xla):
    float16.xla = xla
    keras.utils.set_random_seed(0)
    before = linear_model().get_weights()
    _, model, _, optimizer = train(float16, make_strategy("cpu"), batches(2), scale=2.0**40)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert float(optimizer.dynamic_scale.numpy()) == 2.0**38
    assert int(optimizer.iterations.numpy()) == 0


def test_float16_on_replicas_is_refused_with_the_reason():
    config = config_of(precision="mixed_float16")
    with pytest.raises(UsageError, match=r"mixed_float16' on 2 replicas: Keras' loss scaling"):
        TensorFlowEngine(config, mirrored_strategy(2)).build(["a", "b"], schedule=0.1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 10, r"batch_size=10 does not divide by 4 replicas; take 8"),
        (
            "accumulate_steps",
            3,
            r"batch_size=8 does not divide by 4 replicas times config.accumulate_steps=3; take 12",
        ),
    ],
)
def test_batches_that_do_not_divide(key, value, message):
    engine = TensorFlowEngine(config_of(**{key: value}), mirrored_strategy(4))
    with pytest.raises(UsageError, match=message):
        engine.build(["a", "b"], schedule=0.1)


def test_class_weights_must_fit_the_data():
    config = config_of()
    config.loss.class_weights = (1.0, 2.0, 3.0)
    with pytest.raises(UsageError, match=r"has 3 numbers, but the data has 2 classes"):
        TensorFlowEngine(config, make_strategy("cpu")).build(["a", "b"], schedule=0.1)


def test_synchronized_norm_is_not_compiled():
    from keras_resnet.training.tensorflow.step import use_xla

    strategy = mirrored_strategy(2)
    with pytest.raises(UsageError, match="synchronized_norm=True on 2 replicas"):
        use_xla("on", strategy, synchronized_norm=True)
    assert not use_xla("auto", strategy, synchronized_norm=True)
    assert use_xla("on", make_strategy("cpu"), synchronized_norm=True)
