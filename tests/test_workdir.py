"""The work directory: whose it is, what may change in it, and its history. No TensorFlow needed."""

import datetime
import json
import os

import pytest

from keras_resnet import config as configs
from keras_resnet.errors import UserError
from keras_resnet.training.workdir import WorkDir


@pytest.fixture
def workdir(tmp_path):
    workdir = WorkDir(tmp_path)
    assert workdir.claim(configs.load_config("digits")) == {}
    return workdir


def changed(**changes):
    delta = {key.replace("__", "."): value for key, value in changes.items()}
    return configs.merge(configs.load_config("digits"), delta, "test")


def test_the_same_config_leaves_the_file_alone(workdir):
    before = workdir.config.stat()
    workdir.check(changed())
    assert workdir.claim(changed()) == {}
    assert os.path.samestat(before, workdir.config.stat())
    assert workdir.read_history() == []


def test_what_may_change_is_written_and_what_matters_noted(workdir):
    config = changed(data__path="/new", checkpoint__keep=9)
    workdir.check(config)
    assert workdir.claim(config) == {"data.path": ("", "/new")}
    assert workdir.read_config() == config
    (entry,) = workdir.read_history()
    assert entry["changed"] == {"data.path": ["", "/new"]}
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(entry["time"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    again = changed(data__path="/newer", data__cache="none")
    workdir.check(again)
    workdir.claim(again)
    assert [row["changed"] for row in workdir.read_history()] == [
        {"data.path": ["", "/new"]},
        {"data.path": ["/new", "/newer"], "data.cache": ["auto", "none"]},
    ]
    assert json.loads(workdir.config.read_text())["config_version"] == configs.CONFIG_VERSION


def test_without_a_note_there_is_no_entry(workdir):
    workdir.claim(changed(log_every_steps=7))
    assert workdir.read_history() == []
    assert workdir.read_config().log_every_steps == 7


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"batch_size": 64}, {"optimizer__learning_rate": 0.1},
     {"seed": 1, "data__path": "/new"}],
)  # fmt: skip
def test_what_changes_the_mathematics_is_refused(workdir, changes):
    before = workdir.config.read_bytes()
    with pytest.raises(UserError) as error:
        workdir.check(changed(**changes))
    assert f"{workdir.path} belongs to a run with another config: " in str(error.value)
    assert "data.path: " not in str(error.value)
    assert "strategy" in str(error.value)
    assert workdir.config.read_bytes() == before


def test_a_file_of_the_first_version_stays_as_it_is_until_something_changes(workdir):
    config = changed()
    old = json.dumps(config.to_dict(), indent=2) + "\n"
    workdir.config.write_text(old)
    workdir.check(config)
    workdir.claim(config)
    assert workdir.config.read_text() == old
    workdir.claim(changed(xla="off"))
    assert json.loads(workdir.config.read_text())["config_version"] == configs.CONFIG_VERSION
    assert len(workdir.read_history()) == 1


def test_a_run_that_an_older_version_began_keeps_its_defaults(workdir):
    began = json.loads(workdir.config.read_text())
    began["config_version"] = 1
    del began["model"]["classifier_initializer"]
    began["model"]["zero_init_last_gamma"] = True
    workdir.config.write_text(json.dumps(began))
    with pytest.raises(UserError, match=r"model\.zero_init_last_gamma: True -> None"):
        workdir.check(changed())
    kept = workdir.keep_older_defaults(changed(data__path="/new"))
    workdir.check(kept)
    assert kept.model.zero_init_last_gamma is True
    assert kept.model.classifier_initializer == "normal"
    assert kept.data.path == "/new"
    # What somebody asks for is no default.
    asked = workdir.keep_older_defaults(changed(model__classifier_initializer="fan_in"))
    assert asked.model.classifier_initializer == "fan_in"
    assert WorkDir(workdir.path / "new").keep_older_defaults(changed()) == changed()


def test_who_comes_late_is_checked_again(workdir):
    """Between `check` and `claim` another process may have begun a run in the folder."""
    with pytest.raises(UserError, match="belongs to a run with another config: seed: 0 -> 1"):
        WorkDir(workdir.path).claim(changed(seed=1))


def test_a_config_json_that_is_no_text(workdir):
    workdir.config.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        workdir.check(changed())


@pytest.mark.parametrize("history", ["x", {"a": 1}, [1], None])
def test_a_broken_history_is_not_written_over(workdir, history):
    values = json.loads(workdir.config.read_text())
    workdir.config.write_text(before := json.dumps({**values, "history": history}))
    with pytest.raises(UserError, match=r"history is .* not a list of changes; put a copy"):
        workdir.claim(changed(data__path="/new"))
    assert workdir.config.read_text() == before
    with pytest.raises(UserError, match="history is"):  # where nothing is changed, too
        workdir.read_config()


def test_damaged_lines_of_metrics_cost_only_themselves(workdir):
    rows = [{"kind": "train", "step": step, "loss": 1.0} for step in (1, 2, 3)]
    lines = [json.dumps(row).encode() for row in rows]
    damaged = [b"3", b"null", b'{"a": 1}', b"\xff\xfe", lines[0][:-9]]
    workdir.metrics.write_bytes(b"\n".join([lines[0], *damaged, lines[1], lines[2][:-3]]) + b"\n")
    assert workdir.read_metrics() == rows[:2]
    assert workdir.rewind_metrics(1) == rows[:1]
    assert workdir.metrics.read_bytes() == lines[0] + b"\n"


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"classes": 3}', '{"classes": []}'])
def test_a_damaged_dataset_json_says_what_to_do(workdir, text):
    with pytest.raises(UserError, match=r"missing; run keras-resnet train"):
        workdir.read_dataset()
    workdir.dataset.write_text(text)
    with pytest.raises(UserError, match=r"dataset\.json: damaged; run keras-resnet train"):
        workdir.read_dataset()
