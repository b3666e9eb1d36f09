"""`keras-resnet train --data` and `finetune`, end to end on small colored images."""

import csv
import json
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from run_helpers import tiny_config
from weights_helpers import arrays_for

import keras_resnet
from keras_resnet import calibration, training
from keras_resnet.calibration import Calibration
from keras_resnet.commands import main
from keras_resnet.input_pipeline import open_source
from keras_resnet.input_pipeline.layout_finder import find_layout
from keras_resnet.training import finish, run
from keras_resnet.training.workdir import WorkDir
from keras_resnet.weights import Checkpoint, apply_weights, schemes

# Whole runs, most of them: `.ci/run` runs them, the README's command has its ten minutes.
pytestmark = pytest.mark.ci

# What compiles in a moment; all else is chosen.
TINY = [
    "--config.model.depths=(1,1,1)",
    "--config.model.widths=(16,16,16)",
    "--config.strategy=cpu",
    "--config.epochs=2",
]


def _fill(folder, count):
    random = np.random.default_rng(0)
    for channel, name in enumerate(["red", "green", "blue"]):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 100, (16, 16, 3), "uint8")
            pixels[..., channel] += 120
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return _fill(tmp_path_factory.mktemp("photos"), 20)


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """The work directory of a run on the photos."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(["train", f"--data={photos}", f"--workdir={folder}", *TINY]) == 0
    return folder


def _lists(workdir):
    with open(workdir / "splits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        split: {row["path"] for row in rows if row["split"] == split}
        for split in ("train", "validation", "test")
    }


def test_a_run_from_a_folder(finished, photos):
    said = (finished / "train.log").read_text()
    for line in ("images ", "network", "length ", "rates  ", "augment"):
        assert said.count(f" {line}    ") == 1
    assert "48 images to train on, 6 to choose by, 6 to report" in said
    config = WorkDir(finished).read_config()
    assert (config.data.path, config.data.test_split) == (str(photos), "train[90%:]")
    result = json.loads((finished / "result.json").read_text())
    assert (result["eval_split"], result["test_split"]) == ("train[80%:90%]", "train[90%:]")
    assert (result["examples"], result["test_examples"]) == (6, 6)
    assert "on the 6 images of train[90%:], by which nothing was chosen" in said
    dataset = json.loads((finished / "dataset.json").read_text())
    assert [dataset[f"{split}_examples"] for split in ("train", "eval", "test")] == [48, 6, 6]


def test_the_reported_figure_is_that_of_the_test_images(finished):
    overrides = {"data.eval_split": "train[90%:]"}
    evaluated = training.evaluate(finished, overrides=overrides)
    result = json.loads((finished / "result.json").read_text())
    for key in ("top1", "loss"):
        assert evaluated[key] == pytest.approx(result[f"test_{key}"], rel=1e-5)


def test_the_temperature_is_fitted_on_images_that_are_not_reported(finished):
    found = json.loads((finished / "calibration.json").read_text())
    assert (found["split"], found["reported_split"]) == ("train[80%:90%]", "train[90%:]")
    assert found["note"] == "Fitted on 6 images only: take it for a rough figure."
    model = keras.saving.load_model(finished / "model.keras")
    assert model.calibration == Calibration.from_dict(found)
    source = open_source("image_folder", path=WorkDir(finished).read_config().data.path,
                         split="train[90%:]")  # fmt: skip
    judged = keras_resnet.evaluate(model, source)
    logits = np.zeros((6, 3))
    np.put_along_axis(logits, judged.predictions, np.log(judged.probabilities), axis=1)
    tested = found["test"]
    assert (tested["split"], tested["images"]) == ("train[90%:]", 6)
    for suffix, temperature in (("", 1.0), ("_calibrated", found["temperature"])):
        confidence, right = calibration.judge(logits, judged.labels, temperature)
        bins = calibration.reliability_bins(confidence, right)
        error = calibration.expected_calibration_error(bins)
        assert tested[f"ece{suffix}"] == pytest.approx(error, abs=1e-3)
    reached = confidence >= found["thresholds"][-1]["threshold"]
    assert tested["thresholds"][-1]["coverage"] == reached.mean()


def test_the_lists_are_a_table_that_has_the_same_splits(finished, photos, tmp_path):
    lists = _lists(finished)
    assert [len(paths) for paths in lists.values()] == [48, 6, 6]
    layout = find_layout(str(finished / "splits.csv"))
    for split, paths in lists.items():
        found = layout.examples(layout.find(split))
        assert {path for path, _ in found} == paths
    plan = training.plan(finished / "splits.csv")
    assert "48 images to train on, 6 to choose by, 6 to report (as they lie)" in plan.lines[0]


@pytest.mark.ci
def test_test_images_are_evaluated_once(photos, tmp_path, monkeypatch):
    evaluated = []
    for module in (run, finish):
        original = module.evaluate_source

        def counting(engine, source, *rest, original=original):
            evaluated.append(source.title.rpartition(" ")[2])
            return original(engine, source, *rest)

        monkeypatch.setattr(module, "evaluate_source", counting)
    assert main(["train", f"--data={photos}", f"--workdir={tmp_path}", *TINY]) == 0
    assert evaluated == ["train[80%:90%]"] * 2 + ["train[90%:]"]


@pytest.mark.parametrize(
    "again",
    [
        ["--data", "--split=0.5"],
        pytest.param(["--data"], marks=pytest.mark.ci),
        pytest.param([], marks=pytest.mark.ci),
    ],
)
def test_it_goes_on_with_what_was_chosen(again, finished, photos, capsys):
    arguments = [f"--data={photos}" if flag == "--data" else flag for flag in again]
    recorded = WorkDir(finished).read_config()
    assert main(["train", f"--workdir={finished}", *arguments]) == 0
    assert "This run is finished (" in capsys.readouterr().out
    assert WorkDir(finished).read_config() == recorded


@pytest.mark.ci
def test_images_that_change_sides_are_said(tmp_path, capsys):
    photos = _fill(tmp_path / "photos", 20)
    command = ["train", f"--workdir={tmp_path / 'run'}", *TINY]
    assert main([*command, f"--data={photos}"]) == 0
    lists = _lists(tmp_path / "run")
    for path in sorted(lists["train"])[:30]:
        (photos.parent / path).unlink()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "images that were held out are now trained on" in said
    assert "dataset.train_examples: 48 -> 24" in said
    assert _lists(tmp_path / "run") == lists


@pytest.mark.ci
def test_fine_tuning_from_weights_of_other_classes(photos, tmp_path):
    """Ten classes there, three here: the classifier is new, trains alone, then all."""
    pretrained = tmp_path / "digits"
    run.train(tiny_config(deterministic=False, epochs=1, data__mean=(0.3, 0.4, 0.5)), pretrained)
    command = ["finetune", f"--data={photos}", f"--weights={pretrained}"]
    arguments = ["--config.epochs=2", "--config.strategy=cpu", f"--workdir={tmp_path / 'run'}"]
    assert main([*command, *arguments]) == 0
    said = (tmp_path / "run" / "train.log").read_text()
    assert "rates      the classifier alone for 1 epoch, then all layers" in said
    assert "stages     model.freeze=body until step 6 (epoch 1), then all layers train" in said
    config = WorkDir(tmp_path / "run").read_config()
    assert (config.model.freeze, config.model.unfreeze_epoch) == ("body", 1)
    assert (config.data.mean, config.data.image_size) == ((0.3, 0.4, 0.5), 8)
    assert config.model.depths == (1, 1, 1)
    assert main([*command, *arguments]) == 0  # resumed with the same command


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A file of weights for five classes whose names nobody knows, and the network of it."""
    options = {"depths": (1, 1, 1), "widths": (16, 16, 16), "classes": 5}
    model = keras_resnet.CifarResNet20(shortcut="A-centered", **options)
    arrays = arrays_for(model, schemes.TORCHVISION)
    apply_weights(model, Checkpoint("x", arrays), variant="CifarResNet20", given={"shortcut"})
    odd = {
        f"net.{n.replace('layer', 'group').replace('fc.', 'out.')}": a for n, a in arrays.items()
    }
    file = tmp_path_factory.mktemp("stranger") / "net.npz"
    np.savez(file, **odd)
    return file, model


@pytest.mark.parametrize(
    "names", [["--match=order"], ["--rename=^net\\.=", "--rename=group=layer", "--rename=^out=fc"]]
)
def test_weights_of_strangers_are_fine_tuned_in_one_command(
    names, stranger, photos, tmp_path, capsys
):
    """Only the classifier trains, so that the body can be compared."""
    file, model = stranger
    frozen = ["--config.model.freeze=body", "--config.model.unfreeze_epoch=0"]
    command = ["finetune", f"--data={photos}", f"--weights={file}", f"--workdir={tmp_path / 'run'}"]
    options = ["--config.model.name=CifarResNet20", "--config.data.image_size=16", *TINY, *frozen]
    assert main([*command, *names, *options]) == 1
    assert "--shortcut= is --config.model.shortcut=" in capsys.readouterr().err
    options.append("--config.model.shortcut=A-centered")
    assert main([*command, *names, *options]) == 0
    workdir = WorkDir(tmp_path / "run")
    trained = keras.saving.load_model(workdir.model)
    ours = {weight.path: weight for weight in trained.weights}
    body = [weight for weight in model.weights if "predictions" not in weight.path]
    assert len(body) > 30
    for weight in body:
        np.testing.assert_array_equal(ours[weight.path], weight)
    config = workdir.read_config()
    assert config.model.weights_match == ("order" if names == ["--match=order"] else "names")
    assert len(config.model.weights_rename) == (0 if names == ["--match=order"] else 3)
    assert main([*command, *names]) == 0  # finished, evaluated again


@pytest.mark.parametrize(
    ("arguments", "quoted"),
    [
        (["train", "--data=x", "--match=order", "--workdir=w"], "--match goes with --weights=FILE"),
        (["train", "--data=x", "--rename=a=b", "--workdir=w"], "--rename goes with --weights"),
        (["train", "--config=digits", "--match=order", "--workdir=w"], "--match goes with --data"),
        (
            ["finetune", "--data=x", "--weights=y", "--rename=(=b", "--workdir=w"],
            "--rename=(=b: '(' is no regular expression",
        ),
        (
            ["train", "--config=digits", "--workdir=w", "--config.model.weights_rename=ab"],
            "config.model.weights_rename=ab: should be REGEX=NEW",
        ),
        (["train", "--data=x", "--config=digits", "--workdir=w"], "--config or --data, not both"),
        (["train", "--config=digits", "--workdir=w", "--split=0.3"], "--split goes with --data"),
        (["train", "--weights=x", "--workdir=w"], "--weights goes with --data=PHOTOS"),
        (["train", "--workdir=w"], "--config is missing, or --data=PHOTOS"),
        (["train", "--data=x"], "--workdir is missing"),
        (["finetune", "--data=x", "--workdir=w"], "--weights is missing; for example"),
        (["finetune", "--weights=x", "--workdir=w"], "--data is missing; for example"),
    ],
)
def test_slips_of_the_command_line(arguments, quoted, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert quoted in message
    assert message.count("\n") == 1


def test_weights_that_do_not_say_their_network(photos, tmp_path, capsys):
    np.savez(tmp_path / "w.npz", **{"conv1.weight": np.zeros((3, 3, 3, 3), "float32")})
    command = ["finetune", f"--data={photos}", f"--weights={tmp_path / 'w.npz'}"]
    assert main([*command, f"--workdir={tmp_path / 'run'}"]) == 2
    assert "name it, for example --config.model.name=ResNet50" in capsys.readouterr().err


def test_weights_whose_package_is_not_installed(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pth").write_bytes(b"PK")
    command = ["finetune", f"--data={photos}", f"--weights={tmp_path / 'w.pth'}"]
    assert main([*command, f"--workdir={tmp_path / 'run'}"]) == 1
    said = capsys.readouterr().err
    assert said.endswith("needs the package torch: pip install 'keras-resnet-tpu[torch]'\n")
    assert said.count("\n") == 1
