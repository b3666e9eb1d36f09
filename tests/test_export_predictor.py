"""The one predictor: the same answers from a work directory, a file, an export and Python."""

import collections
import contextlib
import io
import json
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_helpers import CLASSES, tiny_classifier
from input_helpers import PREPROCESSING, encode, smooth_image
from PIL import Image, ImageOps, features

from keras_resnet import input_pipeline, training
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.export import Predictor, export_file, export_saved_model, load_predictor
from keras_resnet.export.formats import FORMATS, PRECISIONS, find_format
from keras_resnet.images import encode as encode_image
from keras_resnet.input_pipeline import DataError, corrupt_images
from keras_resnet.input_pipeline.image_listing import in_words, list_images
from keras_resnet.input_pipeline.other_formats import as_png


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


@pytest.mark.ci
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


class Answers(Predictor):
    """Class 0 for every image that can be decoded, without a network."""

    def __init__(self):
        def answer(encoded):
            valid = [corrupt_images.problem(lambda f=f: f) is None for f in encoded]
            count = len(valid)
            return {
                "classes": tf.fill([count, 1], b"a"),
                "class_ids": tf.zeros([count, 1], tf.int32),
                "probabilities": tf.ones([count, 1]),
                "valid": tf.constant(valid),
            }

        super().__init__(lambda encoded: answer(encoded.numpy()), ["a"])


def test_one_path_is_one_path(photos):
    for path in (str(photos / "0.png"), photos / "0.png"):
        [(name, [row])] = Answers().predict(path)
        assert (name, row["class"]) == (str(photos / "0.png"), "a")
    assert len(list(Answers().predict(str(photos)))) == 6
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        next(Answers().predict("nowhere"))


def test_what_is_gone_is_a_row(photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "dead.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe.jpg")  # in a folder it is passed over
    (folder / "zero.png").symlink_to("/dev/zero")  # what `predict *` names
    with open(folder / "sparse.png", "wb") as file:
        os.truncate(file.fileno(), 2**40)
    named = [folder / name for name in ("dead.png", "pipe.jpg", "zero.png")]
    answers = dict(Answers().predict([*named, folder]))
    assert answers.pop(str(folder / "sparse.png")).startswith("has 1,099,511,627,776 bytes; more")
    for name in ("pipe.jpg", "zero.png"):
        assert answers.pop(str(folder / name)) == (
            "is no file that can be read: it is a folder, a device or a pipe."
        )
        with pytest.raises(OSError, match="it is a folder, a device or a pipe"):
            encode_image(folder / name)
    (folder / "sparse.png").unlink()
    assert answers[str(folder / "dead.png")] == "cannot be read: No such file or directory"
    assert len(answers) == 7
    files = list(list_images(folder))
    files[1].unlink()  # one of the three good ones
    answers = dict(Answers().predict_files(files))
    assert answers[str(files[1])] == "cannot be read: No such file or directory"
    assert [type(answer) for answer in answers.values()].count(list) == 2


def test_files_passed_over_are_counted_by_suffix(photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "0.png").rename(folder / "0.JFIF")  # which is a JPEG by its name
    for name in ("a.heic", "b.HEIC", "c.tif", "notes", "d.txt", "e.txt", "f.txt"):
        (folder / name).write_bytes(b"x")
    os.mkfifo(folder / "pipe.jpg")
    passed_over = collections.Counter()
    files = list(list_images([folder], passed_over))
    assert len(files) == 6
    assert in_words(passed_over) == (
        "3 .txt, 2 .heic, 1 without a suffix, 1 .tif, 1 pipes, sockets and devices"
    )
    assert len(list(list_images(folder, also=(".heic", ".tif")))) == 9


@pytest.mark.ci
def test_the_command_says_what_it_passed_over(photos, workdir, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.png").write_bytes((photos / "0.png").read_bytes())
    for name in ("b.heic", "notes"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.setattr("keras_resnet.commands.predict.suffixes_read", tuple)
    assert main(["predict", f"--workdir={workdir}", str(tmp_path)]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "note: 1 file was predicted, and passed over for their names: 1 without a suffix, 1 .heic; "
        "pip install 'keras-resnet-tpu[heif]' reads .heic"
    )


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "HEIF"])
def test_other_formats_are_read_through_pillow(kind, tmp_path):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    exif = Image.Exif()
    exif[0x0112] = 6
    image = smooth_image(40, 60)
    encoded = encode(image, kind, exif=exif, **({} if kind == "TIFF" else {"quality": 95}))
    png = as_png(encoded)
    values = {**PREPROCESSING, "image_size": 40, "exif": "apply"}
    pixels = input_pipeline.evaluation_image(tf.constant(png), values).numpy().astype(int)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
    # How a HEIC file is turned says a box of its own, not its EXIF (ISO 23008-12, section 6.5.10).
    assert upright.size == ((60, 40) if kind == "HEIF" else (40, 60))
    middle = np.s_[:, 10:50] if kind == "HEIF" else np.s_[10:50]
    np.testing.assert_array_equal(pixels, np.asarray(upright)[middle])
    assert as_png(b"something else") == b"something else"
    with pytest.raises(
        DataError, match=r"^claims \d0 × \d0 pixels .* up to 10 \(data.max_pixels\)"
    ):
        as_png(encoded, max_pixels=10)
    file = tmp_path / "cut.tif"
    file.write_bytes(encoded[: len(encoded) // 2])
    [(_, said)] = Answers().predict(file)
    assert said.startswith(f"is a damaged {'HEIC' if kind == 'HEIF' else kind} (")


def test_tiffs_of_16_bits_keep_the_upper_eight():
    image = np.random.default_rng(0).integers(0, 2**16, (5, 7), np.uint16)
    decoded = np.asarray(Image.open(io.BytesIO(as_png(encode(image, "TIFF")))))
    np.testing.assert_array_equal(decoded[..., 0], image >> 8)
