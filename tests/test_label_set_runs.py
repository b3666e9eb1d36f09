"""`keras-resnet train --data` on images of several labels each, end to end, and over SIGKILL."""

import csv
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from run_helpers import ROOT, final_weights
from sklearn.metrics import average_precision_score, f1_score

import keras_resnet
from keras_resnet import explain, training
from keras_resnet.explain.gallery import open_data
from keras_resnet.input_pipeline.layout_finder import find_layout
from keras_resnet.training.evaluation import load_model_of_workdir
from keras_resnet.training.workdir import WorkDir

pytestmark = pytest.mark.ci

NAMES = ["blue", "green", "red"]
OPTIONS = [
    "--config.model.depths=(1,1,1)",
    "--config.model.widths=(16,16,16)",
    "--config.strategy=cpu",
    "--config.epochs=4",
    "--config.data.augment.mixup=0.2",
    "--config.loss.class_weights=balanced",
    "--config.deterministic=true",
    "--config.checkpoint.model=best",
    "--config.log_every_steps=2",
]
DIES = """
import os, signal
flush, count = os.fsync, [0]
def die(descriptor):
    count[0] += 1
    if count[0] == 7: os.kill(os.getpid(), signal.SIGKILL)
    return flush(descriptor)
os.fsync = die
"""


def start(workdir, data, prelude=""):
    program = f"import sys\n{prelude}\nfrom keras_resnet.commands import main\nsys.exit(main())"
    arguments = ["train", f"--data={data}", f"--workdir={workdir}", "--split=0.4", *OPTIONS]
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """120 images in which any of three colors may be."""
    folder = tmp_path_factory.mktemp("colors")
    random = np.random.default_rng(0)
    rows = ["path,label"]
    for number in range(120):
        pixels = random.integers(0, 80, (16, 16, 3), "uint8")
        there = random.uniform(size=3) < 0.4
        for channel in np.flatnonzero(there):
            top, left = random.integers(0, 8, 2)
            pixels[top : top + 8, left : left + 8, channel] += 150
        Image.fromarray(pixels).save(folder / f"{number}.png")
        labels = [NAMES[2 - channel] for channel in np.flatnonzero(there)]
        rows.append(f"{number}.png,{'|'.join(labels)}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder / "labels.csv"


def test_a_run_that_is_killed_ends_as_one_that_is_not(data, tmp_path):
    whole = start(tmp_path / "whole", data)
    assert whole.returncode == 0, whole.stdout
    for line in (
        "3 classes; several labels an image, parted by '|'",
        "labels     1.",
        "mAP 0.",
        "With the threshold of each class that is best on train[60%:80%]: F1 0.",
    ):
        assert line in whole.stdout
    killed = start(tmp_path / "killed", data, DIES)
    assert killed.returncode == -signal.SIGKILL, killed.stdout
    resumed = start(tmp_path / "killed", data)
    assert "resuming   at step" in resumed.stdout
    results = []
    for name in ("whole", "killed"):
        workdir = WorkDir(tmp_path / name)
        rows = [row for row in workdir.read_metrics() if row["kind"] == "eval"]
        result = {**workdir.read_result(), "train_images_per_second": 0.0}
        results.append((rows, result, workdir.classes.read_text(), final_weights(workdir.path)))
    assert results[0] == results[1]
    _check_what_is_left(tmp_path / "whole", data)


def _check_what_is_left(folder, data):
    workdir = WorkDir(folder)
    result, config = workdir.read_result(), workdir.read_config()
    assert (config.data.multi_label, config.loss.name) == (True, "binary")
    assert {"map", "f1", "macro_f1", "test_map", "test_f1_at_thresholds"} <= result.keys()
    assert (result["examples"], result["test_examples"]) == (24, 24)
    # splits.csv is a table with the same sets.
    lists, table = find_layout(str(workdir.splits), None), find_layout(str(data), None)
    assert lists.multi_label
    examples = [one for split in lists.splits for one in lists.examples(split)]
    assert sorted(examples) == sorted(table.examples(table.splits[0]))
    # The best checkpoint, its thresholds chosen on the validation split, counted on the test split.
    held_out = keras_resnet.evaluate(folder, workdir.splits, split="validation")
    tested = keras_resnet.evaluate(folder, workdir.splits, split="test")
    wanted = average_precision_score(held_out.labels, held_out.probabilities, average="macro")
    assert result["map"] == pytest.approx(wanted, abs=1e-6)
    assert tested.map == pytest.approx(result["test_map"], abs=1e-6)
    for i, limit in enumerate(held_out.thresholds):
        scores, labels = held_out.probabilities[:, i], held_out.labels[:, i]
        best = max(f1_score(labels, scores > other) for other in np.linspace(0, 1, 500))
        assert f1_score(labels, scores > limit) >= best - 1e-9
    with workdir.classes.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == NAMES
    for row, ours in zip(rows, tested.per_class(), strict=True):
        assert float(row["average_precision"]) == pytest.approx(ours["average_precision"], abs=1e-5)
        assert float(row["f1"]) == pytest.approx(ours["f1"], abs=1e-5)
        assert int(row["examples"]) == ours["examples"]
    # The report shows the wrong answers among the test images, which the gallery finds by itself.
    told = keras_resnet.report(folder)
    model = keras.saving.load_model(workdir.model)
    wanted = explain.gallery(
        model, data=open_data(workdir.splits, "test", multi_label=True), neighbors=0
    ).mistakes
    assert len(told.answers) == len(wanted)
    for ours, theirs in zip(told.answers, wanted, strict=True):
        assert (ours.path, ours.sentence) == (theirs.path, theirs.sentence)
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
        np.testing.assert_allclose(ours.heat, theirs.heat, atol=1e-4)
    page = workdir.report.read_text()
    assert page.count("<article class=shot") == len(wanted)
    again = training.evaluate(folder, "best")
    assert again["map"] == pytest.approx(result["map"], abs=1e-9)
    assert again["f1_at_thresholds"] == pytest.approx(result["f1_at_thresholds"], abs=1e-9)
    assert json.loads(workdir.result.read_text())["model_step"] == result["best_step"]
    # A checkpoint that is not model.keras predicts with the thresholds of the run, too.
    fitted = keras.saving.load_model(workdir.model).thresholds
    assert len(fitted) == len(NAMES)
    workdir.result.write_text(json.dumps({**result, "model_step": -1}))
    for which in ("best", "newest"):
        assert load_model_of_workdir(workdir, which).thresholds == fitted
    photos = [str(data.parent / f"{number}.png") for number in range(20)]
    answers = [answer for _, answer in training.predict(folder, photos, 3, "newest")]
    scores = np.asarray(model_scores(load_model_of_workdir(workdir, "newest"), photos))
    for row, answer in zip(scores, answers, strict=True):
        assert {one["class_id"] for one in answer} == {*np.flatnonzero(row > np.float32(fitted))}
    workdir.model.unlink()  # and without it there are none any more
    assert load_model_of_workdir(workdir, "best").thresholds is None


def model_scores(model, photos):
    return model(keras_resnet.preprocess(model, photos))
