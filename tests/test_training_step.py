"""Schedules, losses, steps and replicas, each against a closed form in NumPy."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy

from keras_resnet.config import default_config
from keras_resnet.layers import BatchNormalization
from keras_resnet.training import optimizers
from keras_resnet.training.metrics import SUMS, averages
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.tensorflow.strategy import make_strategy

CLASSES, PIXELS = 7, 4


@pytest.fixture
def config():
    config = default_config()
    config.batch_size = 8
    config.optimizer.learning_rate = 0.5
    config.optimizer.weight_decay = 0.1
    config.loss.label_smoothing = 0.1
    return config


def linear_model():
    """A network without normalization: its training is a few lines of NumPy."""
    inputs = keras.Input((PIXELS, PIXELS, 3))
    outputs = keras.layers.Dense(CLASSES, bias_initializer="ones")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.preprocessing = {
        "image_size": PIXELS,
        "crop_ratio": 1.0,
        "interpolation": "bilinear",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.4],
        "channel_order": "rgb",
    }
    return model


def batches(count, size=8):
    random = np.random.default_rng(0)
    return [
        {
            "image": random.integers(0, 256, (size, PIXELS, PIXELS, 3)).astype("uint8"),
            "label": random.integers(0, CLASSES, size).astype("int32"),
        }
        for _ in range(count)
    ]


def dataset(batches):
    return tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature={
            key: tf.TensorSpec(value.shape, value.dtype) for key, value in batches[0].items()
        },
    )


def run_steps(config, strategy, data, schedule=None):
    """Trains the linear model on `data` under `strategy`; returns (averages, [kernel, bias])."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = linear_model()
        optimizer = optimizers.make_optimizer(
            config, schedule or config.optimizer.learning_rate, model
        )
    steps = Steps(model, optimizer, strategy, config)
    replicas = strategy.num_replicas_in_sync
    iterator = iter(
        strategy.distribute_datasets_from_function(
            lambda _: dataset(data).rebatch(config.batch_size // replicas, drop_remainder=True)
        )
    )
    sums = steps.train_loop(iterator, tf.constant(len(data)))
    return averages(sums.numpy()), model.get_weights()


def numpy_training(config, data):
    """SGD with Nesterov momentum (Sutskever et al. 2013, as in the papers) and L2 on the kernel."""
    keras.utils.set_random_seed(0)
    kernel, bias = (value.astype("float64") for value in linear_model().get_weights())
    speed_kernel, speed_bias = np.zeros_like(kernel), np.zeros_like(bias)
    rate, momentum = config.optimizer.learning_rate, config.optimizer.momentum
    smoothing = config.loss.label_smoothing
    losses = []
    for batch in data:
        x = (batch["image"] / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
        x = x.reshape(len(x), -1)
        logits = x @ kernel + bias
        logits -= logits.max(axis=1, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        target = np.eye(CLASSES)[batch["label"]] * (1 - smoothing) + smoothing / CLASSES
        losses.extend(-(target * log_p).sum(axis=1))
        d_logits = (np.exp(log_p) - target) / len(x)
        d_kernel = x.T @ d_logits + config.optimizer.weight_decay * kernel
        d_bias = d_logits.sum(axis=0)
        speed_kernel = momentum * speed_kernel - rate * d_kernel
        speed_bias = momentum * speed_bias - rate * d_bias
        kernel = kernel + momentum * speed_kernel - rate * d_kernel
        bias = bias + momentum * speed_bias - rate * d_bias
    return np.mean(losses), [kernel, bias]


def test_steps_equal_sgd_written_out(config):
    data = batches(5)
    means, weights = run_steps(config, make_strategy("cpu"), data)
    loss, expected = numpy_training(config, data)
    assert means["examples"] == 40
    assert means["loss"] == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_replicas_compute_what_one_device_computes(config, mirrored):
    data = batches(5)
    means, weights = run_steps(config, mirrored, data)
    loss, expected = numpy_training(config, data)
    assert means["loss"] == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_xla_changes_nothing(config, replicas):
    data = batches(3)
    config.xla = "on"
    means, weights = run_steps(config, mirrored_strategy(replicas), data)
    loss, expected = numpy_training(config, data)
    assert means["loss"] == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(weights[0], expected[0], rtol=1e-4, atol=1e-5)


def test_compiled_replicas_agree_on_moving_statistics(config):
    """XLA on two replicas: what each one normalized with is averaged when the call returns."""
    config.xla = "on"
    strategy = mirrored_strategy(2)
    with strategy.scope():
        inputs = keras.Input((PIXELS, PIXELS, 3))
        norm = BatchNormalization(momentum=0.5)
        x = keras.layers.Flatten()(norm(inputs))
        model = keras.Model(inputs, keras.layers.Dense(CLASSES)(x))
        model.preprocessing = linear_model().preprocessing
        optimizer = optimizers.make_optimizer(config, 0.0, model)
    (batch,) = batches(1)
    iterator = iter(
        strategy.distribute_datasets_from_function(lambda _: dataset([batch]).rebatch(4))
    )
    Steps(model, optimizer, strategy, config).train_loop(iterator, tf.constant(1))
    x = (batch["image"] / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    halves = [half.reshape(-1, 3) for half in (x[:4], x[4:])]
    mean = 0.5 * np.mean([half.mean(axis=0) for half in halves], axis=0)
    variance = 0.5 + 0.5 * np.mean([half.var(axis=0) for half in halves], axis=0)
    for replica in strategy.experimental_local_results(norm.moving_mean.value):
        np.testing.assert_allclose(replica.numpy(), mean, rtol=1e-4, atol=1e-5)
    for replica in strategy.experimental_local_results(norm.moving_variance.value):
        np.testing.assert_allclose(replica.numpy(), variance, rtol=1e-4)


def test_masked_sums_count_only_real_examples(config):
    model = linear_model()
    steps = Steps(model, None, make_strategy("cpu"), config)
    (batch,) = batches(1)
    mask = np.array([1, 1, 1, 1, 1, 0, 0, 0], "float32")
    real = {key: value[:5] for key, value in batch.items()}
    padded = averages(steps.evaluate_step({**batch, "mask": mask})[0].numpy())
    alone = averages(steps.evaluate_step({**real, "mask": mask[:5]})[0].numpy())
    assert padded["examples"] == 5
    assert padded == pytest.approx(alone, rel=1e-6)

    x = (real["image"] / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    logits = x.reshape(5, -1) @ model.get_weights()[0] + 1.0
    order = np.argsort(-logits, axis=1)
    assert padded["top1"] == np.mean(order[:, 0] == real["label"])
    assert padded["top5"] == np.mean((order[:, :5] == real["label"][:, None]).any(axis=1))


def test_nan_on_padding_does_not_reach_the_sum(config):
    model = linear_model()
    steps = Steps(model, None, make_strategy("cpu"), config)
    (batch,) = batches(1, size=2)
    steps.losses = lambda labels, logits: tf.constant([2.0, math.nan])
    sums = steps.evaluate_step({**batch, "mask": np.array([1.0, 0.0], "float32")}).sums
    assert dict(zip(SUMS, sums.numpy(), strict=True))["loss"] == 2.0


def test_weight_decay_picks_kernels_by_layer_type():
    from keras_resnet.models import create_model

    model = create_model("CifarResNet20", classes=10, input_shape=(32, 32, 3))
    decayed = optimizers.decayed_variables(model)
    # He et al. 2015, section 4.2: 1 + 18 convolutions and the classifier.
    assert len(decayed) == 20
    size = sum(int(np.prod(variable.shape)) for variable in decayed)
    rest = 2 * (7 * 16 + 6 * 32 + 6 * 64) + 10  # gamma and beta of 19 norms, bias of the classifier
    assert size == 269_722 - rest
