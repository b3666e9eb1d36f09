"""Reports of real runs: that the images, numbers and names belong together, and bad input."""

import io
import json
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from input_helpers import encode
from PIL import Image
from run_helpers import tiny_config
from test_reports import Page

import keras_resnet
from keras_resnet import reports
from keras_resnet.commands import main
from keras_resnet.explain.photos import decode
from keras_resnet.input_pipeline import open_source
from keras_resnet.reports import predicting
from keras_resnet.training import run
from keras_resnet.training.workdir import WorkDir

pytestmark = pytest.mark.ci
CLASSES = ("<b>'dark'", 'light & "wide"', "ünï")
COPY, BROKEN = "2.png", "5.png"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes; one test image is a training image, too, and one is broken."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("data") / "photos"
    for split, count in (("train", 16), ("val", 12)):
        for number, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 160, (12, 14, 3)) + 40 * number
                (folder / split / name / f"{index}.png").write_bytes(encode(pixels.astype("uint8")))
    for name in CLASSES[:2]:
        shutil.copy(folder / "train" / name / "0.png", folder / "val" / name / COPY)
    (folder / "val" / CLASSES[0] / BROKEN).write_bytes(b"\x89PNG\r\n\x1a\n no")
    return folder


def config_of(photos, **changes):
    settings = {
        "deterministic": False,
        "report": True,
        "batch_size": 8,
        "epochs": 1,
        "data__source": "image_folder",
        "data__name": "",
        "data__path": str(photos),
        "data__train_split": "train",
        "data__eval_split": "val",
        "data__on_error": "skip",
        "data__max_broken_share": 0.2,
    }
    return tiny_config(**{**settings, **changes})


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """The folder of a run, its result, and the report that it has written."""
    folder = tmp_path_factory.mktemp("runs") / "run <1>"
    kept, write = [], reports.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            reports, "write", lambda found, path: (kept.append(found), write(found, path))
        )
        result = run.train(config_of(photos), folder)
    return WorkDir(folder), result, *kept


@pytest.fixture(scope="module")
def report(finished):
    return keras_resnet.report(finished[0].path)


@pytest.fixture(scope="module")
def evaluated(finished, photos):
    source = open_source("image_folder", path=str(photos), split="val", on_error="skip")
    source.skipped.max_share = 1.0
    return keras_resnet.evaluate(finished[0].path, source)


def matrix_of(page):
    rows = next(rows for rows in page.tables if len(rows) == 4 and len(rows[1]) == 4)
    return [[int(cell or 0) for cell in row[1:]] for row in rows[1:]]


def test_a_finished_run_has_one_that_says_what_the_command_says(finished, report, tmp_path, capsys):
    workdir, result, _ = finished
    own = Page(workdir.report.read_text(encoding="utf-8"))
    output = tmp_path / "other.html"
    assert main(["report", str(workdir.path), f"--output={output}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(output)
    again = Page(output.read_text(encoding="utf-8"))
    assert matrix_of(own) == matrix_of(again) == report.matrix.tolist()
    assert report.top1 == pytest.approx(result["top1"])
    assert report.matrix.sum() == result["examples"] == 35
    assert report.step == result["model_step"]
    sources = own.attributes("img", "src")
    assert sources == again.attributes("img", "src")
    assert own.attributes("img", "alt") == again.attributes("img", "alt")
    assert "1 of the images cannot be read" in " ".join(own.words)


@pytest.mark.parametrize("which", ["of the run", "of the command"])
def test_names_and_probabilities_are_those_of_evaluate(which, finished, report, evaluated):
    found = report if which == "of the command" else finished[2]
    assert found.predictions.paths == evaluated.files
    np.testing.assert_array_equal(found.predictions.labels, evaluated.labels)
    full = np.zeros_like(found.predictions.probabilities)
    np.put_along_axis(full, evaluated.predictions, evaluated.probabilities, axis=1)
    np.testing.assert_allclose(found.predictions.probabilities, full, atol=1e-4)
    np.testing.assert_array_equal(found.matrix, evaluated.confusion_matrix())


def test_each_picture_is_what_the_network_sees_of_its_file(finished, report):
    model = keras.saving.load_model(finished[0].model)
    shown = {one.path: one for pictures in report.cells.values() for one in pictures}
    assert len(shown) > 10
    files = [(path, Path(path).read_bytes()) for path in shown]
    seen = decode([path for path, _ in files], files, model)
    for path, pixels in zip(seen.good, seen.pixels, strict=True):
        drawn = np.asarray(Image.open(io.BytesIO(shown[path].jpeg)), "int32")
        assert drawn.shape == (96, 96, 3)
        assert abs(drawn[6::12, 6::12] - pixels).mean() < 12, path  # but for JPEG
    for shot in report.mistakes:
        assert CLASSES[shot.label] in shot.path
        assert shot.photo.shape == (8, 8, 3)
    for (label, taken), pictures in report.cells.items():
        for one in pictures:
            assert CLASSES[label] in one.path
            assert report.predictions.classes[one.place] == taken


def test_copies_of_training_images_are_found(report, photos):
    expected = {
        (str(photos / "val" / name / COPY), str(photos / "train" / name / "0.png"))
        for name in CLASSES[:2]
    }
    assert set(report.findings.copies) == expected
    assert report.findings.copied == 2
    text = " ".join(Page(reports.make_page(report)).words)
    assert "2 of these images are among the training images" in text


def test_of_a_large_split_a_part_is_shown(finished, evaluated, monkeypatch):
    monkeypatch.setattr(predicting, "MOST_NUMBERS", 10)
    monkeypatch.setattr(predicting, "PART", 13)
    report = keras_resnet.report(finished[0].path)
    places = [evaluated.files.index(path) for path in report.predictions.paths]
    assert len(places) in (11, 12)  # every third of 36, of which one is broken
    expected = evaluated.labels[places]
    np.testing.assert_array_equal(report.predictions.labels, expected)
    np.testing.assert_array_equal(report.predictions.classes, evaluated.predictions[places, 0])
    assert re.search(r"evenly spread, were looked at", " ".join(report.notes))
    for (label, _), pictures in report.cells.items():
        assert all(CLASSES[label] in one.path for one in pictures)


def test_moved_data_is_told_where_it_is(finished, photos, tmp_path, capsys):
    workdir, *_ = finished
    shutil.copytree(workdir.path, tmp_path / "copy")
    moved = photos.with_name("moved")
    photos.rename(moved)
    try:
        run = f"--workdir={tmp_path / 'copy'}"
        for command in (["report"], ["evaluate"], ["explain", f"--output={tmp_path / 'out'}"]):
            assert main([*command, run]) == 1
            said = capsys.readouterr().err
            assert len(said.splitlines()) == 1
            assert str(photos) in said
            assert "--config.data.path=FOLDER says where they are" in said
        arguments = [str(tmp_path / "copy"), f"--config.data.path={moved}"]
        assert main(["report", *arguments]) == 0
    finally:
        moved.rename(photos)


def test_a_run_that_is_not_finished(finished, tmp_path, capsys):
    shutil.copytree(finished[0].path, tmp_path / "copy")
    workdir = WorkDir(tmp_path / "copy")
    for path in (workdir.result, workdir.model, workdir.calibration, workdir.report):
        path.unlink()
    assert main(["report", f"--workdir={workdir.path}"]) == 0
    assert "is not finished; taking the checkpoint of step 6" in capsys.readouterr().err
    text = " ".join(Page(workdir.report.read_text(encoding="utf-8")).words)
    assert "This run is not finished: the network is that of step 6." in text
    assert "has no calibration.json" in text
    shutil.rmtree(workdir.checkpoints)
    assert main(["report", str(workdir.path)]) == 1
    assert "no checkpoint yet; train first" in capsys.readouterr().err


def test_a_failing_report_fails_no_run(finished, photos, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished[0].path, tmp_path / "copy")
    workdir = WorkDir(tmp_path / "copy")
    workdir.report.unlink()

    def fail(*_, **__):
        raise MemoryError("too\nmuch")

    monkeypatch.setattr(reports, "gather", fail)
    result = run.train(config_of(photos), workdir.path)
    assert result["top1"] == json.loads(workdir.result.read_text())["top1"]
    warned = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert warned == [
        "warning: no report.html (MemoryError: too); all else of the run is written. To try "
        f"again: keras-resnet report {workdir.path}"
    ]
    assert not workdir.report.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "RUN is missing; for example keras-resnet report runs/mine"),
        (["a", "b"], 2, "it takes one RUN, not 2"),
        (["nowhere"], 1, "--workdir=nowhere: no such folder"),
        (["."], 1, "has no config.json: no run was started here"),
        (["x", "--output=no/where/r.html"], 1, "there is no folder no/where"),
    ],
)
def test_what_is_no_run(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == code
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
