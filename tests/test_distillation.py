"""Distillation: its loss, its step and its runs, against NumPy and against each other."""

import math
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from model_helpers import randomize
from run_helpers import final_weights, start
from run_helpers import tiny_config as run_config
from test_input_augment_batches import MIX, numpy_mix
from test_resume import DIES
from test_training_equality import VARIANTS, assert_same, run_workers
from test_training_step import CLASSES, batches, dataset, linear_model
from training_runs import STEPS, run, tiny_config

import keras_resnet
from keras_resnet.config import default_config
from keras_resnet.errors import UsageError, UserError
from keras_resnet.models import ResNet
from keras_resnet.models.costs import profile
from keras_resnet.models.loading import load_model
from keras_resnet.preflight.lowering import lower_train_step
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training import checkpoint_file, optimizers
from keras_resnet.training.distillation import (
    Teacher,
    TeacherNetwork,
    distillation_losses,
    resize,
)
from keras_resnet.training.metrics import DISTILLATION, SUMS, averages
from keras_resnet.training.run import train
from keras_resnet.training.teachers import read_teacher
from keras_resnet.training.tensorflow.batches import split_batches
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.tensorflow.strategy import make_strategy
from keras_resnet.training.workdir import WorkDir

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


# ---- Twenty steps --------------------------------------------------------------------------------


def write_teacher(path, names="3170265498", seed=0, **options):
    """Writes a network of random weights that knows the digits in another order, at 10 px."""
    options = {"depths": (1, 1, 1), "widths": (16, 24, 32), "input_shape": (10, 10, 3), **options}
    model = randomize(
        keras_resnet.create_model("CifarResNet20", classes=len(names), **options), seed
    )
    model.class_names = list(names)
    model.preprocessing = {**model.preprocessing, "mean": (0.3, 0.4, 0.5), "channel_order": "bgr"}
    model.save(path)
    return path


def taught(teacher):
    """Changes to the config of training_runs.py: all that a teacher could be in the way of.

    Images smaller and larger than the teacher's.
    """
    changes = {"data": {**VARIANTS["sizes"]["data"], "image_size": "8@0.5,12"}}
    return {**VARIANTS["sizes"], **changes, "distill": {"teacher": str(teacher), "weight": 0.5}}


@pytest.mark.ci
def test_replicas_learn_what_one_device_learns(tmp_path):
    groups = taught(write_teacher(tmp_path / "teacher.keras"))
    alone = run(tiny_config(**groups), make_strategy("cpu"))
    assert len(alone["of_teacher"]) == STEPS
    assert min(alone["of_teacher"]) > 0
    assert_same(run(tiny_config(**groups), mirrored_strategy(2)), alone)


@pytest.mark.slow  # each process traces for itself
def test_workers_learn_what_one_device_learns(tmp_path):
    groups = taught(write_teacher(tmp_path / "teacher.keras"))
    results = run_workers(groups)
    assert results[0] == results[1]
    assert_same(results[0], run(tiny_config(**groups), make_strategy("cpu")))


# ---- Teachers ------------------------------------------------------------------------------------


def tiny_teacher(path, names, activation="softmax", shape=(4, 4, 3)):
    """Writes a classifier of one layer with random weights."""
    inputs = keras.Input(shape)
    head = keras.layers.Dense(len(names), activation, name="predictions")
    told = {"crop_ratio": 1.0, "interpolation": "bilinear", "channel_order": "rgb"}
    told |= {"image_size": shape[0], "mean": [0.5] * 3, "std": [0.2] * 3}
    model = ResNet(inputs, head(keras.layers.Flatten()(inputs)), preprocessing=told)
    model.class_names = list(names)
    model.save(path)
    return path


def config_with(teacher, **groups):
    return tiny_config(distill={"teacher": str(teacher)}, **groups)


def test_classes_are_matched_by_name(tmp_path):
    """In another order, written otherwise, and more than the data has; said where it matters."""
    lines = []
    file = tiny_teacher(tmp_path / "teacher.keras", ["owl", "Polar bear", "ant", "bee"])
    teacher = read_teacher(config_with(file), ["bee", "polar_bear", "ant"], False, lines.append)
    assert teacher.places == (3, 1, 2)
    assert teacher.precision == "float32"
    assert "3 of the model's 4 classes are in the data" in lines[0]
    same = read_teacher(config_with(file), ["owl", "Polar bear", "ant", "bee"], True, lines.append)
    assert same.places is None
    assert same.precision == "bfloat16"
    assert len(lines) == 2
    images = RANDOM.uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    answers, all_answers = (TeacherNetwork(one)(tf.constant(images)) for one in (teacher, same))
    np.testing.assert_allclose(answers, all_answers.numpy()[:, [3, 1, 2]], rtol=0.02, atol=0.02)


def test_what_cannot_teach_is_one_line(tmp_path):
    (tmp_path / "broken.keras").write_text("no archive")
    (tmp_path / "empty").mkdir()
    tiny_teacher(tmp_path / "sets.keras", "abc", "sigmoid")
    tiny_teacher(tmp_path / "four.keras", "0123")
    tiny_teacher(tmp_path / "others.keras", ["ant", "bee", "owl"])
    tiny_teacher(tmp_path / "relu.keras", "abc", "relu")
    plain = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    plain.save(tmp_path / "plain.keras")
    said = {
        "nowhere": "there is no such file or folder",
        "n" * 300: "File name too long",
        "broken.keras": "cannot be loaded (a .keras file is a zip archive)",
        "empty": "no model.keras in this folder; a run writes it when it is finished",
        "sets.keras": "it gives a yes or no for each class (sigmoid), and with config.data.multi_l",
        "four.keras": "it has 4 classes, and the data 3, and not both have names",
        "others.keras": "3 of its 3 classes are none of the model's: a, b, c. The model's 3",
        "relu.keras": "ends in the activation 'relu'; probabilities are made",
        "plain.keras": "does not end in a classifier (a Dense layer), as a teacher does",
        "hf://nobody": "An address of the Hugging Face hub is hf://OWNER/REPOSITORY",
    }
    for name, reason in said.items():
        where = name if "://" in name else tmp_path / name
        with pytest.raises(UserError) as caught:
            read_teacher(config_with(where), "abc", False)
        message = str(caught.value)
        assert message.startswith(f"config.distill.teacher='{where}': "), message
        assert reason in message
        assert "\n" not in message
    several = {"data": {"multi_label": True}, "loss": {"name": "binary"}}
    with pytest.raises(UserError, match="it gives one class an image"):
        read_teacher(config_with(tmp_path / "others.keras", **several), "abc", False)
    with pytest.raises(UsageError, match=r"config\.distill\.weight=0\.5 is of a teacher"):
        tiny_config(distill={"weight": 0.5})
    with pytest.raises(UsageError, match=r"config\.distill\.temperature=0\.0 must be above 0"):
        tiny_config(distill={"teacher": "x", "temperature": 0.0})


@pytest.mark.ci
def test_a_run(tmp_path, capsys):
    """It notes its teacher, says what it sees, and refuses another; a moved one is the same."""
    first, other = (write_teacher(tmp_path / f"{n}.keras", seed=n) for n in (0, 1))
    changes = {"epochs": 1, "distill__teacher": str(first)}
    train(run_config(**changes), tmp_path / "run")
    output = capsys.readouterr().out
    assert f"teacher    {first}, cifarresnet20 in " in output
    assert "sees the same crops, resized in the step from 8 px to its 10 px" in output
    folder = WorkDir(tmp_path / "run")
    noted = folder.read_teacher()
    assert noted["sha256"] == read_teacher(config_with(first), "0123456789", False).digest
    rows = [row for row in folder.read_metrics() if row["kind"] == "train"]
    assert all(row["distillation_loss"] > 0 for row in rows)
    (file,) = folder.checkpoints.glob("*.safetensors")
    _, arrays = checkpoint_file.read(file)
    weights = {f"model/{weight.path}" for weight in load_model(folder.model).weights}
    assert {name for name in arrays if name.startswith("model/")} == weights
    # It is through, so that nobody needs the teacher any more.
    moved = tmp_path / "moved.keras"
    first.rename(moved)
    train(run_config(**changes), tmp_path / "run")
    more = {**changes, "epochs": 2}
    with pytest.raises(
        UserError, match=r"no such file or folder\. The run began with it; if it has"
    ):
        train(run_config(**more), tmp_path / "run")
    with pytest.raises(
        UserError, match=rf"is not the teacher that the run in .* began with, {first}"
    ):
        train(run_config(**{**more, "distill__teacher": str(other)}), tmp_path / "run")
    with pytest.raises(UserError, match=r"began with the teacher .*; take another --workdir"):
        train(run_config(epochs=2), tmp_path / "run")
    assert folder.read_config().distill.teacher == str(first)
    train(run_config(**{**more, "distill__teacher": str(moved)}), tmp_path / "run")
    assert folder.read_teacher()["sha256"] == noted["sha256"]
    assert folder.read_history()[-1]["changed"]["distill.teacher"] == [str(first), str(moved)]


@pytest.mark.ci
def test_killed_and_resumed_it_ends_in_the_same_bits(tmp_path):
    """Killed while the second checkpoint is flushed; mixed images, averages, two parts."""
    changes = {"distill__teacher": write_teacher(tmp_path / "teacher.keras")}
    changes |= {"ema__decay": 0.9, "accumulate_steps": 2, "data__augment__mixup": 0.2, "epochs": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    output, _ = start(whole, **changes).communicate()
    assert "Done" in output, output
    process = start(killed, prelude=DIES + 'die_at(os, "fsync", 3)', **changes)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    output, _ = start(killed, **changes).communicate()
    assert "resuming   at step 22" in output, output
    assert final_weights(killed) == final_weights(whole)
    rows = [WorkDir(folder).read_metrics() for folder in (whole, killed)]
    evaluated = [[row for row in each if row["kind"] == "eval"] for each in rows]
    assert evaluated[0] == evaluated[1]


@pytest.mark.ci
def test_preflight_compiles_it_as_well(tmp_path):
    """For each image twice its multiply-adds more; its kernels are bfloat16, as on every TPU."""
    file = write_teacher(tmp_path / "teacher.keras")
    plain = lower_train_step(tiny_config(), batch=2, classes=10)
    config = tiny_config(distill={"teacher": str(file)})
    found = lower_train_step(config, batch=2, classes=10)
    network = TeacherNetwork(read_teacher(config, 10, True))
    multiply_adds = profile(load_model(file)).multiply_adds
    assert found.model_flops - plain.model_flops == 2 * 2 * multiply_adds
    of_teacher = sum(
        math.prod(v.shape) * (2 if v.dtype == "bfloat16" else 4) for v in network.variables
    )
    assert found.variable_bytes - plain.variable_bytes == of_teacher
    with pytest.raises(UserError, match="it has 10 classes, and the data 1,000"):
        lower_train_step(config, batch=2, classes=1000)
