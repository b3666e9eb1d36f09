"""Version folders: numbers, atomicity, what is left after failures."""

import os

import pytest

from keras_resnet.errors import UserError
from keras_resnet.export.versions import list_versions, new_version, newest_version


def _publish(folder, text="x"):
    with new_version(folder) as (temporary, published):
        (temporary / "saved_model.pb").write_text(text)
    return published[0]


def test_numbers_rise_and_other_names_do_not_count(tmp_path):
    folder = tmp_path / "a" / "model"
    assert _publish(folder).name == "1"
    (folder / "serving_config").mkdir()
    (folder / "7").mkdir()
    assert _publish(folder).name == "8"
    assert list_versions(folder) == [1, 7, 8]
    assert newest_version(folder) == folder / "8"
    assert newest_version(folder / "1") == folder / "1"


def test_a_version_is_invisible_until_it_is_whole(tmp_path):
    with new_version(tmp_path) as (temporary, published):
        (temporary / "saved_model.pb").write_text("half")
        assert list_versions(tmp_path) == []
        assert temporary.parent == tmp_path  # renaming works on one file system only
        assert published == []
    assert [item.name for item in tmp_path.iterdir()] == ["1"]


def test_a_failed_export_leaves_nothing(tmp_path):
    _publish(tmp_path, "first")

    def fail():
        with new_version(tmp_path) as (temporary, _):
            (temporary / "saved_model.pb").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [item.name for item in tmp_path.iterdir()] == ["1"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "first"


def test_two_exports_at_once_get_two_numbers(tmp_path, monkeypatch):
    with new_version(tmp_path) as (temporary, published):
        (temporary / "saved_model.pb").write_text("slow")
        # Another process publishes after this one has looked which number is free.
        rename = os.rename

        def late(source, target):
            monkeypatch.setattr(os, "rename", rename)
            (tmp_path / "1").mkdir()
            (tmp_path / "1" / "saved_model.pb").write_text("fast")
            rename(source, target)

        monkeypatch.setattr(os, "rename", late)
    assert published == [tmp_path / "2"]
    assert (tmp_path / "1" / "saved_model.pb").read_text() == "fast"


def test_what_killed_exports_left_is_removed(tmp_path):
    dead = tmp_path / ".export-999999999"
    dead.mkdir()
    alive = tmp_path / f".export-{os.getppid()}"
    alive.mkdir()
    _publish(tmp_path)
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize("what", ["missing", "empty", "file"])
def test_folders_without_versions_are_named(tmp_path, what):
    path = tmp_path / "model"
    if what == "empty":
        path.mkdir()
    if what == "file":
        path.write_text("")
    with pytest.raises(UserError, match="model"):
        newest_version(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), new_version(tmp_path / "file"):
        pass
