"""The loop of a run: losses that are not finite, roll-backs, what is recorded on the way."""

import itertools
import json
import math
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from run_helpers import tiny_config

from keras_resnet import input_pipeline, training
from keras_resnet.errors import UserError
from keras_resnet.training import confusion, run
from keras_resnet.training.progress import Timeline
from keras_resnet.training.reporting import Reporter
from keras_resnet.training.workdir import WorkDir, checkpoint_steps


def _config(**changes):
    return tiny_config(deterministic=False, epochs=2, checkpoint__every_epochs=1, **changes)


@pytest.fixture
def poisoned(monkeypatch):
    """Makes the weights NaN before the training batches with these numbers."""

    def poison(*batches):
        train_batches = input_pipeline.train_batches

        def with_holes(*arguments, start_step, **options):
            data = train_batches(*arguments, start_step=start_step, **options)

            def mark(step, batch):
                bad = tf.reduce_any(step == tf.constant(batches, tf.int64))
                # No class has this label: its cross-entropy is NaN.
                label = tf.where(bad, -tf.ones_like(batch["label"]), batch["label"])
                return {**batch, "label": label}

            return data.enumerate(start_step).map(mark)

        monkeypatch.setattr("keras_resnet.input_pipeline.train_batches", with_holes)
        forward_backward = Steps.forward_backward

        def nan_for_no_label(self, images, labels, *rest):
            gradients, sums = forward_backward(self, images, labels, *rest)
            factor = tf.where(labels[0] < 0, math.nan, 1.0)
            only_loss = tf.stack([factor, 1.0, 1.0, 1.0])
            return [gradient * factor for gradient in gradients], sums * only_loss

        monkeypatch.setattr(Steps, "forward_backward", nan_for_no_label)

    from keras_resnet.training.tensorflow.step import Steps

    return poison


def test_a_loss_that_is_not_finite_stops_naming_step_and_rate(poisoned, tmp_path):
    poisoned(30)
    with pytest.raises(UserError) as caught:
        run.train(_config(), tmp_path)
    # Cosine from 0.05 over 44 steps.
    rate = 0.05 * 0.5 * (1 + math.cos(math.pi * 30 / 44))
    message = str(caught.value)
    assert f"in step 30, at learning rate {rate:.6g}" in message
    assert "newest checkpoint is of step 22" in message
    assert "on_nonfinite=rollback" in message
    for line in WorkDir(tmp_path).metrics.read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)  # no NaN


@pytest.mark.ci
@pytest.mark.parametrize("size", [8, "8@0.4,12@0.8,16"])
def test_rolling_back_skips_the_batch_and_comes_to_the_end(size, poisoned, tmp_path, capsys):
    poisoned(30)
    result = run.train(_config(on_nonfinite="rollback", data__image_size=size), tmp_path)
    assert result["step"] == 44
    assert math.isfinite(result["loss"])
    rows = WorkDir(tmp_path).read_metrics()
    (back,) = [row for row in rows if row["kind"] == "rollback"]
    assert (back["step"], back["failed_step"]) == (22, 30)
    assert "back to step 22, going on with batch 31" in capsys.readouterr().out
    steps = [row["step"] for row in rows if row["kind"] == "train"]
    assert steps == sorted(set(steps))
    if size != 8:  # the size is that of the step, whichever batch it trains on
        sizes = {row["step"]: row["image_size"] for row in rows if row["kind"] == "train"}
        assert [sizes[step] for step in (18, 23, 36, 40, 44)] == [8, 12, 12, 16, 16]
    weights = keras.saving.load_model(tmp_path / "model.keras").get_weights()
    assert all(np.isfinite(weight).all() for weight in weights)


@pytest.mark.slow
def test_rolling_back_ends_where_it_does_not_help(poisoned, tmp_path):
    poisoned(*range(3, 1000))
    with pytest.raises(UserError, match=r"not finite .* step 0, .* after 3 roll-backs in a row"):
        run.train(_config(on_nonfinite="rollback"), tmp_path)
    assert checkpoint_steps(tmp_path / "checkpoints") == [0]


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_and_evaluated(tmp_path, monkeypatch):
    evaluate_source, accuracies = run.evaluate_source, iter([0.3, 0.9, 0.2, 0.1])

    def scripted(*arguments, **options):
        evaluation = evaluate_source(*arguments, **options)
        evaluation.means["top1"] = next(accuracies)
        return evaluation

    monkeypatch.setattr(run, "evaluate_source", scripted)
    training.train(tiny_config(deterministic=False, checkpoint__keep=1), tmp_path)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["ckpt-44.safetensors", "ckpt-89.safetensors"]
    monkeypatch.undo()
    assert training.evaluate(tmp_path)["step"] == 89
    assert training.evaluate(tmp_path, "best")["step"] == 44


@pytest.mark.parametrize("loss", [2.31, 1.9])
def test_a_loss_that_does_not_leave_guessing_is_said_once(tmp_path, loss):
    """The first report an epoch after the warm-up decides: 2.303 is ln(10)."""
    config = tiny_config(epochs=10, schedule__warmup_epochs=1.0)
    model = SimpleNamespace(class_names=list("0123456789"))
    timeline = Timeline(config, 100 * config.batch_size)  # 100 steps an epoch
    said = []
    reporter = Reporter(WorkDir(tmp_path), config, model, timeline, 0, said.append)
    for step, value in ((199, 2.31), (200, loss), (300, 2.31)):
        means = {"loss": value, "top1": 0.1, "examples": 100, "seconds": 1.0}
        reporter.trained(step, means, 0.1)
    if loss < 2.2:
        assert not said
        return
    (line,) = said
    assert line.startswith(
        "warning: after 200 steps the loss is 2.310, that of guessing one of 10 classes (2.303)"
    )


@pytest.mark.slow
def test_histograms_profile_and_pictures(tmp_path):
    config = _config(tensorboard__histograms=True, tensorboard__profile_steps=(2, 4))
    run.train(config, tmp_path)
    events = [
        value.tag
        for path in (tmp_path / "tensorboard").glob("events*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    assert {"train/learning_rate", "train/images_per_second", "eval/top1"} <= set(events)
    assert "predictions/kernel" in events
    assert list((tmp_path / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb"))
    header, *rows = WorkDir(tmp_path).classes.read_text().splitlines()
    assert header == (
        "class,examples,correct,accuracy,most_confused_with,times,precision,recall,f1,support"
    )
    result = json.loads(WorkDir(tmp_path).result.read_text())
    cells = [row.split(",") for row in rows]
    assert sum(int(row[1]) for row in cells) == 360
    assert sum(int(row[2]) for row in cells) / 360 == pytest.approx(result["top1"])
    assert WorkDir(tmp_path).confusion.stat().st_size > 5000


def test_the_worst_classes_come_first():
    matrix = np.array([[3, 1, 0], [0, 0, 4], [0, 0, 2]])
    lines = confusion.worst_classes(matrix, ["cat", "a dog", "bird"])
    assert lines == [
        "  a dog    0.00% of 4, 4 taken for bird",
        "  cat     75.00% of 4, 1 taken for a dog",
    ]


@pytest.mark.ci
def test_the_example_in_the_docs(tmp_path, monkeypatch, capsys):
    from pathlib import Path

    from PIL import Image

    text = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
    example = text.split("## From Python")[1].split("```python\n")[1].split("```")[0]
    assert len(example.splitlines()) <= 10
    small = (
        '"model.depths": (1, 1, 1), "model.widths": (16, 16, 16), "data.image_size": 8, "epochs": 1'
    )
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("digit.png")
    exec(compile(example.replace('"epochs": 5', small), "docs/training.md", "exec"), {})
    assert "digit.png" in capsys.readouterr().out.splitlines()[-1]


def test_tensorboard_shows_each_point_once(tmp_path, monkeypatch):
    """After kills and roll-backs the steps that come again replace those that were there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from keras_resnet.training.events import EventWriter

    clock = itertools.count(2_000_000_000)  # the names of the files are times in seconds
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    starts = ((0, 9), (4, 9), (0, 3), (2, 6))  # from a checkpoint, up to a kill
    for first, last in starts:
        events = EventWriter(tmp_path)
        events.drop_after(first)
        for step in range(first + 1, last + 1):
            events.scalars(step, {"loss": step + last / 100})
        events.drop_after(5)
        if last == 6:
            events.scalars(6, {"loss": 6.5})
        events.close()
    found = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    found.Reload()
    points = [(event.step, tf.make_ndarray(event.tensor_proto)) for event in found.Tensors("loss")]
    assert [step for step, _ in points] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(
        [value for _, value in points], [1.03, 2.03, 3.06, 4.06, 5.06, 6.5], rtol=1e-6
    )
