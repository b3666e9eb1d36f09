"""Exports to a bucket, on TensorFlow's file system in memory; the real one never ran."""

import shutil
import threading

import pytest
import tensorflow as tf
from bucket_helpers import buckets_in_memory
from export_helpers import tiny_classifier

from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.export import bucket_versions
from keras_resnet.export.bucket_versions import new_version_in_bucket
from keras_resnet.export.versions import list_versions
from keras_resnet.storage import as_path


@pytest.fixture(autouse=True)
def buckets(monkeypatch):
    monkeypatch.setattr(bucket_versions.time, "sleep", lambda _: None)
    with buckets_in_memory():
        yield


def _publish(folder, text):
    with new_version_in_bucket(folder) as (made, published):
        (made / "assets").mkdir()
        for name in ("saved_model.pb", "assets/labels.txt", "a.txt"):
            (made / name).write_text(text)
    return published[0]


def test_a_version_is_uploaded_whole_its_graph_first(monkeypatch):
    folder, written = as_path("ram://versions/net"), []
    write = type(folder).write_bytes
    monkeypatch.setattr(
        type(folder),
        "write_bytes",
        lambda path, content: (written.append(path.name), write(path, content)),
    )
    assert str(_publish(folder, "one")) == "ram://versions/net/1"
    assert written == ["saved_model.pb", "a.txt", "labels.txt"]
    assert str(_publish(folder, "two")).endswith("/2")
    assert list_versions(folder) == [1, 2]
    assert (folder / "1" / "assets" / "labels.txt").read_text() == "one"
    assert (folder / "2" / "saved_model.pb").read_text() == "two"
    assert list((folder / ".export-claims").iterdir()) == []


def test_a_failed_export_uploads_nothing():
    folder = as_path("ram://versions/failed")

    def fail():
        with new_version_in_bucket(folder) as (made, _):
            (made / "saved_model.pb").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list_versions(folder) == []


def test_a_claim_that_a_killed_export_left_is_passed_over():
    folder = as_path("ram://versions/killed")
    (folder / ".export-claims").mkdir(parents=True)
    (folder / ".export-claims" / "1-0123").write_text("is being uploaded")
    assert _publish(folder, "next").name == "2"


def test_exports_at_once_get_numbers_of_their_own():
    folder, errors = as_path("ram://versions/many"), []
    folder.mkdir(parents=True)

    def export(text):
        try:
            for number in range(5):
                _publish(folder, f"{text} {number}")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=export, args=(text,)) for text in ("red", "green", "blue")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    versions = list_versions(folder)
    assert len(versions) == 15
    found = set()
    for version in versions:
        parts = ("saved_model.pb", "assets/labels.txt", "a.txt")
        (text,) = {(folder / str(version) / part).read_text() for part in parts}
        found.add(text)
    assert found == {f"{text} {number}" for text in ("red", "green", "blue") for number in range(5)}


def test_a_bucket_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    tiny_classifier().save(tmp_path / "m.keras")

    def refuse(*_, **__):
        raise tf.errors.PermissionDeniedError(None, None, "HTTP 403: no access")

    monkeypatch.setattr(tf.io.gfile, "makedirs", refuse)
    for output in ("ram://mine/net", "ram://mine/net/m.onnx"):
        arguments = [f"--model={tmp_path / 'm.keras'}", f"--output={output}"]
        kind = ["--format=onnx"] if output.endswith(".onnx") else []
        assert main(["export", *arguments, *kind]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "HTTP 403: no access. The bucket must exist" in line
    with pytest.raises(UserError, match="stands for a pattern"):
        _publish(as_path("ram://mine/a[1]"), "x")


@pytest.mark.ci
def test_the_command_exports_to_a_bucket(tmp_path, capsys, monkeypatch):
    copy, upload = tmp_path / "copy", bucket_versions._upload

    def upload_and_copy(source, target):
        shutil.copytree(source, copy)
        upload(source, target)

    monkeypatch.setattr(bucket_versions, "_upload", upload_and_copy)
    tiny_classifier().save(tmp_path / "m.keras")
    model = f"--model={tmp_path / 'm.keras'}"
    assert main(["export", model, "--output=ram://b/served/net"]) == 0
    printed = capsys.readouterr().out
    assert "ram://b/served/net/1: features" in printed
    assert "Next: gcloud storage cp --recursive ram://b/served/net/serving_config . on" in printed
    bucket = as_path("ram://b/served/net")
    config = bucket / "serving_config"
    assert 'base_path: "ram://b/served/net"' in (config / "models.config").read_text()
    script = (config / "docker.sh").read_text()
    assert "GOOGLE_APPLICATION_CREDENTIALS=/key.json" in script
    assert "/models/net:ro" not in script
    files = [file for file in copy.rglob("*") if file.is_file()]
    assert {"saved_model.pb", "labels.txt", "keras_resnet.json"} <= {file.name for file in files}
    for file in files:
        assert (bucket / "1" / str(file.relative_to(copy))).read_bytes() == file.read_bytes()
    assert main(["export", model, "--format=keras", "--output=ram://b/m.keras"]) == 0
    printed = capsys.readouterr().out
    size = as_path("ram://b/m.keras").stat().length
    assert f"ram://b/m.keras: float32, {size:,} bytes" in printed
