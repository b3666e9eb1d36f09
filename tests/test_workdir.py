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
        {"data.path": ["/new", "/newer"]},
    ]
    assert json.loads(workdir.config.read_text())["config_version"] == configs.CONFIG_VERSION


def test_without_a_note_there_is_no_entry(workdir):
    workdir.claim(changed(log_every_steps=7))
    assert workdir.read_history() == []
    assert workdir.read_config().log_every_steps == 7


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 31}, {"seed": 1}, {"batch_size": 64}, {"optimizer__learning_rate": 0.1},
     {"epochs": 31, "data__path": "/new"}],
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


def test_nothing_changes_while_another_process_trains(workdir):
    before = workdir.config.read_text()
    with workdir.locked(), pytest.raises(UserError, match="another process is training here"):
        WorkDir(workdir.path).claim(changed(data__path="/new"))
    assert workdir.config.read_text() == before


def test_a_lock_on_a_file_that_was_replaced_is_none(workdir, monkeypatch):
    """Between opening and locking, another process may have replaced config.json."""
    import fcntl

    flock = fcntl.flock

    def late(file, operation):
        workdir.config.with_name("new").write_text(workdir.config.read_text())
        os.replace(workdir.config.with_name("new"), workdir.config)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="another process"), workdir.locked():
        pass
