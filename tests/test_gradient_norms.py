"""The norm of the gradient of each block, against gradients that are computed outside."""

import json
import re
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from run_helpers import final_weights, start, tiny_config
from test_resume import DIES
from test_training_step import CLASSES, batches, dataset, linear_model
from test_training_step_options import config_of
from training_runs import built_engine
from training_runs import tiny_config as twenty_steps

from keras_resnet import input_pipeline
from keras_resnet.config.schema import KEYS
from keras_resnet.models import create_model
from keras_resnet.training import optimizers, run
from keras_resnet.training.gradient_blocks import block_of
from keras_resnet.training.reporting import without_nan
from keras_resnet.training.tensorflow.batches import split_batches
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.tensorflow.strategy import make_strategy
from keras_resnet.training.workdir import WorkDir

LOGGED = {"log_gradient_norms": "on"}


def test_blocks_of_a_network():
    def blocks(name, **kwargs):
        model = create_model(name, input_shape=(32, 32, 3), classes=3, **kwargs)
        return list(dict.fromkeys(block_of(v.path) for v in model.trainable_variables))

    assert blocks("CifarResNet20", depths=(2, 1, 1)) == [
        *("stem", "stage1_block1", "stage1_block2", "stage2_block1", "stage3_block1", "head")
    ]
    # The normalization after the last block belongs to the head, the shortcuts to their blocks.
    small = {"depths": (1, 1, 1, 1), "widths": (8, 8, 8, 8)}
    stages = [f"stage{number}_block1" for number in range(1, 5)]
    assert blocks("ResNet18V2", **small) == ["stem", *stages, "head"]
    assert blocks("ResNet50D", **small) == ["stem", *stages, "head"]


def numpy_norm(weights, batch):
    """Of the gradient of the mean cross-entropy of the linear model."""
    kernel, bias = weights
    x = (batch["image"] / 255.0 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.4]
    x = x.reshape(len(x), -1)
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    error = (p / p.sum(axis=1, keepdims=True) - np.eye(CLASSES)[batch["label"]]) / len(x)
    return np.sqrt(np.square(x.T @ error).sum() + np.square(error.sum(axis=0)).sum())


@pytest.mark.parametrize(
    ("replicas", "accumulate", "xla", "precision"),
    [
        (1, 1, "off", "float32"),
        (2, 1, "off", "float32"),
        (4, 2, "off", "float32"),
        (1, 2, "on", "float32"),
        (2, 1, "on", "float32"),
        (1, 1, "on", "mixed_float16"),
    ],
)
def test_norm_is_that_of_the_global_batch(replicas, accumulate, xla, precision):
    # Neither clipping nor decay nor the scale of float16 is in it.
    config = config_of(xla=xla, log_gradient_norms="on", precision=precision)
    config.accumulate_steps, config.optimizer.clip_norm = accumulate, 0.01
    data, strategy = batches(3), mirrored_strategy(replicas)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(precision)
    try:
        with strategy.scope():
            model = linear_model()
            optimizer = optimizers.make_optimizer(config, 0.5, model)
        steps = Steps(model, optimizer, strategy, config)
        elements = split_batches(dataset(data), replicas, accumulate)
        iterator = iter(strategy.distribute_datasets_from_function(lambda _: elements))
        steps.train_loop(iterator, tf.constant(2))
        weights = model.get_weights()
        second = float(steps.norms.last[0])
        steps.train_loop(iterator, tf.constant(1))
    finally:
        keras.config.set_dtype_policy("float32")
    assert steps.norms.names == ["head"]
    tolerance = 1e-5 if precision == "float32" else 1e-2
    expected = numpy_norm(weights, data[2])
    assert float(steps.norms.last[0]) == pytest.approx(expected, rel=tolerance)
    assert second != pytest.approx(expected, rel=0.01)  # of a step of its own


@pytest.mark.ci
def test_norms_of_a_network_are_those_of_a_gradient_tape():
    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")
    config = twenty_steps(log_gradient_norms="on")
    engine = built_engine(config, make_strategy("cpu"), source.class_names, 640)
    assert engine.gradient_norms() == {}
    engine.train(engine.train_batches(source, 0, 3), 3)
    batch = next(iter(engine.train_batches(source, 3, 4).iterator))
    images = input_pipeline.normalize(batch["image"], engine.model.preprocessing)
    state = engine.state()
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(
            batch["label"], engine.model(images, training=True), from_logits=True
        )
        loss = tf.reduce_mean(losses)
    variables = engine.model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    engine.load_state(state)  # the moving statistics
    engine.train(engine.train_batches(source, 3, 4), 1)
    squares = {}
    for variable, gradient in zip(variables, gradients, strict=True):
        block = re.sub(r"^(stem|stage._block.)_.*", r"\1", variable.path)
        block = re.sub(r"^predictions/.*", "head", block)
        squares[block] = squares.get(block, 0.0) + float(np.square(gradient).sum())
    found = engine.gradient_norms()
    assert list(found) == ["stem", "stage1_block1", "stage2_block1", "stage3_block1", "head"]
    assert squares.keys() == found.keys()
    for block, square in squares.items():
        assert found[block] == pytest.approx(np.sqrt(square), rel=1e-4), block


def test_they_are_logged_on_cpus_only_by_themselves():
    strategy = make_strategy("cpu")
    for value, logs in (("auto", True), ("on", True), ("off", False)):
        config = config_of(log_gradient_norms=value)
        model = linear_model()
        optimizer = optimizers.make_optimizer(config, 0.5, model)
        assert (Steps(model, optimizer, strategy, config).norms is not None) == logs
        assert Steps(model, None, strategy, config).norms is None
    # Runs begun before have none.
    assert KEYS["log_gradient_norms"].absent == {1: "off", 2: "off"}


@pytest.mark.ci
def test_training_is_the_same_with_and_without_them(tmp_path):
    for value in ("on", "off"):
        run.train(tiny_config(log_gradient_norms=value, epochs=2), tmp_path / value)
    assert final_weights(tmp_path / "on") == final_weights(tmp_path / "off")
    rows = {
        value: [row for row in WorkDir(tmp_path / value).read_metrics() if row["kind"] == "train"]
        for value in ("on", "off")
    }
    for ours, theirs in zip(rows["on"], rows["off"], strict=True):
        assert ours["loss"] == theirs["loss"]
        names = ["stem", "stage1_block1", "stage2_block1", "stage3_block1", "head"]
        assert list(ours["gradient_norms"]) == names
        assert all(value > 0 for value in ours["gradient_norms"].values())
        assert "gradient_norms" not in theirs
    tags = {
        value.tag
        for path in (tmp_path / "on" / "tensorboard").glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert {"train/gradient_norms/stem", "train/gradient_norms/stage3_block1"} <= tags
    # A run may go on without them, or with them.
    run.train(tiny_config(log_gradient_norms="on", epochs=3), tmp_path / "off")
    last = WorkDir(tmp_path / "off").read_metrics()[-2]
    assert last["kind"] == "train"
    assert last["gradient_norms"].keys() == rows["on"][0]["gradient_norms"].keys()


@pytest.mark.ci
def test_a_run_that_is_killed_logs_the_norms_of_one_that_is_not(tmp_path):
    """It is killed while its second checkpoint is flushed."""
    ends = []
    for name in ("whole", "killed"):
        if name == "killed":
            process = start(tmp_path / name, DIES + 'die_at(os, "fsync", 3)', **LOGGED)
            output, _ = process.communicate()
            assert process.returncode == -signal.SIGKILL, output
            assert not WorkDir(tmp_path / name).result.exists()
        process = start(tmp_path / name, **LOGGED)
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert ("resuming   at step" in output) == (name == "killed")
        ends.append(WorkDir(tmp_path / name).read_metrics())
    whole, killed = ({(row["kind"], row["step"]): row for row in rows} for rows in ends)
    # A run that resumes says its first step, too: the line after it is of fewer images.
    [extra] = killed.keys() - whole.keys()
    assert extra[0] == "train"
    assert whole.keys() <= killed.keys()
    shorter = []
    for key, row in whole.items():
        other = killed[key]
        if row["examples"] != other["examples"]:
            shorter.append(key)
            same = {"gradient_norms", "learning_rate", "epoch"}
        else:
            same = row.keys() - {"images_per_second", "compiles"}
        assert {name: row[name] for name in same} == {name: other[name] for name in same}
    assert len(shorter) == 1
    norms = [row["gradient_norms"] for (kind, _), row in whole.items() if kind == "train"]
    assert len(norms) > 8
    assert all(len(one) == 5 and min(one.values()) > 0 for one in norms)
    assert final_weights(tmp_path / "whole") == final_weights(tmp_path / "killed")


@pytest.mark.ci
def test_what_is_frozen_has_no_gradient():
    source = input_pipeline.open_source("tfds", name="digits", path="", split="train")
    config = twenty_steps(log_gradient_norms="on", model={"freeze": "body", "unfreeze_epoch": 1})
    engine = built_engine(config, make_strategy("cpu"), source.class_names, 640)
    batches_of_run = engine.train_batches(source, 0, 2)
    engine.train(batches_of_run, 1, True)
    assert list(engine.gradient_norms()) == ["head"]
    engine.train(batches_of_run, 1, False)
    assert next(iter(engine.gradient_norms())) == "stem"


def test_a_norm_that_is_not_finite_reads_null():
    row = without_nan({"gradient_norms": {"stem": float("inf"), "head": 1.0}, "loss": 2.0})
    assert json.loads(json.dumps(row, allow_nan=False)) == {
        "gradient_norms": {"stem": None, "head": 1.0},
        "loss": 2.0,
    }
