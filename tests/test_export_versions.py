"""Version folders: numbers, atomicity, what is left after failures."""

import errno
import multiprocessing
import os
import time

import pytest

from keras_resnet import staging
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


def _export(folder, count, text, barrier):
    """In a process of its own, which believes that its number is 7, as in another container."""
    os.getpid = lambda: 7
    barrier.wait()
    for number in range(count):
        with new_version(folder) as (temporary, _):
            for part in ("saved_model.pb", "assets", "warmup"):
                (temporary / part).write_text(f"{text} {number}")
                time.sleep(0.001)


def test_processes_with_equal_numbers_neither_mix_nor_delete_versions(tmp_path):
    context = multiprocessing.get_context("fork")
    count, texts = 40, ("red", "green", "blue")
    barrier = context.Barrier(len(texts))
    processes = [
        context.Process(target=_export, args=(tmp_path, count, text, barrier)) for text in texts
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert list_versions(tmp_path) == list(range(1, len(texts) * count + 1))
    found = []
    for version in tmp_path.iterdir():
        (content,) = {
            (version / part).read_text() for part in ("saved_model.pb", "assets", "warmup")
        }
        found.append(content)
    assert sorted(found) == sorted(f"{text} {n}" for text in texts for n in range(count))


def _begin_and_wait(folder, begun):
    with new_version(folder) as (temporary, _):
        (temporary / "saved_model.pb").write_text("half")
        begun.set()
        time.sleep(60)


def test_what_a_killed_export_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    context = multiprocessing.get_context("fork")
    begun = [context.Event(), context.Event()]
    killed, live = (
        context.Process(target=_begin_and_wait, args=(tmp_path, event)) for event in begun
    )
    killed.start()
    assert begun[0].wait(20)
    (left,) = [item for item in tmp_path.iterdir() if not item.name.endswith(".lock")]
    killed.kill()
    killed.join()
    live.start()
    try:
        assert begun[1].wait(20)
        assert not left.exists()  # the live one has found it
        (working,) = [item for item in tmp_path.iterdir() if not item.name.endswith(".lock")]
        _publish(tmp_path)
        assert (working / "saved_model.pb").read_text() == "half"
    finally:
        live.kill()
        live.join()
    _publish(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["1", "2"]


def test_folders_of_older_versions_are_left_alone_for_a_day(tmp_path):
    for name, age in ((".export-7", 60), (".export-8", 25 * 3600)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "saved_model.pb").write_text("half")
        for path in (folder / "saved_model.pb", folder):
            os.utime(path, (time.time() - age,) * 2)
    _publish(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == [".export-7", "1"]


def test_planted_links_are_not_followed(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine").write_text("kept")
    folder = tmp_path / "versions"
    folder.mkdir()
    names = iter(["a" * 16, "b" * 16, "c" * 16])
    monkeypatch.setattr(staging.secrets, "token_hex", lambda _: next(names))
    (folder / f".export-{'a' * 16}").symlink_to(other)  # taken: another name is tried
    (folder / f".export-{'d' * 16}").symlink_to(other)
    (folder / f".export-{'d' * 16}.lock").touch()  # as if left by a killed export
    _publish(folder)
    assert [item.name for item in other.iterdir()] == ["mine"]
    assert (folder / "1" / "saved_model.pb").read_text() == "x"
    (folder / "2").symlink_to(tmp_path / "nowhere")
    names = iter(["e" * 16])
    assert _publish(folder).name == "3"
    assert not (tmp_path / "nowhere").exists()


def test_a_file_system_without_locks_keeps_what_is_young(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(staging.fcntl, "flock", refuse)
    for name, age in (("a" * 16, 60), ("b" * 16, 25 * 3600)):
        folder = tmp_path / f".export-{name}"
        folder.mkdir()
        (tmp_path / f".export-{name}.lock").touch()
        os.utime(folder, (time.time() - age,) * 2)
    _publish(tmp_path)
    names = {item.name for item in tmp_path.iterdir()}
    assert names == {f".export-{'a' * 16}", f".export-{'a' * 16}.lock", "1"}


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
