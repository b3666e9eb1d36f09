"""What is explained and doubted of images with several labels: the gallery, its files, labels."""

import csv
import html.parser
import json
from pathlib import Path

import numpy as np
import pytest
from export_helpers import CLASSES, tiny_classifier
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

import keras_resnet
from keras_resnet import explain, inspection
from keras_resnet.commands import main
from keras_resnet.explain.gallery import open_data
from keras_resnet.inspection.cross_validation import predict_from_others, predict_sets_from_others
from keras_resnet.inspection.label_errors import find_label_set_errors

IMAGES = 40
THRESHOLDS = [0.2, 0.5, 0.45, 0.6, 0.55, 0.5]
REFERENCE = json.loads((Path(__file__).parent / "references/cleanlab_sets.json").read_text())


@pytest.fixture(scope="module")
def model():
    made = tiny_classifier(classifier_activation="sigmoid")
    made.thresholds = THRESHOLDS
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A table of random images, of five of the model's six classes, and some with no label."""
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
def found(model, data):
    source = open_data(data, multi_label=True)
    return explain.gallery(
        model, data=source, training=source, mistakes=9, per_class=2, neighbors=2
    )


@pytest.mark.ci
def test_the_surest_wrong_answers_are_those_of_the_probabilities(model, data, found):
    with open(data, newline="") as file:
        rows = {row["path"]: row["label"].split("|") for row in csv.DictReader(file)}
    paths = [Path(path).name for path in found.predictions.paths]
    files = [data.parent / path for path in paths]
    probabilities = np.asarray(model(keras_resnet.preprocess(model, files)))[:, :5]
    there = np.array([[name in rows[path] for name in CLASSES[:5]] for path in paths])
    wrong = []
    for i, c in np.ndindex(there.shape):
        p = probabilities[i, c]
        if (p > THRESHOLDS[c]) != there[i, c]:
            wrong.append((max(p, 0) if p > THRESHOLDS[c] else 1 - p, paths[i], CLASSES[c]))
    wrong.sort(reverse=True)
    shown = [(Path(one.path).name, one.class_name) for one in found.mistakes]
    assert shown == [pair[1:] for pair in wrong[:9]]
    for one in found.mistakes:
        assert one.is_there != one.predicted
        assert list(one.labels) == [name for name in CLASSES if name in rows[Path(one.path).name]]
        # What speaks for the class: one forward pass of that image and that class alone.
        alone = explain.heatmaps(model, [one.path], one.class_name)
        np.testing.assert_allclose(one.heat, alone.values[0, 0], atol=1e-5)
        assert len(one.neighbors) == 2
        assert one.path not in {other.path for other in one.neighbors}
    precisions = [
        average_precision_score(there[:, c], probabilities[:, c]) for c in range(len(there[0]))
    ]
    order = [CLASSES[c] for c in np.argsort(precisions)]
    assert [one.name for one in found.classes] == order
    for one in found.classes:
        c = CLASSES.index(one.name)
        assert one.average_precision == pytest.approx(precisions[c], abs=1e-6)
        yes = probabilities[:, c] > THRESHOLDS[c]
        false, missed = np.flatnonzero(yes & ~there[:, c]), np.flatnonzero(~yes & there[:, c])
        for answers, places, sign in (
            (one.false_positives, false, -1),
            (one.false_negatives, missed, 1),
        ):
            best = places[np.argsort(sign * probabilities[places, c])][:2]
            assert [Path(each.path).name for each in answers] == [paths[i] for i in best]
        counts = (there[:, c].sum(), yes.sum(), (yes & there[:, c]).sum())
        assert (one.examples, one.predicted, one.correct) == counts
    figures = found.predictions.figures()
    wanted = f1_score(there, probabilities > np.float32(THRESHOLDS[:5]), average="micro")
    assert figures["f1"] == pytest.approx(wanted)
    assert figures["map"] == pytest.approx(np.mean(precisions), abs=1e-6)


class _Pictures(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.alts, self.labels = [], []

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        if tag == "img":
            self.alts.append(named["alt"])
        if tag == "article":
            self.labels.append(named["aria-label"])


@pytest.mark.ci
def test_the_command_writes_a_table_a_page_and_sheets(model, data, tmp_path, capsys):
    model.save(tmp_path / "m.keras")
    arguments = [f"--model={tmp_path / 'm.keras'}", f"--output={tmp_path / 'out'}"]
    options = ["--mistakes=4", "--per_class=1", "--neighbors=0"]
    assert main(["explain", *arguments, f"--data={data}", *options]) == 0
    said = capsys.readouterr().out
    assert "F1 0." in said
    assert " is missed (" in said or " is falsely predicted (" in said
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = ["path", "label", "prediction", "probability", "error"]
    assert list(rows[0]) == columns + [f"p_{name}" for name in CLASSES[:5]]
    with open(data, newline="") as file:
        labels = {row["path"]: set(row["label"].split("|")) for row in csv.DictReader(file)}
    assert len(rows) == IMAGES
    for row in rows:
        assert set(row["label"].split("|")) == labels[Path(row["path"]).name]
        above = {
            n for n, t in zip(CLASSES[:5], THRESHOLDS, strict=False) if float(row[f"p_{n}"]) > t
        }
        assert set(filter(None, row["prediction"].split("|"))) == above
        known = [float(cell) for cell in row["probability"].split("|") if cell]
        assert known == sorted((float(row[f"p_{name}"]) for name in above), reverse=True)
    page = _Pictures()
    page.feed((tmp_path / "out/index.html").read_text())
    assert all(page.alts)
    assert any(label.startswith(("false ", "missed ")) for label in page.labels)
    for sheet in ("mistakes.png", "classes.png"):
        assert Image.open(tmp_path / "out" / sheet).width > 100
    photos = sorted(data.parent.glob("1*.png"))
    assert main(["explain", *arguments, *options, *map(str, photos)]) == 0
    assert not (tmp_path / "out/mistakes.png").exists()  # of the call before
    with (tmp_path / "out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(photos)
    assert [name for name in rows[0] if name.startswith("p_")] == [f"p_{name}" for name in CLASSES]
    assert {row["label"] for row in rows} == {""}


def noisy_sets(seed: int, classes: int, examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sets of labels with 5 % of their answers flipped, probabilities, and which were flipped."""
    state = np.random.RandomState(seed)  # whose numbers do not change between versions of NumPy
    truth = state.uniform(size=(examples, classes)) < np.linspace(0.1, 0.6, classes)
    scores = state.normal(size=(examples, classes)) + np.where(truth, 2.0, -2.0)
    flipped = state.uniform(size=truth.shape) < 0.05
    return truth ^ flipped, 1 / (1 + np.exp(-1.5 * scores)), flipped


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: f"{case['classes']} classes")
def test_wrong_answers_are_those_that_cleanlab_finds(case):
    labels, probabilities, flipped = noisy_sets(case["seed"], case["classes"], case["examples"])
    found = find_label_set_errors(labels, probabilities)
    assert [sorted(one.places.tolist()) for one in found] == case["issues"]
    right = sum(flipped[one.places, c].sum() for c, one in enumerate(found))
    assert right / sum(len(one.places) for one in found) > 0.75
    assert right / flipped.sum() > 0.75
    for c, one in enumerate(found):
        np.testing.assert_array_equal(one.suggestions, ~labels[one.places, c])
    with pytest.raises(ValueError, match="need one shape"):
        find_label_set_errors(labels, probabilities[:, :2])


@pytest.mark.ci
def test_a_model_names_wrong_answers(model, data, tmp_path):
    """The labels are the model's own but for one."""
    photos = sorted(data.parent.glob("*.png"))
    model = tiny_classifier(classifier_activation="sigmoid")
    images, head = keras_resnet.preprocess(model, photos), model.layers[-1]
    probabilities = np.asarray(model(images), "float64")
    logits = np.log(probabilities / (1 - probabilities))
    head.bias.assign(head.bias - np.median(logits, axis=0))  # half of all images have a class
    probabilities = np.asarray(model(images))
    yes, column = probabilities > 0.5, 2
    place = int(np.argmax(probabilities[:, column]))
    yes[place, column] = False
    rows = [
        f"{photo},{'|'.join(np.array(CLASSES)[row])}"
        for photo, row in zip(photos, yes, strict=True)
    ]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]))
    found = inspection.inspect_images(table, model=model, near_duplicates=False)
    items = [(item.path, item.note) for item in found["label_error"].items]
    chance = f"{probabilities[place, column]:.0%}"
    assert items == [(str(photos[place]), f"rather {CLASSES[column]}, with {chance}")]
    assert "1 answers of 1 images doubted" in found.judged
    folds = inspection.inspect_images(table, model=model, folds=4, near_duplicates=False)
    assert folds.judged.startswith(f"{IMAGES} images in 4 folds; mAP 0.")


def test_folds_of_sets_are_a_classifier_for_each_class():
    random = np.random.default_rng(0)
    labels = random.uniform(size=(60, 3)) < 0.4
    labels[:, 2] = True
    vectors = random.normal(size=(60, 5)) + 2 * labels @ np.eye(3, 5)
    found = predict_sets_from_others(vectors, labels, 4, [(0, 1)])
    for c in range(2):
        alone = predict_from_others(vectors, labels[:, c].astype(int), 4, [(0, 1)])
        np.testing.assert_array_equal(found[:, c], alone[:, 1])
    assert (found[:, 2] == 1).all()
