"""What a stopped run says to do is done here, and the run goes on."""

import json
import math
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from run_helpers import TINY, tiny_config

from keras_resnet import config as configs
from keras_resnet.commands import main
from keras_resnet.config import default_config
from keras_resnet.config.schema import KEYS
from keras_resnet.errors import UserError
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.training import run
from keras_resnet.training.engine import find_engine
from keras_resnet.training.workdir import WorkDir

# Whole runs, most of them: `.ci/run` runs them, the README's command has its ten minutes.
pytestmark = pytest.mark.ci

PHOTOS = 24


@pytest.fixture
def photos(tmp_path):
    """An image folder of two classes; its last training photo is broken."""
    random = np.random.default_rng(0)
    for split, count in (("train", PHOTOS), ("val", 8)):
        for number in range(count):
            folder = tmp_path / "photos" / split / ("dark", "light")[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 128, (10, 10, 3)) + 127 * (number % 2)
            Image.fromarray(pixels.astype("uint8")).save(folder / f"{number:02}.png")
    return tmp_path / "photos"


def _config(photos, **changes):
    return tiny_config(
        deterministic=False,
        batch_size=8,
        epochs=2,
        log_every_steps=1,
        checkpoint__every_epochs=1,
        data__source="image_folder",
        data__name="",
        data__path=str(photos),
        data__train_split="train",
        data__eval_split="val",
        **changes,
    )


def _stop_at_a_broken_photo(photos, workdir):
    broken = photos / "train" / "light" / "23.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"23\.png .*Replace or remove it") as caught:
        run.train(_config(photos), workdir)
    assert WorkDir(workdir).is_begun()
    assert str(broken) in str(caught.value)
    return broken, whole


def _history(workdir):
    return [entry["changed"] for entry in WorkDir(workdir).read_history()]


def test_a_broken_photo_is_removed(photos, tmp_path, capsys):
    broken, _ = _stop_at_a_broken_photo(photos, tmp_path / "run")
    broken.unlink()
    result = run.train(_config(photos), tmp_path / "run")
    assert result["step"] == (PHOTOS - 1) * 2 // 8
    assert _history(tmp_path / "run") == [{"dataset.train_examples": [PHOTOS, PHOTOS - 1]}]
    said = capsys.readouterr().out
    assert f"changed    since the run began: dataset.train_examples: {PHOTOS} -> 23" in said
    assert "the run ends after step 5 instead of 6" in said
    # A third start finds nothing new to note.
    assert run.train(_config(photos), tmp_path / "run")["step"] == 5
    assert len(_history(tmp_path / "run")) == 1


@pytest.mark.ci
def test_a_broken_photo_is_replaced_or_skipped(photos, tmp_path):
    broken, whole = _stop_at_a_broken_photo(photos, tmp_path / "replaced")
    skipping = {"data__on_error": "skip", "data__max_broken_share": 0.1}
    result = run.train(_config(photos, **skipping), tmp_path / "replaced")
    assert result["skipped_train_images"] == 1
    (noted,) = _history(tmp_path / "replaced")
    assert noted["data.on_error"] == ["stop", "skip"]
    broken.write_bytes(whole)
    assert run.train(_config(photos), tmp_path / "replaced")["step"] == 6


def test_other_classes_are_another_data_set(photos, tmp_path):
    workdir = WorkDir(tmp_path / "run")
    run.train(_config(photos, evaluate_every_epochs=2), workdir.path)
    shutil.copytree(photos / "train" / "dark", photos / "train" / "dusk")
    shutil.copytree(photos / "val" / "dark", photos / "val" / "dusk")
    with pytest.raises(UserError, match=r"of its classes 1 new \('dusk'\)\. Bring it back"):
        run.train(_config(photos), workdir.path)
    for split in ("train", "val"):
        shutil.rmtree(photos / split / "dusk")
    assert run.train(_config(photos), workdir.path)["step"] == 6


@pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.ci)])
def test_a_loss_that_is_not_finite(epochs, tmp_path, monkeypatch):
    """The advice holds with a checkpoint and before the first one."""
    engine = find_engine(default_config())
    train, calls = engine.train, []

    def poison(self, batches, steps, *more):
        sums = np.array(train(self, batches, steps, *more))
        calls.append(steps)
        if sum(calls) > poisoned[-1] and not failed:
            failed.append(True)
            sums[-1, 0] = math.nan
        return sums

    failed: list[bool] = []
    poisoned = [5 if epochs == 1 else 30]
    monkeypatch.setattr(engine, "train", poison)
    settings = {"deterministic": False, "epochs": epochs}
    with pytest.raises(UserError) as caught:
        run.train(tiny_config(**settings), tmp_path)
    message = str(caught.value)
    where = "no checkpoint yet" if epochs == 1 else "the newest checkpoint is of step 22"
    assert "the loss is not finite (NaN or infinity) in step" in message
    assert f"; {where}. The same command with --config.on_nonfinite=rollback goes" in message
    failed.clear()
    calls.clear()
    poisoned.append(5)  # counted from the checkpoint
    result = run.train(tiny_config(**settings, on_nonfinite="rollback"), tmp_path)
    assert result["step"] == 22 * epochs
    rows = WorkDir(tmp_path).read_metrics()
    assert [row["kind"] for row in rows].count("rollback") == 1
    assert _history(tmp_path) == [{"on_nonfinite": ["stop", "rollback"]}]


@pytest.mark.ci
def test_more_epochs_stretch_the_schedule_and_it_is_said(tmp_path, capsys):
    run.train(tiny_config(deterministic=False, epochs=1), tmp_path)
    result = run.train(tiny_config(deterministic=False, epochs=2), tmp_path)
    assert result["step"] == 44
    said = capsys.readouterr().out
    assert "epochs: 1 -> 2" in said
    # Cosine from 0.05: over at step 22 of 22, half way at step 22 of 44.
    assert "ends after step 44 instead of 22" in said
    assert "in step 22 it is 0.025 instead of 0\n" in said
    assert _history(tmp_path) == [{"epochs": [1, 2]}]
    assert WorkDir(tmp_path).read_config().epochs == 2
    # Fewer than are done: the run ends where it stands.
    assert run.train(tiny_config(deterministic=False, epochs=1), tmp_path)["step"] == 44
    assert "it is at step 44, so it ends here" in capsys.readouterr().out


# What issue and docs say may change, with a value for a run on the digits.
MAY_CHANGE = {
    "data.cache": "none",
    "log_every_steps": 3,
    "strategy": "auto",
    "checkpoint.keep": 1,
    "tensorboard.histograms": True,
    "connect_timeout": 5.0,
    "on_nonfinite": "rollback",
    "data.on_error": "skip",
    "epochs": 5,
    "data.path": "/elsewhere",
}


def test_what_may_change_is_claimed_key_by_key(tmp_path):
    workdir = WorkDir(tmp_path)
    workdir.claim(tiny_config())
    for key, value in MAY_CHANGE.items():
        config = configs.merge(workdir.read_config(), {key: value}, "test")
        workdir.check(config)
        assert (key in workdir.claim(config)) == (KEYS[key].resume == "noted"), key
    noted = [key for key in MAY_CHANGE if KEYS[key].resume == "noted"]
    assert [[*entry] for entry in _history(tmp_path)] == [[key] for key in noted]


def test_a_refused_config_names_a_command_that_goes_on(tmp_path, capsys):
    arguments = [f"--config.{key}={value}" for key, value in {**TINY, "epochs": 1}.items()]
    command = ["train", "--config=smoke", f"--workdir={tmp_path}", *arguments]
    WorkDir(tmp_path).claim(configs.load_config("smoke"))
    assert main(command) == 1
    refused = capsys.readouterr().err
    assert "give --workdir alone, without --config and without these keys" in refused


def test_a_damaged_config_json_is_removed_and_given_again(tmp_path, capsys):
    config = tiny_config(deterministic=False, epochs=1)
    run.train(config, tmp_path)
    WorkDir(tmp_path).config.write_text("null")
    assert main(["train", f"--workdir={tmp_path}"]) == 2
    advice = "remove it and give --config with all that the run began with"
    assert advice in capsys.readouterr().err
    WorkDir(tmp_path).config.unlink()
    before = WorkDir(tmp_path).model.read_bytes()
    assert run.train(config, tmp_path)["step"] == 22
    assert WorkDir(tmp_path).model.read_bytes() == before


@pytest.mark.parametrize("name", ["a b", "x[1]", "ü'\"", "-x", "a\nb", "100%"])
def test_next_steps_are_commands_that_a_shell_takes(name, tmp_path, monkeypatch, capsys):
    import shlex
    from types import SimpleNamespace

    from keras_resnet.training.reporting import Reporter

    reporter = Reporter.__new__(Reporter)
    reporter.workdir = WorkDir(tmp_path / name)
    reporter._model = SimpleNamespace(class_names=["a", "b"])
    lines: list[str] = []
    reporter._say = lines.append
    reporter.conclude({"top1": 1.0, "loss": 0.0, "examples": 1, "train_images_per_second": None})
    words = shlex.split(lines[3])
    assert words == ["keras-resnet", "evaluate", f"--workdir={tmp_path / name}"]
    call = re.search(r"load_model\((.*)\)   after", lines[-1])[1]
    assert json.loads(call) == str(tmp_path / name / "model.keras")
