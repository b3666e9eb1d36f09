"""`keras-resnet export` and `predict` from the shell: what they write, refuse and print."""

import csv
import io
import json

import numpy as np
import pytest
from export_helpers import CLASSES, tiny_classifier
from input_helpers import encode, smooth_image

from keras_resnet.commands import main
from keras_resnet.export import load_predictor


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    tiny_classifier().save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two good images in folders named like classes, one truncated, one file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    for name, seed in (("bee", 1), ("cat", 2)):
        (folder / name).mkdir()
        (folder / name / "1.jpg").write_bytes(encode(smooth_image(50, 40, seed), "JPEG"))
    (folder / "notes.txt").write_text("not listed")
    return folder


@pytest.fixture(scope="module")
def exported(model_file, photos, tmp_path_factory):
    """Folder of versions made by the command, and what the command printed."""
    folder = tmp_path_factory.mktemp("served")
    arguments = [f"--model={model_file}", f"--output={folder}", f"--images={photos}", "--top=2"]
    import contextlib

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["export", *arguments]) == 0
    return folder, printed.getvalue()


def test_export_writes_a_version_and_says_what_it_measured(exported):
    folder, printed = exported
    assert sorted(item.name for item in folder.iterdir()) == ["1", "serving_config"]
    assert "2 images: logits differ by at most" in printed
    assert "top-1 accuracy" in printed
    assert "22 warm-up records answered" in printed
    assert f"{folder / '1'}: features, predict_images" in printed


@pytest.mark.ci
def test_predict_agrees_between_the_export_and_the_model(exported, model_file, photos, capsys):
    rows = []
    for source in (exported[0], exported[0] / "1", model_file):
        assert main(["predict", f"--model={source}", "--top=2", "--json", str(photos)]) == 0
        rows.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    names = [str(photos / "bee" / "1.jpg"), str(photos / "cat" / "1.jpg")]
    for made in rows:
        assert [row["image"] for row in made] == names
        for row, reference in zip(made, rows[0], strict=True):
            ids = [entry["class_id"] for entry in row["predictions"]]
            assert ids == [entry["class_id"] for entry in reference["predictions"]]
            assert [CLASSES[i] for i in ids] == [entry["class"] for entry in row["predictions"]]
            np.testing.assert_allclose(
                [entry["probability"] for entry in row["predictions"]],
                [entry["probability"] for entry in reference["predictions"]],
                rtol=1e-4,
            )


@pytest.mark.parametrize("source", [pytest.param("export", marks=pytest.mark.ci), "model"])
def test_predict_goes_on_after_a_broken_file(source, exported, model_file, tmp_path, capsys):
    good = encode(smooth_image(50, 40, seed=1), "JPEG")
    contents = {"a.jpg": good, "b.jpg": good[:100], "c.png": b"", "d.jpg": good}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    model = exported[0] if source == "export" else model_file
    target = tmp_path / "rows.csv"
    arguments = [f"--model={model}", "--format=csv", "--top=2", f"--output={target}"]
    assert main(["predict", *arguments, str(tmp_path)]) == 1
    assert "2 of 4 files could not be read" in capsys.readouterr().err
    with target.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(tmp_path / name) for name in contents]
    assert "truncated JPEG" in rows[1]["error"]
    assert "empty" in rows[2]["error"]
    assert rows[0]["class_1"] == rows[3]["class_1"] in CLASSES
    assert float(rows[0]["probability_1"]) == float(rows[3]["probability_1"]) > 0.1
    assert rows[1]["class_1"] == rows[0]["error"] == ""


def test_python_predicts_in_three_lines(model_file, photos):
    predictor = load_predictor(model_file)
    answers = list(predictor.predict([photos], batch_size=1))
    assert len(answers) == 2
    for path, rows in answers:
        assert path.endswith("1.jpg")
        assert len(rows) == 5
        probabilities = [row["probability"] for row in rows]
        assert probabilities == sorted(probabilities, reverse=True)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    arguments = ["--config=smoke", f"--workdir={folder}", "--config.epochs=1"]
    arguments += ["--config.model.depths=(1, 1, 1)"]
    assert main(["train", *arguments, "--config.data.image_size=12"]) == 0
    return folder


@pytest.mark.slow
def test_work_directories_are_exported_finished_or_not(workdir, tmp_path, capsys):
    capsys.readouterr()
    target = tmp_path / "digits.keras"
    arguments = [f"--workdir={workdir}", f"--output={target}", "--format=keras", "--limit=50"]
    assert main(["export", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "50 images: logits differ" in printed
    assert "digits test" in printed
    finished = load_predictor(target)
    (workdir / "result.json").rename(workdir / "away.json")
    try:
        assert main(["export", *arguments]) == 0
        assert "is not finished; taking the checkpoint of step 11" in capsys.readouterr().err
    finally:
        (workdir / "away.json").rename(workdir / "result.json")
    image = tmp_path / "x.png"
    image.write_bytes(encode(smooth_image(12, 12)))
    before, after = (list(p.predict([image])) for p in (finished, load_predictor(target)))
    assert before == after
    assert main(["predict", f"--workdir={workdir}", "--json", str(image)]) == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [entry["class"] for entry in row["predictions"]] == [
        entry["class"] for entry in before[0][1]
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "quoted"),
    [
        (["export"], 2, "--output=PATH"),
        (["export", "--output=o", "--model=m.keras", "--workdir=w"], 2, "--workdir=DIR or"),
        (["export", "--output=o", "--model=m.h5"], 2, "m.h5"),
        (["export", "--output=o", "--model=m.keras"], 1, "m.keras: no such file"),
        (["export", "--output=o", "--workdir=w"], 1, "w: no such folder"),
        (["export", "--output=o", "--model=m.keras", "--precision=int8"], 2, "float32, bfloat16"),
        (["export", "--output=o", "--model=m.keras", "--format=tflight"], 2, "tflight"),
        (["export", "--output=o.tf", "--model=m.keras", "--format=tflite"], 2, "end with .tflite"),
        (["export", "--output=no/o.onnx", "--model=m.keras", "--format=onnx"], 1, "no such folder"),
        (["export", "--output=gs://b/o", "--model=m.keras", "--format=tflite"], 2, ".tflite"),
        (["export", "--output=o", "--model=m.keras", "--name=a b"], 2, "'a b'"),
        (["export", "--output=o", "--model=m.keras", "--on-error=ignore"], 2, "ignore"),
        (["verify-export"], 2, "one folder"),
        (["verify-export", "nowhere"], 1, "nowhere: no such folder"),
        (["predict", "--model=m.keras", "--workdir=w", "x.png"], 2, "not both"),
        (["predict", "--model=m.keras", "x.png"], 1, "x.png: no such file"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    arguments, code, quoted, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    message = capsys.readouterr().err
    assert quoted in message
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_but_of_another_kind_is_named(tmp_path, photos, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "file").write_text("hello")
    (tmp_path / "saved_model.pb").write_bytes(b"\xff")
    image = str(photos / "bee" / "1.jpg")
    before = sorted(tmp_path.rglob("*"))
    for arguments, quoted in [
        (["predict", "--model=folder.keras", image], "folder.keras: is a folder"),
        (["predict", "--model=file", image], "file: is a file (a SavedModel"),
        (["predict", "--model=m", "--output=.", image], "--output=.: is a folder; name a file"),
        (["predict", "--model=m", "--output=file/x", image], "--output=file/x: there is no folder"),
        (["export", "--model=folder.keras", "--output=o"], "folder.keras: is a folder"),
        (["verify-export", "file"], "file: is a file (a SavedModel"),
        (["verify-export", "--trusted", "."], "saved_model.pb cannot be loaded: "),
    ]:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert quoted in error
        assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_files_that_are_no_models_are_named(tmp_path, photos, capsys):
    path = tmp_path / "broken.keras"
    path.write_bytes(b"PK no zip")
    image = str(photos / "bee" / "1.jpg")
    for command in (["export", f"--output={tmp_path / 'o'}"], ["predict", image]):
        assert main([*command[:1], f"--model={path}", *command[1:]]) == 1
        error = capsys.readouterr().err
        assert "broken.keras: cannot be loaded" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()
