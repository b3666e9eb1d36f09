"""The one predictor: the same answers from a work directory, a file, an export and Python."""

import contextlib
import io
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import CLASSES, tiny_classifier
from input_helpers import encode, smooth_image

from keras_resnet import input_pipeline, training
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.export import Predictor, export_file, export_saved_model, load_predictor
from keras_resnet.export.formats import FORMATS, PRECISIONS, find_format


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    arguments = ["--config=smoke", f"--workdir={folder}", "--config.epochs=1"]
    arguments += ["--config.model.depths=(1, 1, 1)", "--config.data.image_size=12"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["train", *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three good images, one truncated, one empty, one that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encode(smooth_image(20, 30, seed=number)))
    (folder / "cut.jpg").write_bytes(encode(smooth_image(50, 40, seed=1), "JPEG")[:100])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.gif").write_text("no image")
    return folder


def answers_of_command(capsys, *arguments):
    """{path: predictions, or the error} that `predict --json` prints."""
    main(["predict", "--json", "--top=3", *map(str, arguments)])
    rows = map(json.loads, capsys.readouterr().out.splitlines())
    return {row["image"]: row.get("predictions", row.get("error")) for row in rows}


def assert_same(answers, expected, tolerance=0.0):
    assert list(answers) == list(expected)
    for path, answer in answers.items():
        reference = expected[path]
        if isinstance(reference, str):
            assert answer == reference
            continue
        for row, wanted in zip(answer, reference, strict=True):
            assert {**row, "probability": 0} == {**wanted, "probability": 0}
            assert row["probability"] == pytest.approx(wanted["probability"], rel=tolerance)


@pytest.mark.ci
def test_all_ways_to_predict_give_the_same(workdir, photos, tmp_path, capsys):
    capsys.readouterr()
    expected = dict(training.predict(workdir, [photos], top=3))
    assert [type(answer) for answer in expected.values()] == [list] * 3 + [str] * 3
    assert "truncated JPEG" in expected[str(photos / "cut.jpg")]
    assert "is empty" in expected[str(photos / "empty.png")]
    model = workdir / "model.keras"
    assert_same(answers_of_command(capsys, f"--workdir={workdir}", photos), expected)
    assert_same(answers_of_command(capsys, f"--model={model}", photos), expected)
    for source in (workdir, model):
        for batch_size in (1, 4):
            made = load_predictor(source, top=3).predict([photos], batch_size=batch_size)
            assert_same(dict(made), expected, tolerance=1e-5)
    for on_error in ("fail", "flag"):
        folder = tmp_path / on_error
        loaded = keras.saving.load_model(model, compile=False)
        export_saved_model(loaded, folder, top=4, on_error=on_error)
        for source in (folder, folder / "1"):
            assert_same(answers_of_command(capsys, f"--model={source}", photos), expected, 1e-4)
            assert_same(dict(load_predictor(source, 3).predict([photos])), expected, 1e-4)


def test_a_work_directory_predicts_from_what_it_has(workdir, photos, tmp_path, capsys):
    capsys.readouterr()
    expected = dict(training.predict(workdir, [photos], top=3))
    # A run that still goes on: from its newest checkpoint, which is the last one here.
    running = tmp_path / "running"
    shutil.copytree(workdir, running)
    (running / "result.json").unlink()
    assert_same(answers_of_command(capsys, f"--workdir={running}", photos), expected, 1e-5)
    (running / "model.keras").unlink()
    assert_same(dict(load_predictor(running, 3).predict([photos])), expected, 1e-5)
    # One of which only the model was kept.
    kept = tmp_path / "kept"
    shutil.copytree(workdir, kept, ignore=shutil.ignore_patterns("checkpoints", "result.json"))
    assert_same(answers_of_command(capsys, f"--workdir={kept}", photos), expected)
    (kept / "model.keras").unlink()
    with pytest.raises(UserError, match="no checkpoint yet; train first"):
        training.predict(kept, [photos])
    with pytest.raises(UserError, match="no run was started here"):
        training.predict(tmp_path, [photos])
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(workdir / "model.keras", alone)
    assert_same(answers_of_command(capsys, f"--workdir={alone}", photos), expected)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("activation", "probabilities"),
    [("sigmoid", tf.sigmoid), ("softmax", tf.nn.softmax), (None, tf.nn.softmax)],
)
def test_the_classifier_says_how_probabilities_are_made(
    activation, probabilities, photos, tmp_path
):
    model = tiny_classifier(classifier_activation=activation)
    path = tmp_path / "model.keras"
    model.save(path)
    export_file(model, tmp_path / "folded.keras", format="keras")
    sources = [path, tmp_path / "folded.keras"]
    if activation != "softmax":  # which is what the test above serves
        export_saved_model(model, tmp_path / "served")
        sources.append(tmp_path / "served")
    file = photos / "0.png"
    image = input_pipeline.evaluation_image(tf.constant(file.read_bytes()), model.preprocessing)
    inputs = input_pipeline.normalize(image[None], model.preprocessing)
    logits = keras.Model(model.inputs, model.layers[-1].input)(inputs) @ model.layers[-1].kernel
    expected = probabilities(logits + model.layers[-1].bias)[0].numpy()
    for source in sources:
        ((_, rows),) = load_predictor(source).predict([file])
        assert [row["class_id"] for row in rows] == list(np.argsort(-expected)[:5])
        for row in rows:
            assert row["class"] == CLASSES[row["class_id"]]
            assert row["probability"] == pytest.approx(expected[row["class_id"]], rel=1e-4)


def test_activations_that_give_no_probabilities_are_refused():
    model = tiny_classifier(classifier_activation="relu")
    with pytest.raises(UserError, match="ends in the activation 'relu'; probabilities are made"):
        Predictor.of_model(model)


def test_every_format_has_a_writer_that_can_be_imported():
    assert set(PRECISIONS) == {"float32", "bfloat16", "float16", "int8"}
    for name, row in FORMATS.items():
        assert bool(row.suffix) == bool(row.writer) == (name != "saved_model")
        if row.writer:
            module, _, function = row.writer.partition(":")
            assert module == f"keras_resnet.export.{'keras_file' if name == 'keras' else name}"
            assert function == "write"
    with pytest.raises(UserError, match=r"unknown export format 'onyx'.*did you mean 'onnx'"):
        find_format("onyx", "float32")
    with pytest.raises(UserError, match="tflite has no precision 'bfloat16'; it has float32"):
        find_format("tflite", "bfloat16")
