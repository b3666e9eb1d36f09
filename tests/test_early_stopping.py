"""Early stopping, the plateau schedule and the best checkpoint: when, and exact after a kill."""

import json
import signal
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from run_helpers import final_weights, kill, start, tiny_config, wait_for
from test_resume import DIES
from test_training_equality import free_ports

from keras_resnet import training
from keras_resnet.commands import main
from keras_resnet.config import default_config
from keras_resnet.errors import UserError
from keras_resnet.training import run, schedules
from keras_resnet.training.evaluation import load_model_of_workdir, restore
from keras_resnet.training.optimizers import SGD
from keras_resnet.training.progress import Progress, Timeline
from keras_resnet.training.workdir import WorkDir

# What the evaluations of a run find, whatever the machine: by step, of ten epochs of 22.5 steps.
TOP1 = {22: 0.3, 44: 0.5, 67: 0.4, 89: 0.4, 112: 0.6, 134: 0.5, 157: 0.5, 179: 0.5}
SCRIPTED = f"""
from keras_resnet.training import run as training_run
original_evaluation, top1 = training_run.evaluate_source, {TOP1}
def scripted(engine, *rest):
    evaluation = original_evaluation(engine, *rest)
    evaluation.means["top1"] = top1[int(engine.optimizer.iterations.numpy())]
    return evaluation
training_run.evaluate_source = scripted
"""


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_they_decide_as_keras_callbacks_do(patience):
    rng = np.random.default_rng(patience)
    for _ in range(50):
        accuracies = rng.integers(0, 8, 25) / 8  # with ties
        model = SimpleNamespace(optimizer=keras.optimizers.SGD(0.5), stop_training=False)
        options = {"monitor": "top1", "mode": "max", "patience": patience, "min_delta": 0.0}
        stopping = keras.callbacks.EarlyStopping(**options)
        reducing = keras.callbacks.ReduceLROnPlateau(**options, factor=0.5, min_lr=0.02)
        ours, plateau = Progress(), schedules.Plateau(0.5, 0.5, 0.02)
        for callback in (stopping, reducing):
            callback.set_model(model)
            callback.on_train_begin()
        for epoch, top1 in enumerate(accuracies):
            for callback in (stopping, reducing):
                callback.on_epoch_end(epoch, {"top1": top1})
            ours.step += 10
            ours.evaluated(top1, patience)
            plateau.reduced(ours.rate_reductions)
            expected = float(model.optimizer.learning_rate.numpy())
            assert schedules.learning_rate_at(plateau, ours.step) == pytest.approx(expected)
            assert ours.stops_early(patience) == model.stop_training
            assert not ours.stops_early(0)
            if model.stop_training:
                break


def test_an_evaluation_that_is_repeated_counts_once():
    progress = Progress(step=5)
    assert progress.evaluated(0.5)
    progress.step = 10
    for _ in range(3):
        assert not progress.evaluated(0.5, rate_patience=1)
    assert (progress.waited, progress.rate_reductions, progress.best_step) == (1, 1, 5)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_lower_rate_reaches_steps_that_are_compiled_already(replicas):
    config = default_config()
    config.optimizer.learning_rate = 0.4
    config.schedule.update({"name": "plateau", "factor": 0.5, "end_learning_rate": 0.15})
    config.schedule.warmup_epochs = 2.0
    config.batch_size, config.epochs = 1, 4
    schedule = schedules.make_schedule(config, Timeline(config, train_examples=1))
    strategy = mirrored_strategy(replicas)
    with strategy.scope():
        variable = keras.Variable([0.0])
        schedules.plateau_of(schedule).build()
        optimizer = SGD(schedule)
        optimizer.build([variable])

    def update():
        optimizer.apply([variable.value * 0.0 + 1.0 / replicas], [variable])

    @tf.function(autograph=False)
    def step():
        strategy.run(update)

    moves = []
    for reductions in (0, 0, 1, 2):
        schedules.plateau_of(schedule).reduced(reductions)
        before = float(variable.numpy()[0])
        step()
        moves.append(before - float(variable.numpy()[0]))
    # Two steps of warm-up, the whole rate, half of it, and no less than the lowest.
    np.testing.assert_allclose(moves, [0.2, 0.4, 0.2, 0.15], rtol=1e-5)
    rates = [schedules.learning_rate_at(schedule, step) for step in (0, 1)]
    np.testing.assert_allclose(rates, [0.075, 0.15], rtol=1e-6)


@pytest.mark.ci
def test_killed_and_resumed_it_stops_at_the_same_step_with_the_same_bits(tmp_path):
    """Killed when two evaluations had brought nothing and the rate was lowered twice."""
    changes = {
        "epochs": 10,
        "early_stopping__patience": 3,
        "schedule__name": "plateau",
        "schedule__patience": 1,
        "schedule__factor": 0.5,
        "schedule__warmup_epochs": 1.0,
        "checkpoint__every_epochs": 2,
        "checkpoint__model": "best",
        "data__sampler": "balanced",
        "loss__class_weights": "balanced",
    }
    output, _ = start(tmp_path / "whole", SCRIPTED, **changes).communicate()
    assert "Stopped early, after step 179 of 224" in output
    # Checkpoints of steps 22, 44 and 89, each flushed twice; the next is of step 112.
    killed = start(tmp_path / "killed", SCRIPTED + DIES + 'die_at(os, "fsync", 7)', **changes)
    output, _ = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, output
    output, _ = start(tmp_path / "killed", SCRIPTED, **changes).communicate()
    assert "resuming   at step 89 of 224" in output
    rows, results = [], []
    for folder in (tmp_path / "whole", tmp_path / "killed"):
        workdir = WorkDir(folder)
        rates = {row["step"]: row.get("learning_rate") for row in workdir.read_metrics()}
        evaluations = [row for row in workdir.read_metrics() if row["kind"] == "eval"]
        rows.append(([rates[step] for step in (65, 70, 90, 110, 135, 175)], evaluations))
        results.append({**workdir.read_result(), "train_images_per_second": 0.0})
    assert rows[0] == rows[1]
    np.testing.assert_allclose(rows[0][0], [0.05 / 2**n for n in (0, 1, 2, 2, 3, 4)], rtol=1e-6)
    assert results[0] == results[1]
    assert (results[0]["step"], results[0]["model_step"]) == (179, 112)
    assert final_weights(tmp_path / "whole") == final_weights(tmp_path / "killed")


def _two_hosts(workdir):
    """Starts two processes that train together over loopback."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    changes = {
        "epochs": 16,
        "batch_size": 32,
        "strategy": "multi_worker",
        "deterministic": False,
        "early_stopping__patience": 2,
        "schedule__name": "plateau",
        "schedule__patience": 1,
        "schedule__factor": 0.5,
        "checkpoint__every_epochs": 3,
        "data__sampler": "balanced",
        "data__train_split": "train[:40%]",
        "data__eval_split": "test[:60]",
    }
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        prelude = f"import os\nos.environ['TF_CONFIG'] = {json.dumps(task)!r}"
        processes.append(start(workdir, prelude, **changes))
    return processes


@pytest.mark.slow  # each process traces for itself: minutes on two cores
def test_two_hosts_stop_at_the_same_step_after_a_kill_too(tmp_path):
    evaluations = []
    for folder, killed in ((tmp_path / "whole", False), (tmp_path / "killed", True)):
        workdir = WorkDir(folder)
        if killed:
            processes = _two_hosts(folder)
            checkpoint = workdir.checkpoints / "ckpt-71.safetensors"
            assert wait_for(checkpoint.exists, processes[0], seconds=300)
            for process in processes:
                kill(process)
        for process in _two_hosts(folder):
            output, _ = process.communicate(timeout=600)
            assert process.returncode == 0, output
        evaluations.append([row for row in workdir.read_metrics() if row["kind"] == "eval"])
        assert workdir.read_result()["step"] == evaluations[-1][-1]["step"] < 287
    assert evaluations[0] == evaluations[1]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of which the second evaluation is the best, that stops early after the fourth."""
    folder = tmp_path_factory.mktemp("stopped")
    evaluate_source, accuracies = run.evaluate_source, iter([0.3, 0.9, 0.2, 0.1])

    def scripted(*arguments, **options):
        evaluation = evaluate_source(*arguments, **options)
        evaluation.means["top1"] = next(accuracies)
        return evaluation

    config = tiny_config(deterministic=False, epochs=6, early_stopping__patience=2)
    config.checkpoint.model = "best"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "evaluate_source", scripted)
        result = run.train(config, folder)
    return config, folder, result


def _weights(model):
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


@pytest.mark.ci
def test_the_best_becomes_model_keras_and_each_can_be_asked_for(stopped):
    config, folder, result = stopped
    assert (result["step"], result["model_step"], result["best_step"]) == (89, 44, 44)
    workdir = WorkDir(folder)
    recorded = [row for row in workdir.read_metrics() if row["kind"] == "eval"]
    assert result["loss"] == recorded[1]["loss"]
    best, newest = (_weights(load_model_of_workdir(workdir, which)) for which in ("best", "newest"))
    np.testing.assert_array_equal(_weights(load_model_of_workdir(workdir)), best)
    assert np.abs(best - newest).max() > 1e-3
    for checkpoint, step in ((None, 44), ("best", 44), ("newest", 89)):
        assert restore(workdir.read_config(), workdir, checkpoint)[1] == step
    # The same command leaves it as it is; asked for the newest, it writes that.
    written = workdir.model.stat().st_mtime_ns
    assert run.train(config, folder)["model_step"] == 44
    assert workdir.model.stat().st_mtime_ns == written
    config.checkpoint.model = "newest"
    assert run.train(config, folder)["model_step"] == 89
    np.testing.assert_array_equal(_weights(load_model_of_workdir(workdir)), newest)
    np.testing.assert_array_equal(_weights(load_model_of_workdir(workdir, "best")), best)


@pytest.mark.ci
def test_a_larger_patience_goes_on(stopped, tmp_path, capsys):
    config, folder, _ = stopped
    config.early_stopping.patience = 20
    assert run.train(config, folder)["step"] == 134
    assert "resuming   at step 89 of 134" in capsys.readouterr().out
    (entry,) = WorkDir(folder).read_history()
    assert entry["changed"] == {"early_stopping.patience": [2, 20]}


def test_the_checkpoint_is_asked_for_of_work_directories_only(tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"")
    for command in (
        ["predict", "--model=a.keras", "a.png"],
        ["export", "--model=a.keras", f"--output={tmp_path}"],
        ["evaluate", "--model=a.keras", "--data=photos"],
    ):
        assert main([*command, "--checkpoint=best"]) == 2
        assert "--checkpoint=best goes with --workdir" in capsys.readouterr().err


def test_a_copied_model_file_is_taken_whatever_it_is(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    for checkpoint in (None, "newest"):
        loaded = load_model_of_workdir(WorkDir(tmp_path), checkpoint)
        np.testing.assert_array_equal(_weights(loaded), _weights(model))
    with pytest.raises(UserError, match="no run was started here"):
        load_model_of_workdir(WorkDir(tmp_path), "best")


def test_old_results_without_the_step_of_the_model_are_read(tmp_path):
    result = {"top1": 1.0, "top5": 1.0, "loss": 0.1, "examples": 9, "step": 4}
    WorkDir(tmp_path).result.write_text(json.dumps(result))
    assert WorkDir(tmp_path).read_result() == result
    assert training.load_config("digits").checkpoint.model == "newest"
