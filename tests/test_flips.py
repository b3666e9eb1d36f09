"""Test-time flips: against NumPy, in evaluation, prediction and exports."""

import importlib
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy
from export_helpers import CLASSES, given_images, serve, tiny_classifier
from input_helpers import encode, smooth_image
from run_helpers import tiny_config

import keras_resnet
from keras_resnet import config as configs
from keras_resnet import flips, reports
from keras_resnet.calibration import softmax
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.evaluation import open_labelled
from keras_resnet.explain.predictions import predict_source
from keras_resnet.export import export_file, export_saved_model
from keras_resnet.export.loading import load_predictor
from keras_resnet.export.origin import read_origin
from keras_resnet.export.predictor import Predictor
from keras_resnet.export.verify import verify_saved_model
from keras_resnet.models import create_model
from keras_resnet.models.loading import load_model
from keras_resnet.training import run
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.workdir import WorkDir

KINDS = flips.TTA[1:]


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def by_hand(run, images, tta, independent=False):
    """Probabilities in float64: the image, the mirror image, and the mean of what is asked for."""
    first, second = (np.asarray(run(x), "float64") for x in (images, np.flip(images, axis=-2)))
    squash = sigmoid if independent else softmax
    if tta == "flip_probabilities":
        return (squash(first) + squash(second)) / 2
    return squash((first + second) / 2 if tta == "flip" else first)


@pytest.mark.parametrize("shape", [(4, 6, 3), (2, 4, 6, 3)])
@pytest.mark.parametrize("independent", [False, True])
@pytest.mark.parametrize("tta", flips.TTA)
def test_against_numpy(tta, independent, shape):
    """Logits of up to 60, whose probabilities float32 cannot tell from 0 and 1; 2-D and 3-D."""
    random = np.random.default_rng(0)
    images = random.normal(size=(5, *shape)).astype("float32")
    kernel = random.normal(size=(np.prod(shape), 4)).astype("float32") * 2

    def run(x):
        return keras.ops.matmul(keras.ops.reshape(x, (-1, len(kernel))), kernel)

    merged = flips.answer_with_flips(run, tf.constant(images), tta, independent)
    squash = sigmoid if independent else softmax
    wanted = by_hand(run, images, tta, independent)
    np.testing.assert_allclose(squash(np.asarray(merged, "float64")), wanted, rtol=3e-5, atol=1e-30)


def test_1_d_has_no_width():
    model = create_model("ResNet18", input_shape=(64, 3), classes=4, depths=(1, 1, 1, 1))
    with pytest.raises(UserError, match=r"takes \(None, 64, 3\), which has no width to mirror"):
        model.tta = "flip"
    with pytest.raises(UserError, match="has no width to mirror; take tta=none"):
        Predictor.of_model(model, tta="flip")
    with pytest.raises(UserError, match="has no width"):
        flips.answer_with_flips(model, np.zeros((1, 64, 3), "float32"), "flip")
    with pytest.raises(UserError, match=r"tta='flips' is not one of .* did you mean 'flip'"):
        model.tta = "flips"


def test_a_model_carries_it(tmp_path):
    model = tiny_classifier()
    assert "tta" not in model.get_config()
    model.tta = "flip_probabilities"
    model.save(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras").tta == "flip_probabilities"
    assert keras.models.clone_model(model).tta == "flip_probabilities"
    model.tta = "none"
    assert "tta" not in model.get_config()


def logits_of(model):
    """uint8 pixels -> logits of a model that gives softmax or sigmoid, up to a constant."""
    head = model.layers[-1]
    body = keras.Model(model.inputs[0], head.input)
    kernel, bias = (np.asarray(weight, "float64") for weight in head.get_weights())

    def run(pixels):
        told = model.preprocessing
        images = (np.asarray(pixels, "float32") / 255 - told.mean) / told.std
        return np.asarray(body(images.astype("float32"), training=False)) @ kernel + bias

    return run


QUICK = {(False, "flip", 1), (True, "flip_probabilities", 1)}
ALL = set(itertools.product((False, True), flips.TTA, (1, 2)))


@pytest.mark.parametrize(
    ("several", "tta", "replicas"),
    [*sorted(QUICK), *(pytest.param(*one, marks=pytest.mark.ci) for one in sorted(ALL - QUICK))],
)
def test_evaluation_steps(several, tta, replicas):
    """Sums, rows and logits of all but the padding, on one replica and on two."""
    config = configs.default_config()
    config.evaluation.tta, config.data.multi_label = tta, several
    config.loss.name = "binary" if several else "softmax"
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8, 32, 32, 3), dtype="uint8")
    labels = random.integers(0, len(CLASSES), 8)
    labels = np.eye(len(CLASSES), dtype="float32")[labels] if several else labels.astype("int32")
    mask = (np.arange(8) < 7).astype("float32")
    strategy = mirrored_strategy(replicas)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = tiny_classifier(classifier_activation=None)
    steps = Steps(model, None, strategy, config)
    batch = tf.data.Dataset.from_tensors({"image": pixels, "label": labels, "mask": mask})
    batch = batch.unbatch().batch(8)
    found = steps.evaluation_loop(
        iter(strategy.experimental_distribute_dataset(batch)), tf.constant(1)
    )
    wanted = by_hand(logits_of(model), pixels, tta, several)
    squash = sigmoid if several else softmax
    np.testing.assert_allclose(squash(found.logits.numpy()), wanted, rtol=1e-3, atol=1e-5)
    assert found.sums.numpy()[0, -1] == 7
    if several:
        np.testing.assert_allclose(found.rows.numpy()[:7, 1], wanted[:7], rtol=1e-3, atol=1e-5)
        losses = -np.where(labels > 0, np.log(wanted), np.log1p(-wanted)).mean(axis=1)
    else:
        assert found.rows.numpy()[:7].tolist() == [
            [label, guess] for label, guess in zip(labels[:7], wanted[:7].argmax(1), strict=True)
        ]
        losses = -np.log(wanted[np.arange(8), labels])
    np.testing.assert_allclose(found.sums.numpy()[0, 0], losses[:7].sum(), rtol=1e-4)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for index in range(3):
            image = smooth_image(40, 40, seed=10 * number + index)
            (folder / name / f"{index}.png").write_bytes(encode(image))
    return folder


@pytest.mark.parametrize(
    ("tta", "activation"),
    [
        ("flip", "softmax"),
        ("flip_probabilities", "sigmoid"),
        ("flip", "sigmoid"),
        ("flip_probabilities", "softmax"),
    ],
)
@pytest.mark.ci
def test_predictions(tta, activation, photos):
    model = tiny_classifier(classifier_activation=activation)
    files = sorted(photos.rglob("*.png"))[:4]
    pixels = keras_resnet.preprocess(model, files)
    told = model.preprocessing
    pixels = (np.asarray(pixels) * told.std + told.mean) * 255
    wanted = by_hand(logits_of(model), pixels, tta, activation == "sigmoid")
    predictor = Predictor.of_model(model, len(CLASSES), tta=tta)
    assert predictor.tta == tta
    found = predictor.classify([file.read_bytes() for file in files])
    np.testing.assert_allclose(
        found.probabilities, np.take_along_axis(wanted, found.class_ids, 1), rtol=1e-3
    )
    model.tta = tta
    again = Predictor.of_model(model, len(CLASSES)).classify([f.read_bytes() for f in files])
    np.testing.assert_array_equal(again.probabilities, found.probabilities)


@pytest.fixture(scope="module")
def calibrated():
    model = tiny_classifier()
    model.tta = "flip_probabilities"
    model.calibration = {
        "temperature": 0.5,
        "quantiles": np.linspace(1, 0.2, 101).tolist(),
        "split": "val",
        "images": 100,
    }
    return model


@pytest.mark.ci
def test_a_temperature_belongs_to_its_kind_of_answers(calibrated, photos, tmp_path):
    """It divides what the mean of the probabilities gives, not what the mean is taken of."""
    file = next(photos.rglob("*.png"))
    plain = Predictor.of_model(calibrated, len(CLASSES)).classify([file.read_bytes()])
    sharper = Predictor.of_model(calibrated, len(CLASSES), calibrated=True)
    found = sharper.classify([file.read_bytes()])
    wanted = plain.probabilities.astype("float64") ** 2
    np.testing.assert_allclose(found.probabilities, wanted / wanted.sum(), rtol=1e-4)
    with pytest.raises(UserError, match="was fitted with tta='flip_probabilities'; leave tta out"):
        Predictor.of_model(calibrated, calibrated=True, tta="flip")
    with pytest.raises(UserError, match="cannot take the mean before the temperature"):
        export_file(calibrated, tmp_path / "m.keras", format="keras", calibrated=True)
    assert not (tmp_path / "m.keras").exists()


def test_thresholds_of_other_answers_are_said():
    model = tiny_classifier(classifier_activation="sigmoid")
    model.thresholds = [0.4] * len(CLASSES)
    with pytest.warns(UserWarning, match="were fitted with tta='none', and it answers with tta='f"):
        Predictor.of_model(model, tta="flip")


# ---- Exports -------------------------------------------------------------------------------------


def pixels_of(count=3):
    return np.stack([smooth_image(32, 32, seed=seed) for seed in range(count)])


@pytest.mark.ci
def test_a_saved_model_flips_in_its_graph(tmp_path, photos, capsys):
    model = tiny_classifier()
    wanted = by_hand(logits_of(model), pixels_of(), "flip")
    written = export_saved_model(model, tmp_path / "served", tta="flip")
    assert written.report["tta"] == read_origin(written.path)["tta"] == "flip"
    requests = [("predict_images_uint8", {"images": pixels_of()})]
    (found,) = serve(written.path, requests, tmp_path)["answers"]
    np.testing.assert_allclose(found["probabilities"], wanted, rtol=1e-3)
    files = [file.read_bytes() for file in sorted(photos.rglob("*.png"))[:3]]
    predictor = load_predictor(tmp_path / "served")
    of_model = Predictor.of_model(model, tta="flip")
    assert predictor.tta == "flip"
    np.testing.assert_allclose(
        predictor.classify(files).probabilities, of_model.classify(files).probabilities, rtol=1e-3
    )
    with pytest.raises(UserError, match="was exported with tta='flip', which is in its graph"):
        load_predictor(tmp_path / "served", tta="none")
    assert main(["verify-export", str(tmp_path / "served")]) == 0
    assert "flips: each image together with its mirror image" in capsys.readouterr().out


@pytest.mark.ci
def test_verification_finds_a_graph_that_does_not_flip(tmp_path):
    written = export_saved_model(tiny_classifier(), tmp_path / "served")
    assert written.report["tta"] == "none"
    note = written.path / "assets.extra" / "keras_resnet.json"
    origin = json.loads(note.read_text())
    assert "tta" not in origin
    note.write_text(json.dumps({**origin, "tta": "flip"}))
    with pytest.raises(UserError, match="of mirror images differ, and it says that both count"):
        verify_saved_model(written.path)
    note.write_text(json.dumps({**origin, "tta": "mirror"}))
    assert read_origin(written.path) is None


@pytest.mark.ci
@pytest.mark.parametrize(
    ("kind", "precision", "atol"),
    [("tflite", "float32", 1e-4), ("tflite", "int8", 0.1), ("onnx", "float32", 1e-4)],
)
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("tta", KINDS)
def test_files_flip_in_their_graph(tta, activation, kind, precision, atol, tmp_path):
    if kind == "onnx":
        pytest.importorskip("tf2onnx")
    model = tiny_classifier(classifier_activation=activation)
    file = tmp_path / f"model.{kind}"
    seen = given_images(model, 16)
    export_file(model, file, format=kind, precision=precision, samples=seen, tta=tta)
    wanted = by_hand(logits_of(model), pixels_of(), tta, activation == "sigmoid")
    run = importlib.import_module(f"keras_resnet.export.{kind}").Runner(file)
    squash = sigmoid if activation == "sigmoid" else softmax
    np.testing.assert_allclose(squash(run(pixels_of())), wanted, atol=atol)
    assert load_predictor(file).tta == tta
    with pytest.raises(UserError, match="in its graph; leave tta out"):
        load_predictor(file, tta="none")


@pytest.mark.ci
def test_a_keras_file_says_that_it_is_to_be_flipped(tmp_path):
    export_file(tiny_classifier(), tmp_path / "model.keras", format="keras", tta="flip")
    assert load_predictor(tmp_path / "model.keras").tta == "flip"


# ---- Commands ------------------------------------------------------------------------------------


def model_with(model, tta):
    model.tta = tta
    return model


@pytest.mark.ci
def test_commands(photos, tmp_path, capsys):
    model = tiny_classifier()
    file = tmp_path / "model.keras"
    model.save(file)
    evaluate = ["evaluate", f"--model={file}", f"--data={photos}"]
    assert main([*evaluate, "--json"]) == 0
    assert "tta" not in json.loads(capsys.readouterr().out)
    assert main([*evaluate, "--json", "--tta=flip"]) == 0
    flipped = json.loads(capsys.readouterr().out)
    assert flipped["tta"] == "flip"
    result = keras_resnet.evaluate(file, photos, tta="flip")
    assert (flipped["top1"], flipped["loss"]) == (result.top1, result.loss)
    shown = predict_source(model_with(model, "flip"), open_labelled(photos, None, "stop", 0.0))
    assert shown.top1 == result.top1
    assert shown.source.endswith("each image together with its mirror image, mean of the logits")
    assert main([*evaluate, "--tta=flip"]) == 0
    assert "flips      each image together with its mirror" in capsys.readouterr().out
    copy = tmp_path / "copy.keras"
    calibrate = ["calibrate", f"--model={file}", f"--data={photos}", f"--output={copy}"]
    assert main([*calibrate, "--tta=flip"]) == 0
    assert "together with its mirror image" in capsys.readouterr().out
    again = load_model(copy)
    assert (again.tta, again.calibration.images) == ("flip", 18)
    predict = ["predict", f"--model={copy}", "--json", str(photos)]
    assert main([*predict, "--calibrated"]) == 0
    capsys.readouterr()
    assert main([*predict, "--calibrated", "--tta=none"]) == 1
    assert "was fitted with tta='flip'" in capsys.readouterr().err
    assert main([*predict, "--tta=turn"]) == 2


@pytest.mark.ci
def test_a_run(tmp_path, capsys):
    """It says so, model.keras carries it, and a finished run may change its mind."""
    folder = WorkDir(tmp_path)
    plain = run.train(tiny_config(epochs=1), tmp_path)
    assert "tta" not in plain
    assert load_model(folder.model).tta == "none"
    flipped = run.train(tiny_config(epochs=1, evaluation__tta="flip"), tmp_path)
    assert "Evaluated each image together with its mirror" in capsys.readouterr().out
    assert flipped["tta"] == json.loads(folder.result.read_text())["tta"] == "flip"
    assert flipped["loss"] != plain["loss"]
    model = load_model(folder.model)
    assert model.tta == "flip"
    assert model.calibration.images == flipped["examples"] == plain["examples"]
    changed = folder.read_history()[-1]["changed"]
    assert changed == {"evaluation.tta": ["none", "flip"]}
    evaluate = ["evaluate", f"--workdir={tmp_path}", "--json"]
    for arguments, wanted in (([], flipped), (["--tta=none"], plain)):
        assert main([*evaluate, *arguments]) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-6)
        assert found.get("tta") == wanted.get("tta")
    assert main([*evaluate[:2], "--tta=flip_probabilities"]) == 0
    assert "with its mirror image, mean of the probabilities" in capsys.readouterr().out
    source = keras_resnet.input_pipeline.open_source("tfds", name="digits", path="", split="test")
    result = keras_resnet.evaluate(tmp_path, source)
    assert (result.tta, result.loss) == ("flip", pytest.approx(flipped["loss"], rel=1e-4))
    report = reports.gather(folder, folder.read_config(), model, source, None)
    assert report.source.endswith("with its mirror image, mean of the logits")
    assert report.top1 == pytest.approx(flipped["top1"])
