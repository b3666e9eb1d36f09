"""`keras_resnet.evaluate` and `keras-resnet evaluate --model --data`: any model, any images."""

import csv
import dataclasses
import io
import json
import unicodedata

import keras
import numpy as np
import pytest
from export_helpers import CLASSES, tiny_classifier
from input_helpers import encode, smooth_image
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

import keras_resnet
from keras_resnet.class_matching import match_classes
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.export import export_file, export_saved_model
from keras_resnet.export.loading import load_predictor
from keras_resnet.export.predictor import Predictor
from keras_resnet.input_pipeline import DataError, open_source

# Whole runs, most of them: `.ci/run` runs them, the README's command has its ten minutes.
pytestmark = pytest.mark.ci

COUNTS = dict(zip(CLASSES, (3, 5, 2, 4, 1, 6), strict=True))


@pytest.fixture(scope="module")
def model():
    return tiny_classifier()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """photos/{Training,Testing}/CLASS/N.png, of different sizes; one training image a class."""
    folder = tmp_path_factory.mktemp("photos")
    for number, (name, count) in enumerate(COUNTS.items()):
        for split, images in (("Training", 1), ("Testing", count)):
            (folder / split / name).mkdir(parents=True)
            for index in range(images):
                image = smooth_image(30 + 3 * index, 44, seed=10 * number + index)
                (folder / split / name / f"{index}.png").write_bytes(encode(image))
    return folder


@pytest.fixture(scope="module")
def truth(model, photos):
    """Labels and probabilities by name of the file, of the images as Keras takes them."""
    files = sorted((photos / "Testing").rglob("*.png"))
    inputs = keras_resnet.preprocess(model, files)
    probabilities = keras.ops.convert_to_numpy(model(inputs, training=False))
    return {
        str(file): (CLASSES.index(file.parent.name), row)
        for file, row in zip(files, probabilities, strict=True)
    }


@pytest.fixture(scope="module")
def predictor(model):
    """Which is compiled once, not for every test."""
    return Predictor.of_model(model, top=len(CLASSES))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


def assert_is_truth(result, truth, loss=True, tolerance=1e-5):
    labels, probabilities = (np.array(column) for column in zip(*truth.values(), strict=True))
    assert sorted(result.files) == sorted(truth)  # each once
    assert result.examples == sum(COUNTS.values())
    assert result.top1 == (probabilities.argmax(1) == labels).mean()
    assert result.top5 == top_k_accuracy_score(labels, probabilities, k=5)
    if loss:
        assert result.loss == pytest.approx(log_loss(labels, probabilities), rel=tolerance)
    else:
        assert result.loss is None
    expected = confusion_matrix(labels, probabilities.argmax(1), labels=range(len(CLASSES)))
    np.testing.assert_array_equal(result.confusion_matrix(), expected)
    assert [row["examples"] for row in result.per_class()] == list(COUNTS.values())
    assert [row["correct"] for row in result.per_class()] == list(expected.diagonal())
    for file, label in zip(result.files, result.labels, strict=True):
        assert truth[file][0] == label


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_every_image_counts_once(predictor, photos, truth, batch_size):
    result = keras_resnet.evaluate(predictor, photos, batch_size=batch_size)
    assert_is_truth(result, truth)
    assert result.layout == f"{photos}: splits Training, Testing; 6 classes"
    assert result.source == f"{photos.name} Testing: 21 images, 6 classes"
    assert (result.notes, result.unreadable) == ((), ())


def test_files_and_open_sources(saved, predictor, photos, truth):
    assert_is_truth(keras_resnet.evaluate(saved, photos, split="test"), truth)
    source = open_source("image_folder", path=str(photos), split="Testing", cache="memory")
    result = keras_resnet.evaluate(predictor, source)
    assert result.top1 == np.mean([row.argmax() == label for label, row in truth.values()])
    assert keras_resnet.evaluate(predictor, str(photos), split="train").examples == 6


@pytest.mark.ci
def test_exports(model, photos, truth, tmp_path):
    export_saved_model(model, tmp_path / "served")
    result = keras_resnet.evaluate(tmp_path / "served", photos)
    assert_is_truth(result, truth, loss=False)
    export_saved_model(model, tmp_path / "three", top=3)
    assert keras_resnet.evaluate(tmp_path / "three", photos).top5 is None
    path = tmp_path / "model.tflite"
    export_file(model, path, format="tflite")
    assert_is_truth(keras_resnet.evaluate(path, photos), truth, tolerance=1e-4)
    assert load_predictor(path).class_names == tuple(CLASSES)


@pytest.mark.filterwarnings("ignore")
def test_onnx(model, photos, truth, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    path = tmp_path / "model.onnx"
    export_file(model, path, format="onnx")
    assert_is_truth(keras_resnet.evaluate(path, photos), truth, tolerance=1e-4)


def test_tflite_predicts_with_its_own_description(model, photos, tmp_path):
    path = tmp_path / "model.tflite"
    export_file(model, path, format="tflite")
    file = photos / "Testing" / "cat" / "0.png"
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff nothing")
    (_, rows), (_, problem) = load_predictor(path, top=3).predict([file, broken])
    expected = keras.ops.convert_to_numpy(model(keras_resnet.preprocess(model, file)))[0]
    assert [row["class_id"] for row in rows] == list(np.argsort(-expected)[:3])
    assert rows[0]["class"] == CLASSES[rows[0]["class_id"]]
    assert rows[0]["probability"] == pytest.approx(expected.max(), rel=1e-4)
    assert "JPEG" in problem
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"PK\x03\x04")])  # as files were before
    with pytest.raises(UserError, match="does not say how its images are prepared"):
        load_predictor(path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be loaded by TensorFlow Lite"):
        load_predictor(path)
    with pytest.raises(UserError, match=r"gone\.tflite: no such file"):
        load_predictor(tmp_path / "gone.tflite")


def test_weights_that_name_their_network(photos, tmp_path):
    made = tiny_classifier()
    made.save_weights(tmp_path / "ours.weights.h5")
    expected = keras_resnet.evaluate(made, photos)
    found = keras_resnet.evaluate(tmp_path / "ours.weights.h5", photos)
    np.testing.assert_array_equal(found.predictions, expected.predictions)
    keras.Model.save_weights(made, tmp_path / "x.weights.h5")  # as of any model
    with pytest.raises(UserError, match=r"keras-resnet convert.*--model=NAME"):
        keras_resnet.evaluate(tmp_path / "x.weights.h5", photos)
    with pytest.raises(UserError, match="nothing: no such folder"):
        keras_resnet.evaluate(tmp_path / "nothing", photos)


# --- classes ---


def test_a_folder_with_a_part_of_the_classes_in_another_order(predictor, photos, tmp_path, truth):
    for new, old in (("Fox", "fox"), ("bee", "bee")):
        (tmp_path / new).symlink_to(photos / "Testing" / old)
    result = keras_resnet.evaluate(predictor, tmp_path)
    assert result.notes == (
        "2 of the model's 6 classes are in the data",
        "the same class, written otherwise: Fox = fox",
    )  # fmt: skip
    wanted = [row for row in truth.items() if "/fox/" in row[0] or "/bee/" in row[0]]
    assert result.examples == len(wanted) == COUNTS["fox"] + COUNTS["bee"]
    assert result.top1 == np.mean([row.argmax() == label for _, (label, row) in wanted])


def test_classes_are_matched_by_name():
    numbers, notes = match_classes(["b", "a"], ["a", "b"], "x")
    assert (list(numbers), notes) == ([1, 0], [])
    decomposed = unicodedata.normalize("NFD", "äpfel")  # as macOS names folders
    numbers, notes = match_classes([decomposed, "hot_dog"], ["Hot Dog", "äpfel", "z"], "x")
    assert list(numbers) == [1, 0]
    assert len(notes) == 2
    assert list(match_classes(["2", "0"], ["0", "1", "2"], "x")[0]) == [2, 0]
    # "A" and "a" are two classes of the model: nothing is guessed.
    assert list(match_classes(["a", "A"], ["A", "a"], "x")[0]) == [1, 0]


def test_a_model_without_names_takes_those_of_the_data():
    numbers, notes = match_classes(["cat", "dog"], ["0", "1"], "x")
    assert list(numbers) == [0, 1]
    assert notes == [
        "the model's 2 classes have no names: they are taken to be those of the data in their "
        "order, cat, dog"
    ]
    with pytest.raises(UserError, match=r"x has 1 classes \(cat\), and the model 2 without names"):
        match_classes(["cat"], ["0", "1"], "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["ant", "cow"], r"x: 1 of its 2 classes are none of the model's: cow.*The model's 3 are"),
        (["ant", "bea"], r"bea; did you mean 'bee'\?\. The model's"),
        (["cow", "ox"], r"2 of its 2 classes are none of the model's: cow, ox\. The model's 3"),
        (["Ant", "ANT"], r"its classes Ant, ANT are one class of the model, 'ant'"),
    ],
)
def test_classes_that_do_not_match(data, message):
    with pytest.raises(UserError, match=message):
        match_classes(data, ["ant", "bee", "cat"], "x")


def test_class_names_by_hand(model, predictor, photos):
    with pytest.raises(UserError, match="2 class names for the 6 classes"):
        keras_resnet.evaluate(model, photos, class_names=["a", "b"])
    reversed_names = keras_resnet.evaluate(model, photos, class_names=CLASSES[::-1])
    usual = keras_resnet.evaluate(predictor, photos)
    assert list(reversed_names.labels) == [5 - label for label in usual.labels]


# --- images that cannot be read ---


def test_broken_images(predictor, photos, tmp_path, truth):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for file in (photos / "Testing" / name).iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    broken = tmp_path / "ant" / "broken.jpg"
    broken.write_bytes(encode(smooth_image(50, 40), "JPEG")[:300])
    with pytest.raises(DataError, match=r"ant/broken.jpg is a truncated JPEG"):
        keras_resnet.evaluate(predictor, tmp_path)
    result = keras_resnet.evaluate(predictor, tmp_path, on_error="skip", max_broken_share=0.2)
    assert result.examples == COUNTS["ant"] + COUNTS["bee"]
    assert len(result.unreadable) == 1
    assert "truncated JPEG" in result.unreadable[0]
    right = [row.argmax() == label for label, row in truth.values() if label < 2]
    assert result.top1 == np.mean(right)
    with pytest.raises(DataError, match=r"more than max_broken_share=0\.01 allows"):
        keras_resnet.evaluate(predictor, tmp_path, on_error="skip")


def test_noise_is_refused(predictor):
    with pytest.raises(UserError, match="noise, on which nothing can be evaluated"):
        keras_resnet.evaluate(predictor, open_source("synthetic", name="digits", split="test"))


# --- the command ---


def run(capsys, *arguments):
    code = main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out


def test_the_command_prints_what_the_function_returns(saved, predictor, photos, tmp_path, capsys):
    expected = keras_resnet.evaluate(predictor, photos)
    text = run(capsys, f"--model={saved}", f"--data={photos}")
    lines = text.splitlines()
    assert lines[0] == f"model      {saved}"
    assert lines[1] == f"data       {expected.layout}"
    assert len([line for line in lines if line.startswith(tuple(CLASSES))]) == 6
    right = round(expected.top1 * 21)
    assert lines[-1] == (
        f"top1 {expected.top1:.4f}  top5 {expected.top5:.4f}  loss {expected.loss:.4f}  "
        f"{right} of 21 images right"
    )
    found = json.loads(run(capsys, f"--model={saved}", f"--data={photos}", "--json"))
    assert found == {"model": str(saved), **expected.to_dict()}
    path = tmp_path / "classes.csv"
    arguments = ("--format=csv", f"--output={path}", "--split=test")
    assert run(capsys, f"--model={saved}", f"--data={photos}", *arguments) == ""
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert [row["class"] for row in rows] == CLASSES
    assert [int(row["correct"]) for row in rows] == [row["correct"] for row in expected.per_class()]


def test_the_command_on_any_source(saved, photos, capsys):
    data = ("--config.data.source=image_folder", f"--config.data.path={photos}")
    found = json.loads(run(capsys, f"--model={saved}", *data, "--json", "--split=train"))
    assert found["examples"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--model=PATH with --data=FOLDER, or --workdir=DIR is missing"),
        (["--model=a", "--workdir=b"], "--model or --workdir, not both"),
        (["--model=a.keras"], "--data=FOLDER is missing"),
        (["--model=a.keras", "x"], "there is no argument that is no flag, but 'x'"),
        (["--model=a.keras", "--data=x", "--config.data.path=y"], "take one"),
        (["--model=a.keras", "--config.batch_size=3"], "the rest it brings itself"),
        (["--model=a.keras", "--config.data.mean=(0, 0, 0)"], "the rest it brings itself"),
        (["--workdir=w", "--split=test"], "--split goes with --data"),
        (["--workdir=w", "--format=csv"], "--format=csv goes with --data"),
    ],
)
def test_usage(arguments, message, capsys):
    assert main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_five_classes_have_no_top5(predictor, photos):
    result = keras_resnet.evaluate(predictor, photos)
    five = dataclasses.replace(result, class_names=tuple(CLASSES[:5]))
    assert five.top5 is None
    assert "top5" in result.to_dict()
