"""Calibrated probabilities and unknown answers: predict, and the exports that carry them."""

import csv
import dataclasses
import io
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from export_helpers import CLASSES, serve, strings, tiny_classifier
from input_helpers import encode, smooth_image

import keras_resnet
from keras_resnet import calibration
from keras_resnet.calibration import Calibration, CalibrationError, Unknown
from keras_resnet.commands import main, predict
from keras_resnet.errors import UsageError, UserError
from keras_resnet.export import export_file, export_saved_model, load_predictor, verify_saved_model
from keras_resnet.export.origin import FILE
from keras_resnet.export.predictor import Predictor
from keras_resnet.training import label_sets

TEMPERATURE = 2.5
IMAGES = 8
QUANTILES = tuple(np.linspace(0.99, 0.19, 101).tolist())


def calibrated_classifier():
    model = tiny_classifier()
    model.calibration = Calibration(
        temperature=TEMPERATURE, quantiles=QUANTILES, split="val", images=500
    )
    return model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.keras"
    calibrated_classifier().save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(IMAGES):
        name = CLASSES[number % len(CLASSES)]
        (folder / "test" / name).mkdir(parents=True, exist_ok=True)
        image = smooth_image(40, 50 + number, seed=number)
        (folder / "test" / name / f"{number}.png").write_bytes(encode(image))
    return folder


@pytest.fixture(scope="module")
def expected(model_file, photos):
    """File -> probabilities by NumPy, of all classes, from logits divided by the temperature."""
    model = keras.saving.load_model(model_file)
    files = sorted(photos.rglob("*.png"))
    inputs = keras_resnet.preprocess(model, files)
    logits = np.log(keras.ops.convert_to_numpy(model(inputs, training=False)))
    rows = scipy.special.softmax(logits / TEMPERATURE, axis=1)
    return {str(file): row for file, row in zip(files, rows, strict=True)}


@pytest.fixture(scope="module")
def middle(expected):
    """A threshold that about half of the images reach, none of them nearly."""
    sure = np.sort([row.max() for row in expected.values()])
    return float(sure[IMAGES // 2 - 1 : IMAGES // 2 + 1].mean())


def assert_calibrated(answers, expected, threshold=None, tolerance=1e-5):
    found = dict(answers)
    assert found.keys() == expected.keys()
    for path, rows in found.items():
        for row in rows:
            wanted = expected[path][row["class_id"]]
            assert row["probability"] == pytest.approx(wanted, abs=tolerance)
        keys = {"class", "class_id", "probability"}
        assert rows[0].keys() == (keys if threshold is None else keys | {"unknown"})
        if threshold is not None:
            assert rows[0]["unknown"] == (expected[path].max() < threshold)


@pytest.fixture(scope="module")
def predictor(model_file, middle):
    """Which is compiled once, not for every test."""
    return load_predictor(model_file, unknown=middle)


def test_predictions_are_calibrated(predictor, model_file, photos, expected, middle):
    assert predictor.threshold == middle
    assert_calibrated(predictor.predict(photos), expected, middle)
    # Without unknown answers, and with coverages: what 75 % of the images of the calibration reach.
    model = keras.saving.load_model(model_file)
    assert Predictor.of_model(model, calibrated=True).threshold is None
    assert Predictor.of_model(model, unknown="75%").threshold == QUANTILES[75]
    assert Predictor.of_model(model, unknown="100%").threshold == 0.0
    # Without either option nothing is.
    plain = dict(Predictor.of_model(model).predict(photos))
    for path, rows in plain.items():
        assert rows[0].keys() == {"class", "class_id", "probability"}
        assert rows[0]["probability"] > expected[path].max() + 0.01


@pytest.mark.parametrize("value", ["90", "0%", "101%", "much", "-0.1", 1.5, "", "nan", "%"])
def test_what_unknown_does_not_take(value, capsys):
    with pytest.raises(UsageError, match="it takes the share of the images to answer, such as 90%"):
        Unknown.parse(value)
    assert main(["predict", "--model=x.keras", f"--unknown={value}", "photo.jpg"]) == 2
    assert f"--unknown={value}: it takes" in capsys.readouterr().err


def test_percent_is_asked_for():
    with pytest.raises(UsageError, match=r"Did you mean unknown=90%\?"):
        Unknown.parse(90)
    assert Unknown.parse(0.7) == Unknown.parse("0.7") == Unknown(0.7, is_coverage=False)
    assert Unknown.parse(" 99.5%") == Unknown(0.995, is_coverage=True)


@pytest.fixture
def command(predictor, monkeypatch, capsys):
    """Runs the command with the predictor of this module; gives code, output and errors."""
    monkeypatch.setattr(predict, "_predictor", lambda *_: predictor)

    def run(*arguments):
        code = main(["predict", "--workdir=unused", *map(str, arguments)])
        return code, *capsys.readouterr()

    monkeypatch.setattr(predict.WorkDir, "read_config", lambda self: None)
    return run


def test_formats_of_the_command(command, photos, expected, middle):
    answers = {}
    for kind in ("jsonl", "csv", "text"):
        code, answers[kind], said = command(f"--format={kind}", "--unknown=0.5", photos)
        assert code == 0
        assert f"unknown below a calibrated probability of {middle:.4g}" in said
    wanted = {
        path: CLASSES[row.argmax()] if row.max() >= middle else "unknown"
        for path, row in expected.items()
    }
    assert list(wanted.values()).count("unknown") == IMAGES // 2
    rows = [json.loads(line) for line in answers["jsonl"].splitlines()]
    assert {row["image"]: row["answer"] for row in rows} == wanted
    for row in rows:  # the class and its probability stand beside it
        assert row["predictions"][0]["class"] == CLASSES[expected[row["image"]].argmax()]
        assert row["predictions"][0].keys() == {"class", "class_id", "probability"}
    table = list(csv.DictReader(io.StringIO(answers["csv"])))
    assert {row["image"]: row["answer"] for row in table} == wanted
    assert [row["class_1"] for row in table] == [r["predictions"][0]["class"] for r in rows]
    assert answers["text"].count("  unknown, perhaps one of these:\n") == IMAGES // 2


def test_files_that_cannot_be_read_keep_their_columns(command, photos, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(next(photos.rglob("*.png")).read_bytes())
    code, printed, _ = command("--format=csv", "--top=2", tmp_path)
    rows = list(csv.reader(io.StringIO(printed)))
    assert code == 1
    assert rows[0][1] == "answer"
    assert (rows[1][1], rows[1][-1]) == ("", "is empty (0 bytes).")
    assert rows[2][1] in (rows[2][2], "unknown")


def test_models_without_calibration_say_so(tmp_path, photos, capsys):
    path = tmp_path / "plain.keras"
    tiny_classifier().save(path)
    for option in ("--calibrated", "--unknown=90%"):
        assert main(["predict", f"--model={path}", option, str(photos)]) == 1
        said = capsys.readouterr().err
        assert "has no calibration, which --calibrated and --unknown need: a run writes it" in said
        assert len(said.splitlines()) == 1
    export_file(keras.saving.load_model(path), tmp_path / "plain.tflite", format="tflite")
    with pytest.raises(CalibrationError, match="exported without its calibration"):
        load_predictor(tmp_path / "plain.tflite", calibrated=True)
    multilabel = tiny_classifier(classifier_activation="sigmoid")
    multilabel.calibration = calibrated_classifier().calibration
    with pytest.raises(UserError, match="gives each class a probability of its own"):
        Predictor.of_model(multilabel, calibrated=True)


@pytest.mark.ci
def test_a_keras_file_is_calibrated(model_file, photos, expected, middle, tmp_path, capsys):
    path = tmp_path / "calibrated.keras"
    arguments = ["export", f"--model={model_file}", "--format=keras", f"--output={path}"]
    assert main([*arguments, "--calibrated", f"--images={photos}"]) == 0
    assert "calibrated: logits divided by 2.5, fitted on 500 images of val" in (
        capsys.readouterr().out
    )
    exported = keras.saving.load_model(path)
    assert exported.calibration == calibrated_classifier().calibration.applied()
    inputs = keras_resnet.preprocess(exported, list(expected))
    found = keras.ops.convert_to_numpy(exported(inputs, training=False))
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-5)
    # And is not calibrated twice.
    assert_calibrated(load_predictor(path, unknown=middle).predict(photos), expected, middle)
    assert main([*arguments, "--unknown=90%"]) == 2
    assert "a .keras file gives probabilities alone" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"a \.keras file gives probabilities alone"):
        export_file(exported, path, format="keras", unknown=0.5)


@pytest.mark.ci
@pytest.mark.parametrize(("kind", "precision"), [("tflite", "float32"), ("onnx", "float32")])
def test_files_say_unknown(kind, precision, model_file, photos, expected, middle, tmp_path):
    if kind == "onnx":
        pytest.importorskip("tf2onnx")
    path = tmp_path / f"model.{kind}"
    model = keras.saving.load_model(model_file)
    difference = export_file(model, path, format=kind, precision=precision, unknown=middle)
    assert difference.relative < 1e-4
    plain = dict(load_predictor(path).predict(photos))  # an export is calibrated or not
    assert_calibrated(plain.items(), expected)
    assert_calibrated(load_predictor(path, unknown=middle).predict(photos), expected, middle)
    # And the file itself.
    inputs, how = keras_resnet.preprocess(model, list(expected)), model.preprocessing
    pixels = 255 * (inputs * np.array(how.std) + np.array(how.mean))
    for image, row in zip(pixels.astype("float32"), expected.values(), strict=True):
        outputs = run_file(kind, path, image[None])
        np.testing.assert_allclose(outputs["probabilities"][0], row, atol=1e-5)
        assert outputs["unknown"].tolist() == [bool(row.max() < middle)]


def run_file(kind, path, images):
    if kind == "tflite":
        interpreter = tf.lite.Interpreter(str(path))
        return interpreter.get_signature_runner("serving_default")(images=images)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.ci
def test_a_server_says_unknown(model_file, photos, expected, middle, tmp_path, capsys):
    model = keras.saving.load_model(model_file)
    written = export_saved_model(model, tmp_path / "served", unknown=middle, on_error="flag", top=3)
    assert written.difference.relative < 1e-4
    assert written.report["calibrated"]
    assert written.report["unknown_below"] == middle
    # TensorFlow's C++ loader: one image is broken.
    files = [*(Path(path).read_bytes() for path in expected), b"broken"]
    answer = serve(written.path, [("serving_default", {"image_bytes": strings(files)})], tmp_path)[
        "answers"
    ][0]
    rows = np.stack(list(expected.values()))
    np.testing.assert_allclose(answer["probabilities"][:-1], np.sort(rows)[:, :-4:-1], atol=1e-5)
    unknown = rows.max(axis=1) < middle
    assert answer["unknown"].tolist() == [*unknown.tolist(), False]
    names = np.where(unknown, "unknown", np.array(CLASSES)[rows.argmax(axis=1)])
    assert [name.decode() for name in answer["answers"]] == [*names.tolist(), ""]
    # Through the predictor, which asks for a threshold of its own.
    served = load_predictor(tmp_path / "served", unknown="75%")
    assert_calibrated(served.predict(photos), expected, QUANTILES[75])
    assert main(["verify-export", str(tmp_path / "served")]) == 0
    assert f"unknown below {middle:.4g}, where it says so" in capsys.readouterr().out


@pytest.mark.ci
def test_verification_finds_another_threshold(model_file, tmp_path):
    model = keras.saving.load_model(model_file)
    written = export_saved_model(model, tmp_path / "served", unknown=0.0)
    note = written.path / FILE
    told = json.loads(note.read_text())
    note.write_text(json.dumps({**told, "unknown_below": 1.0}))
    with pytest.raises(UserError, match="`unknown` is not where the probability is below 1"):
        verify_saved_model(written.path)


@pytest.mark.ci
def test_any_model_can_be_calibrated(model_file, photos):
    model = keras.saving.load_model(model_file)
    files = sorted(photos.rglob("*.png"))
    probabilities = model(keras_resnet.preprocess(model, files), training=False)
    logits = np.log(keras.ops.convert_to_numpy(probabilities))
    labels = np.array([CLASSES.index(file.parent.name) for file in files])
    fitted = keras_resnet.calibrate(model, photos, split="test")
    wanted = calibration.fit(logits, labels, fitted.split)
    assert fitted.temperature == pytest.approx(wanted.temperature, rel=1e-3)
    np.testing.assert_allclose(fitted.quantiles, wanted.quantiles, rtol=1e-3)
    assert dataclasses.replace(fitted, images=IMAGES) == model.calibration


@pytest.mark.ci
def test_the_command_calibrates_a_file_or_a_copy(model_file, photos, tmp_path, capsys):
    stranger = keras.saving.load_model(model_file)
    stranger.calibration = None
    stranger.save(tmp_path / "stranger.keras")
    before = (tmp_path / "stranger.keras").read_bytes()
    some = str(sorted(photos.rglob("*.png"))[0])
    command = ["predict", f"--model={tmp_path / 'stranger.keras'}", "--unknown=50%", some]
    assert main(command) == 1
    assert "`keras-resnet calibrate --model=FILE.keras" in capsys.readouterr().err
    arguments = [f"--model={tmp_path / 'stranger.keras'}", f"--data={photos}"]
    copy = tmp_path / "copy.keras"
    assert main(["calibrate", *arguments, f"--output={copy}"]) == 0
    said = capsys.readouterr().out
    assert (tmp_path / "stranger.keras").read_bytes() == before
    wanted = keras_resnet.calibrate(stranger, photos)
    assert keras.saving.load_model(copy).calibration == wanted
    assert f"a temperature of {wanted.temperature:.3g}, fitted on {IMAGES} images" in said
    assert "So few images give a rough figure." in said
    assert f"--unknown=80%: unknown below {wanted.threshold(0.8):.4g}; " in said
    assert main(["calibrate", *arguments, "--split=test"]) == 0  # into the file itself
    assert main(command) == 0
    assert "unknown" in capsys.readouterr().err + capsys.readouterr().out
    # A model of several labels gets thresholds; the weights are what they were.
    several = tiny_classifier(classifier_activation="sigmoid")
    several.save(tmp_path / "several.keras")
    rows = ["path,label"]
    for number, file in enumerate(sorted(photos.rglob("*.png")) * 3):
        rows.append(f"{file},{'|'.join(CLASSES[: number % 3])}")
    (tmp_path / "sets.csv").write_text("\n".join(dict.fromkeys(rows[: IMAGES + 1])))
    sets = [f"--model={tmp_path / 'several.keras'}", f"--data={tmp_path / 'sets.csv'}"]
    assert main(["calibrate", *sets, f"--output={copy}"]) == 0
    assert "take F1 on these images from" in capsys.readouterr().out
    loaded = keras.saving.load_model(copy)
    judged = keras_resnet.evaluate(several, tmp_path / "sets.csv")
    best = label_sets.best_thresholds(judged.labels, judged.probabilities)
    assert loaded.thresholds == pytest.approx([*best, *[0.5] * (len(CLASSES) - len(best))])
    for ours, theirs in zip(loaded.get_weights(), several.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--model is missing; for example"),
        (["--model=x.keras"], "--data is missing; for example"),
        (["--model=x.pth", "--data=y"], "should end with .keras"),
        (["--model=x.keras", "--data=y"], "x.keras"),
    ],
)
def test_slips_of_calibrate(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", *arguments]) in (1, 2)
    assert said in capsys.readouterr().err
