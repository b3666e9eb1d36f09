"""Files here and in buckets: written whole or not at all, read the same from both."""

import json
from pathlib import Path

import pytest
import tensorflow as tf
from bucket_helpers import buckets_in_memory
from etils.epath import gpath

from keras_resnet import storage
from keras_resnet.errors import UserError
from keras_resnet.storage import write_text
from keras_resnet.training.workdir import WorkDir


@pytest.fixture(scope="module", autouse=True)
def buckets():
    with buckets_in_memory():
        yield


@pytest.fixture(params=["here", "bucket"])
def folder(request, tmp_path):
    """An empty folder of this machine, and one of a bucket."""
    path = storage.as_path(tmp_path if request.param == "here" else "ram://storage/folder")
    path.mkdir(parents=True, exist_ok=True)
    yield path
    storage.remove_folder(path)
    assert not path.exists()


def test_text_and_json(folder):
    path = folder / "file.json"
    assert storage.read_json(path) is None
    for value in ({"a": [1, None]}, {"b": 2.5}):
        write_text(path, json.dumps(value))
        assert storage.read_json(path) == value
        storage.flush_to_disk(path)
    write_text(path, '{"half')
    assert storage.read_json(path) is None
    assert [entry.name for entry in folder.iterdir()] == ["file.json"]


def test_a_block_that_fails_leaves_what_was_there(folder):
    path = folder / "file.txt"
    write_text(path, "before")

    def fail():
        with storage.replacing(path) as temporary:
            assert temporary.suffix == ".txt"  # by which writers choose a format
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_text() == "before"
    assert [entry.name for entry in folder.iterdir()] == ["file.txt"]


def test_a_local_copy(folder):
    path = folder / "model.keras"
    path.write_bytes(b"123")
    with storage.local_copy(path) as file:
        assert not storage.in_bucket(file)
        assert (file.name, file.read_bytes()) == ("model.keras", b"123")
    assert file.exists() != storage.in_bucket(path)


def test_a_failing_write_is_one_line_and_keeps_what_was_there(monkeypatch):
    path = storage.as_path("ram://bucket/file.txt")
    write_text(path, "before")

    def refuse(*_):
        raise tf.errors.PermissionDeniedError(None, None, "HTTP 403")

    def half(self, *_, **__):
        self.write_bytes(b"half")
        raise ZeroDivisionError

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(ZeroDivisionError):
        write_text(path, "after")
    monkeypatch.undo()
    monkeypatch.setattr(gpath.PosixGPath, "write_bytes", refuse)
    with pytest.raises(UserError, match=r"ram://bucket/file.txt: HTTP 403"):
        write_text(path, "after")
    assert path.read_text() == "before"


def test_an_unknown_scheme_is_refused():
    with pytest.raises(UserError, match=r"gcs://bucket: an address in a bucket starts with gs://"):
        WorkDir("gcs://bucket")
