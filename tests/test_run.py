"""Whole runs on the embedded digits: what they leave, resuming, refusals."""

import json
import shutil

import keras
import numpy as np
import pytest
from input_helpers import write_images
from run_helpers import tiny_config

import keras_resnet
from keras_resnet import calibration, input_pipeline
from keras_resnet import config as configs
from keras_resnet.calibration import Calibration
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.training import evaluation, run
from keras_resnet.training.workdir import WorkDir

FILES = ["config.json", "dataset.json", "metrics.jsonl", "model.keras", "curves.png", "result.json"]
FILES += ["report.html"]


@pytest.fixture(scope="session")
def smoke():
    return configs.check(configs.load_config("smoke"))


@pytest.fixture(scope="session")
def finished(smoke, tmp_path_factory):
    """The work directory of a finished smoke run, and what `train` returned."""
    folder = tmp_path_factory.mktemp("finished")
    return WorkDir(folder), run.train(smoke, folder)


def test_a_run_leaves_its_files(finished):
    workdir, result = finished
    assert all((workdir.path / name).stat().st_size > 0 for name in FILES)
    assert list(workdir.tensorboard.glob("events.out.tfevents.*"))
    assert list(workdir.checkpoints.glob("ckpt-*.safetensors"))
    # No temporary file is left.
    assert [path.name for path in workdir.path.glob(".*")] == [".lock"]
    assert json.loads(workdir.result.read_text()) == result
    assert {"top1", "top5", "loss", "examples", "step", "train_images_per_second"} <= set(result)
    assert (result["examples"], result["step"]) == (360, 2 * 1437 // 128)


def test_metrics_have_a_row_per_epoch(finished):
    workdir, _ = finished
    rows = workdir.read_metrics()
    assert [row["step"] for row in rows if row["kind"] == "eval"] == [11, 22]
    trained = [row for row in rows if row["kind"] == "train"]
    assert sum(row["examples"] for row in trained) == 22 * 128
    for row in trained:
        assert {"step", "epoch", "loss", "learning_rate", "images_per_second"} <= set(row)
    # Step 21 is the last; the cosine is not quite 0 there.
    expected = 0.05 * 0.5 * (1 + np.cos(np.pi * 21 / 22))
    assert trained[-1]["learning_rate"] == pytest.approx(expected, rel=1e-4)


def test_saved_model_gives_the_reported_accuracy(finished):
    workdir, result = finished
    model = keras.saving.load_model(workdir.model)
    source = input_pipeline.open_source("tfds", name="digits", path="", split="test")
    right = 0
    for batch in input_pipeline.evaluation_batches(
        source, batch_size=360, preprocessing=model.preprocessing
    ):
        images = batch["image"].numpy() / 255.0
        inputs = (images - model.preprocessing["mean"]) / model.preprocessing["std"]
        probabilities = model.predict(inputs.astype("float32"), verbose=0)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
        right += (probabilities.argmax(axis=1) == batch["label"].numpy()).sum()
    assert right / 360 == pytest.approx(result["top1"])
    assert model.class_names == [str(digit) for digit in range(10)]


def test_calibration_is_that_of_the_saved_model(finished):
    workdir, result = finished
    found = json.loads(workdir.calibration.read_text())
    model = keras.saving.load_model(workdir.model)
    source = input_pipeline.open_source("tfds", name="digits", path="", split="test")
    judged = keras_resnet.evaluate(model, source)
    probabilities = np.zeros((360, 10))
    np.put_along_axis(probabilities, judged.predictions, judged.probabilities, axis=1)
    fitted = calibration.fit(np.log(probabilities), judged.labels, "test")
    assert found["temperature"] == pytest.approx(fitted.temperature, rel=1e-3)
    assert found["cross_entropy"] == pytest.approx(judged.loss, rel=1e-4)
    assert found["cross_entropy_calibrated"] < found["cross_entropy"]
    assert found["ece_calibrated"] < found["ece"]
    for key, temperature in (("bins", 1.0), ("bins_calibrated", fitted.temperature)):
        rows = calibration.reliability_bins(
            *calibration.judge(np.log(probabilities), judged.labels, temperature)
        )
        assert [row["count"] for row in found[key]] == [row["count"] for row in rows]
        assert sum(row["count"] for row in rows) == 360
    assert (found["split"], found["images"], found["split_images"]) == ("test", 360, 360)
    assert found["thresholds"][0]["accuracy"] == result["top1"]
    assert "the images that the run reports" in found["note"]
    # It travels with the weights.
    np.testing.assert_allclose(model.calibration.quantiles, fitted.quantiles, rtol=2e-3)
    assert model.calibration == Calibration.from_dict(found)


@pytest.mark.ci
def test_a_run_of_an_older_version_gets_its_calibration(finished, smoke, tmp_path):
    workdir, _ = finished
    older = WorkDir(tmp_path / "older")
    shutil.copytree(workdir.path, older.path)
    model = keras.saving.load_model(older.model)
    model.calibration = None
    model.save(older.model)
    older.calibration.unlink()
    result = older.result.read_text()
    run.train(smoke, older.path)
    again = keras.saving.load_model(older.model)
    assert again.calibration.temperature == pytest.approx(
        json.loads(workdir.calibration.read_text())["temperature"], rel=1e-4
    )
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert json.loads(older.result.read_text()).keys() == json.loads(result).keys()


def test_evaluate_command_counts_every_example(finished, capsys):
    workdir, result = finished
    assert main(["evaluate", f"--workdir={workdir.path}", "--json"]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    for key in ("top1", "top5", "examples", "step"):
        assert again[key] == result[key]
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-5)
    # 360 is no multiple of 7 nor of 128: the padding must not count.
    arguments = ["evaluate", f"--workdir={workdir.path}", "--json", "--config.batch_size=7"]
    assert main(arguments) == 0
    other = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert other["examples"] == 360
    assert other["top1"] == pytest.approx(result["top1"])
    assert other["loss"] == pytest.approx(result["loss"], rel=1e-4)


def test_running_a_finished_run_again_evaluates(finished, smoke, capsys):
    workdir, result = finished
    before = workdir.metrics.read_text()
    again = run.train(smoke, workdir.path)
    assert "finished" in capsys.readouterr().out
    assert again["top1"] == result["top1"]
    assert again["train_images_per_second"] == result["train_images_per_second"]
    assert workdir.metrics.read_text() == before


def test_another_config_is_refused_with_the_differing_keys(finished, capsys):
    workdir, _ = finished
    arguments = ["train", "--config=smoke", f"--workdir={workdir.path}", "--config.seed=3"]
    assert main(arguments) == 1
    assert "seed: 0 -> 3" in capsys.readouterr().err


def test_a_resumed_run_notes_what_was_changed(finished, capsys):
    workdir, result = finished
    before = workdir.config.read_text()
    arguments = ["train", "--config=smoke", f"--workdir={workdir.path}"]
    changes = ["--config.checkpoint.keep=5", "--config.data.max_broken_share=0.5"]
    assert main([*arguments, *changes]) == 0
    assert f"top1 {result['top1']:.4f}" in capsys.readouterr().out
    (entry,) = workdir.read_history()
    assert entry["changed"] == {"data.max_broken_share": [0.01, 0.5]}
    assert workdir.read_config().checkpoint.keep == 5
    workdir.config.write_text(before)


def test_predict_prints_class_names(finished, tmp_path, capsys):
    from PIL import Image
    from sklearn.datasets import load_digits

    workdir, _ = finished
    path = tmp_path / "a digit.png"
    Image.fromarray((load_digits().images[0] * 15.9375).astype("uint8")).save(path)
    assert main(["predict", f"--workdir={workdir.path}", str(path), "--top=3", "--json"]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert row["image"] == str(path)
    assert len(row["predictions"]) == 3
    probabilities = [entry["probability"] for entry in row["predictions"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(entry["class"] == str(entry["class_id"]) for entry in row["predictions"])
    assert main(["predict", f"--workdir={workdir.path}", str(path)]) == 0
    assert "%" in capsys.readouterr().out


def test_predict_names_what_it_cannot_read(finished, tmp_path, capsys):
    workdir, _ = finished
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    for path in (text, tmp_path / "missing.png", tmp_path):
        assert main(["predict", f"--workdir={workdir.path}", str(path)]) == 1
        message = capsys.readouterr().err
        assert str(path) in message
        assert message.count("\n") == 1


def test_replicas_evaluate_alike(finished, smoke):
    """Four logical CPUs give the metrics of one."""
    workdir, result = finished
    config = smoke.copy_and_resolve_references()
    config.strategy = "mirrored"
    means = evaluation.evaluate(config, workdir)
    assert means["examples"] == 360
    assert means["top1"] == result["top1"]
    assert means["loss"] == pytest.approx(result["loss"], rel=1e-5)


@pytest.mark.slow  # the equality of replicas is tested without it
def test_replicas_train_and_save(smoke, tmp_path):
    config = smoke.copy_and_resolve_references()
    config.strategy, config.epochs = "mirrored", 1
    result = run.train(config, tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert result["examples"] == 360
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.parametrize("name", ["cpu", "one_device"])
def test_strategies_for_one_device(name):
    from keras_resnet.training.tensorflow.strategy import describe, make_strategy

    assert describe(make_strategy(name)) == "OneDeviceStrategy on CPU"


@pytest.mark.parametrize(
    ("override", "quoted"),
    [
        ({"batch_size": 4000, "epochs": 1}, "batch_size=4000"),
        ({"batch_size": 10, "strategy": "mirrored"}, "take 8"),
    ],
)
def test_batch_sizes_that_cannot_work(smoke, tmp_path, override, quoted):
    config = smoke.copy_and_resolve_references()
    config.update(override)
    with pytest.raises(UserError, match=quoted):
        run.train(config, tmp_path)


def test_a_failed_start_does_not_bind_the_folder(smoke, tmp_path):
    config = smoke.copy_and_resolve_references()
    config.data.path = str(tmp_path / "nowhere")
    config.data.source = "image_folder"
    with pytest.raises(input_pipeline.DataError, match="nowhere"):
        run.train(config, tmp_path / "w")
    WorkDir(tmp_path / "w").check(smoke)


@pytest.mark.slow
def test_a_run_that_skips_broken_images(tmp_path, capsys):
    for split in ("train", "test"):
        write_images(tmp_path / "photos" / split, {"cat": 10, "dog": 10})
    for name in ("train/cat/3.png", "train/dog/0.png", "test/cat/1.png"):
        (tmp_path / "photos" / name).write_bytes(b"no image")
    config = tiny_config(
        epochs=1, batch_size=10, deterministic=False, data__source="image_folder",
        data__path=str(tmp_path / "photos"), data__on_error="skip", data__max_broken_share=0.2,
    )  # fmt: skip
    result = run.train(config, tmp_path / "run")
    assert result == json.loads(WorkDir(tmp_path / "run").result.read_text())
    assert (result["skipped_train_images"], result["skipped_eval_images"]) == (2, 1)
    assert result["examples"] == 19
    assert "3 broken images were skipped" in capsys.readouterr().out
    # Evaluated again, nothing is read for training: its count stays.
    again = run.train(config, tmp_path / "run")
    for key in ("skipped_train_images", "skipped_eval_images", "examples"):
        assert again[key] == result[key]


@pytest.mark.ci
def test_mixed_precision_trains_and_saves_float32(smoke, tmp_path):
    config = smoke.copy_and_resolve_references()
    config.precision, config.epochs = "mixed_bfloat16", 1
    result = run.train(config, tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert {str(weight.dtype) for weight in model.get_weights()} == {"float32"}
    assert np.isfinite(result["loss"])


def test_unwritable_work_directory(smoke, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run.train(smoke, file / "below")


@pytest.mark.parametrize("content", [None, "{", '{"epochz": 3}'])
def test_broken_work_directories(tmp_path, content, capsys):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert main(["evaluate", f"--workdir={tmp_path}"]) in (1, 2)
    assert str(tmp_path) in capsys.readouterr().err
