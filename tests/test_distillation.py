"""Distillation: its loss, its step and its runs, against NumPy and against each other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from test_input_augment_batches import MIX, numpy_mix
from test_training_step import CLASSES, batches, dataset, linear_model

from keras_resnet.config import default_config
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training import optimizers
from keras_resnet.training.distillation import (
    Teacher,
    TeacherNetwork,
    distillation_losses,
    resize,
)
from keras_resnet.training.metrics import DISTILLATION, SUMS, averages
from keras_resnet.training.tensorflow.batches import split_batches
from keras_resnet.training.tensorflow.step import Steps

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = RANDOM.normal(size=(2, 6, CLASSES)).astype("float32") * 4


def softmax(logits):
    values = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


# ---- What a step computes ------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_loss_of_one_class_an_image(temperature):
    """T² · KL in float64, and its gradient: T · (student - teacher), Hinton et al. 2015, (2)."""
    wanted, given = (softmax(x.astype("float64") / temperature) for x in (TEACHER, STUDENT))
    logits = tf.constant(STUDENT)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = distillation_losses(logits, tf.constant(TEACHER), temperature)
    expected = temperature**2 * (wanted * np.log(wanted / given)).sum(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    gradient = tape.gradient(losses, logits)
    np.testing.assert_allclose(gradient, temperature * (given - wanted), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sum_classes", [False, True])
def test_loss_of_several_labels(sum_classes):
    """The same of two answers for each class; logits of up to 60 stay finite."""
    temperature = 2.0
    wanted, given = (sigmoid(x.astype("float64") / temperature) for x in (TEACHER, STUDENT))
    found = distillation_losses(
        STUDENT, TEACHER, temperature, independent=True, sum_classes=sum_classes
    )
    yes, no = wanted * np.log(wanted / given), (1 - wanted) * np.log((1 - wanted) / (1 - given))
    expected = temperature**2 * (yes + no).sum(axis=1) / (1 if sum_classes else CLASSES)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    far = distillation_losses(STUDENT * 15, TEACHER * 15, 1.0, independent=True)
    assert np.isfinite(far).all()


@pytest.mark.parametrize(("before", "after"), [(32, 12), (8, 12), (9, 9)])
def test_resizing_is_that_of_the_pipeline(before, after):
    """Of TensorFlow's antialiased bilinear resizing, by other arithmetic."""
    images = RANDOM.uniform(0, 255, (2, before, before, 3)).astype("float32")
    expected = tf.image.resize(images, (after, after), antialias=True)
    np.testing.assert_allclose(resize(tf.constant(images), after), expected, atol=1e-3)


def linear_teacher():
    """Other normalization, size and order of channels, and two classes that the data lacks."""
    inputs = keras.Input((6, 6, 3))
    outputs = keras.layers.Dense(CLASSES + 2, "softmax")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, outputs)
    model.get_layer(index=-1).set_weights(
        [RANDOM.normal(size=shape) / 4 for shape in ((108, CLASSES + 2), CLASSES + 2)]
    )
    told = Preprocessing(
        image_size=6,
        crop_ratio=1.0,
        interpolation="bilinear",
        mean=[0.1, 0.2, 0.3],
        std=[0.5, 0.6, 0.7],
        channel_order="bgr",
    )
    return Teacher("linear", model, told, (3, 8, 0, 1, 2, 5, 4), "", "float32")


def written_out(config, teacher, batch):
    """One step of plain SGD in float64: loss, the teacher's part of it, kernel and bias."""
    keras.utils.set_random_seed(0)
    kernel, bias = (value.astype("float64") for value in linear_model().get_weights())
    images, size = numpy_mix(batch["image"], batch["mix"]), len(batch["image"])
    x = ((images / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]).reshape(size, -1)
    larger = tf.image.resize(images, (6, 6), antialias=True).numpy()[..., ::-1]
    seen = (larger / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    of_teacher, shift = teacher.model.get_weights()
    answers = (seen.reshape(size, -1) @ of_teacher + shift)[:, list(teacher.places)]
    logits, degrees, weight = x @ kernel + bias, config.distill.temperature, config.distill.weight
    wanted, given = softmax(answers / degrees), softmax(logits / degrees)
    parts = degrees**2 * (wanted * np.log(wanted / given)).sum(axis=1)
    share, one_hot = batch["mix"][:, 1:2].astype(float), np.eye(CLASSES)[batch["label"]]
    targets = share * one_hot + (1 - share) * one_hot[np.arange(size) ^ 1]
    labels = -(targets * np.log(softmax(logits))).sum(axis=1)
    gradient = (1 - weight) * (softmax(logits) - targets) + weight * degrees * (given - wanted)
    loss = (1 - weight) * labels + weight * parts
    rate = config.optimizer.learning_rate
    kernel = kernel - rate * x.T @ gradient / size
    return loss.mean(), parts.mean(), kernel, bias - rate * gradient.mean(axis=0)


@pytest.mark.parametrize(
    ("replicas", "parts", "xla"),
    [
        (1, 1, "off"),
        pytest.param(2, 2, "off", marks=pytest.mark.ci),
        pytest.param(2, 2, "on", marks=pytest.mark.ci),
    ],
)
def test_a_step_equals_one_written_out(replicas, parts, xla):
    """The teacher sees the mixed images; replicas, parts of a batch and XLA change nothing."""
    config = default_config()
    config.batch_size, config.accumulate_steps, config.xla = 8, parts, xla
    config.optimizer.update({"learning_rate": 0.5, "momentum": 0.0, "weight_decay": 0.0})
    config.distill.update({"teacher": "linear", "temperature": 3.0, "weight": 0.7})
    (batch,), teacher = batches(1), linear_teacher()
    batch["mix"] = np.concatenate([MIX[:2], MIX])
    strategy = mirrored_strategy(replicas)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = linear_model()
        optimizer = optimizers.make_optimizer(config, 0.5, model)
        network = TeacherNetwork(teacher)
    steps = Steps(model, optimizer, strategy, config)
    steps.teacher = network
    elements = split_batches(dataset([batch]), replicas, parts)
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: elements))
    sums = steps.train_loop(iterator, tf.constant(1)).numpy()
    means = averages(sums, (*SUMS, DISTILLATION))
    loss, part, *weights = written_out(config, teacher, batch)
    assert means["loss"] == pytest.approx(loss, rel=1e-5)
    assert means[DISTILLATION] == pytest.approx(part, rel=1e-5)
    for ours, theirs in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not any(variable.trainable for variable in network.variables)
    for kept, given in zip(network.variables, teacher.model.get_weights(), strict=True):
        np.testing.assert_array_equal(kept, given)
