"""Models of several labels an image: saved, predicted, exported and evaluated."""

import csv
import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from export_helpers import CLASSES, tiny_classifier
from PIL import Image
from run_helpers import tiny_config
from sklearn.metrics import average_precision_score, f1_score

import keras_resnet
from keras_resnet import explain, input_pipeline
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.export.files import export_file
from keras_resnet.export.loading import load_predictor
from keras_resnet.export.predictor import Predictor
from keras_resnet.export.saved_model import export_saved_model
from keras_resnet.input_pipeline import DataError, open_source
from keras_resnet.inspection import inspect_images
from keras_resnet.training.data import open_source as open_of_run
from keras_resnet.training.evaluation import evaluate_source, inference_model
from keras_resnet.training.tensorflow.engine import TensorFlowEngine

IMAGES = 37
THRESHOLDS = [0.2, 0.5, 0.45, 0.6, 0.55, 0.5]


@pytest.fixture(scope="module")
def model():
    made = tiny_classifier(classifier_activation="sigmoid")
    made.thresholds = THRESHOLDS
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table of random images, labels in another order than the model's and one class less."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    rows = ["path,label"]
    for number in range(IMAGES):
        coarse = Image.fromarray(random.integers(0, 255, (4, 4, 3), "uint8"))
        coarse.resize((40, 40)).save(folder / f"{number}.png")
        labels = [name for name in reversed(CLASSES[:5]) if random.uniform() < 0.4]
        rows.append(f"{number}.png,{'|'.join(labels)}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def truth(model, data):
    """(names of the files, labels, probabilities) by Keras alone."""
    with open(data, newline="") as file:
        rows = list(csv.DictReader(file))
    labels = [[name in row["label"].split("|") for name in CLASSES] for row in rows]
    images = [
        input_pipeline.evaluation_image(
            tf.constant((data.parent / row["path"]).read_bytes()), model.preprocessing
        )
        for row in rows
    ]
    batch = input_pipeline.normalize(tf.stack(images), model.preprocessing)
    probabilities = model.predict(batch, verbose=0)
    return [row["path"] for row in rows], np.array(labels), probabilities


EXPORTS = (
    "keras",
    *(pytest.param(kind, marks=pytest.mark.ci) for kind in ("tflite", "saved_model")),
)


@pytest.fixture(scope="module", params=EXPORTS)
def written(request, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / f"model.{request.param}"
    if request.param == "keras":
        model.save(path)
    elif request.param == "saved_model":
        export_saved_model(model, path)
    else:
        export_file(model, path, format=request.param)
    return path


def test_thresholds_travel_with_the_model(model, tmp_path):
    model.save(tmp_path / "m.keras")
    assert keras.saving.load_model(tmp_path / "m.keras").thresholds == THRESHOLDS
    assert keras.models.clone_model(model).thresholds == THRESHOLDS
    with pytest.raises(ValueError, match="needs 6 numbers"):
        model.thresholds = [0.5]
    with pytest.raises(ValueError, match=r"in 0\.\.1"):
        model.thresholds = [2.0] * 6
    plain = tiny_classifier()
    assert plain.thresholds is None
    assert "thresholds" not in plain.get_config()  # an older version would not know it


def test_predictions_are_the_labels_above_their_thresholds(written, truth, data):
    files, _, probabilities = truth
    predictor = load_predictor(written)
    assert (predictor.is_multilabel, predictor.thresholds) == (True, tuple(THRESHOLDS))
    answers = list(predictor.predict([data.parent / file for file in files]))
    sizes = set()
    for row, (_, answer) in zip(probabilities, answers, strict=True):
        wanted = {CLASSES[i]: row[i] for i in range(6) if row[i] > THRESHOLDS[i]}
        found = {one["class"]: one["probability"] for one in answer}
        assert found == pytest.approx(wanted, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        sizes.add(len(answer))
    assert len(sizes) > 1
    everything = dict(predictor.with_threshold(0.0).predict(data.parent / files[0]))
    assert [len(answer) for answer in everything.values()] == [6]


def test_the_evaluation_of_a_model_and_its_exports(written, truth, data):
    _, labels, probabilities = truth
    found = keras_resnet.evaluate(written, data)
    assert found.class_names == tuple(CLASSES[:5])  # of the sixth nothing can be said
    assert found.notes == ("5 of the model's 6 classes are in the data",)
    wanted = [average_precision_score(labels[:, i], probabilities[:, i]) for i in range(5)]
    assert found.map == pytest.approx(np.mean(wanted), abs=1e-6)
    rows = found.per_class()
    assert [row["average_precision"] for row in rows] == pytest.approx(wanted, abs=1e-6)
    predicted = probabilities[:, :5] > THRESHOLDS[:5]
    f1 = [f1_score(labels[:, i], predicted[:, i], zero_division=0) for i in range(5)]
    assert [row["f1"] for row in rows] == pytest.approx(f1)
    figures = found.figures()
    assert figures["macro_f1_at_thresholds"] == pytest.approx(np.mean(f1))
    micro = f1_score(labels[:, :5], probabilities[:, :5] > 0.5, average="micro")
    assert figures["f1"] == pytest.approx(micro)
    y, p = labels[:, :5], probabilities[:, :5].astype("float64")
    assert found.loss == pytest.approx(-np.log(np.where(y, p, 1 - p)).mean(), rel=1e-4)
    assert json.loads(json.dumps(found.to_dict()))["classes"][0]["class"] == "ant"


@pytest.mark.ci
def test_what_cannot_be_answered_is_said(model, data, tmp_path):
    with pytest.raises(UserError, match="the model gives one class"):
        keras_resnet.evaluate(
            tiny_classifier(),
            open_source("image_folder", path=str(data), split="train", multi_label=True),
        )
    export_saved_model(model, tmp_path / "few", top=3)
    with pytest.raises(UserError, match="answers with 3 of its 6 classes"):
        keras_resnet.evaluate(tmp_path / "few", data)
    with pytest.raises(UserError, match="a threshold is for models of several labels"):
        Predictor.of_model(tiny_classifier()).with_threshold(0.3)
    source = open_source("image_folder", path=str(data), split="train", multi_label=True)
    batches = {"batch_size": 8, "seed": 0, "num_steps": 1, "image_size": 32, "augment": {}}
    with pytest.raises(DataError, match="sampler is 'balanced', but images have several labels"):
        input_pipeline.train_batches(source, sampler="balanced", **batches)


@pytest.mark.ci
def test_photos_without_labels_are_explained(model, data):
    photos = sorted(data.parent.glob("1*.png"))
    found = explain.gallery(model, photos, neighbors=0)
    assert found.predictions.probabilities.shape == (len(photos), 6)
    assert (found.predictions.probabilities > 0).all()  # not only those above a threshold


def test_inspect_counts_each_class(data):
    found = inspect_images(data, near_duplicates=False)
    with open(data, newline="") as file:
        labels = [row["label"].split("|") for row in csv.DictReader(file)]
    counts = {name: sum(name in row for row in labels) for name in CLASSES[:5]}
    assert found.classes == {"train": counts}
    assert not found["unknown_class"].groups


@pytest.mark.ci
def test_the_commands(model, data, tmp_path, capsys):
    model.save(tmp_path / "m.keras")
    files = [str(data.parent / f"{number}.png") for number in range(5)]
    model_flag = f"--model={tmp_path / 'm.keras'}"
    assert main(["predict", model_flag, "--format=csv", *files]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == ["image", "labels", "probabilities", "error"]
    for row in rows:
        values = [float(cell) for cell in row["probabilities"].split("|") if cell]
        assert len(values) == len([name for name in row["labels"].split("|") if name])
    assert main(["predict", model_flag, "--threshold=1", files[0]]) == 0
    assert "no class is above its threshold" in capsys.readouterr().out
    assert main(["predict", model_flag, "--threshold=0", "--top=2", "--json", files[0]]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 2
    assert main(["evaluate", model_flag, f"--data={data}"]) == 0
    last = capsys.readouterr().out.splitlines()
    assert last[-1].startswith("mAP 0.")
    assert last[-1].endswith(f"{IMAGES} images")
    assert [line.split()[0] for line in last[-7:-2]] == CLASSES[:5]


# ---- A run ------------------------------------------------------------------------------------


def config_of(data, **changes):
    return tiny_config(
        data__source="image_folder",
        data__path=str(data),
        data__multi_label=True,
        data__train_split="train[:70%]",
        data__eval_split="train[70%:]",
        loss__name="binary",
        batch_size=8,
        deterministic=False,
        **changes,
    )


@pytest.mark.ci
def test_evaluation_is_exact_over_replicas_and_padding(data):
    evaluations, config = [], config_of(data)
    source = open_of_run(config, "train[:30]")  # 30 images in batches of 8
    for replicas in (1, 2):
        engine = TensorFlowEngine(config, mirrored_strategy(replicas))
        engine.build(source.class_names)
        evaluations.append(evaluate_source(engine, source))
    one, two = evaluations
    assert one.means["examples"] == len(one.labels) == 30
    np.testing.assert_array_equal(one.labels, source.labels() > 0)
    np.testing.assert_array_equal(two.labels, one.labels)
    np.testing.assert_allclose(two.probabilities, one.probabilities, atol=1e-6)
    assert two.means == pytest.approx(one.means, abs=1e-6)
    saved = inference_model(engine, [0.3] * 5)
    assert saved.layers[-1].activation is keras.activations.sigmoid
    assert (saved.thresholds, saved.class_names) == ([pytest.approx(0.3)] * 5, CLASSES[:5])
