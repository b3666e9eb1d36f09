"""What lies in a folder that others can write: links that wait, files of like names, leftovers."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from input_helpers import write_images

from keras_resnet import input_pipeline
from keras_resnet.config import load_config
from keras_resnet.input_pipeline.sources import record_index
from keras_resnet.input_pipeline.sources.caching import prepare_file
from keras_resnet.staging import staging_folder
from keras_resnet.storage import write_text
from keras_resnet.training.workdir import WorkDir

ROOT = Path(__file__).parent.parent


@pytest.fixture
def mine(tmp_path):
    """A file elsewhere, which must stay as it is."""
    file = tmp_path / "elsewhere" / "mine"
    file.parent.mkdir()
    file.write_text("kept")
    yield file
    assert file.read_text() == "kept"
    assert [item.name for item in file.parent.iterdir()] == ["mine"]


def test_a_work_directory_leaves_a_file_of_the_process_number_alone(tmp_path, mine):
    folder = tmp_path / "run"
    folder.mkdir()
    own = folder / f".{os.getpid()}"
    own.write_text("of the user")
    (folder / f".config.{os.getpid()}.json").symlink_to(mine)
    run = WorkDir(folder)
    run.check(load_config("smoke"))
    run.claim(load_config("smoke"))
    assert own.read_text() == "of the user"


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path, mine):
    run = WorkDir(tmp_path / "run")
    run.path.mkdir()
    run.lock.symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"), run.locked():
        pass


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path, mine):
    (tmp_path / "x.json").symlink_to(mine)
    write_text(tmp_path / "x.json", "new")
    assert not (tmp_path / "x.json").is_symlink()
    assert (tmp_path / "x.json").read_text() == "new"


def test_the_index_of_records_follows_no_link(tmp_path, mine):
    place = tmp_path / "train.index.json"
    for planted in (place, Path(f"{place}.{os.getpid()}")):
        planted.symlink_to(mine)
    record_index._remember(str(place), [])
    assert not place.is_symlink()
    assert json.loads(place.read_text())["files"] == []
    left = {item.name for item in tmp_path.iterdir()}
    assert left == {"elsewhere", place.name, f"{place.name}.{os.getpid()}"}


def test_a_folder_that_cannot_be_written_only_forgets_the_index(tmp_path, caplog):
    record_index._remember(str(tmp_path / "gone" / "train.index.json"), [])
    assert "counted again next time" in caplog.text


@pytest.mark.ci
def test_what_a_killed_run_packed_is_removed_by_the_next(tmp_path):
    write_images(tmp_path / "photos", {"cat": 2, "dog": 2})
    source = input_pipeline.open_source(
        source="image_folder", path=str(tmp_path / "photos"), split="train"
    )
    cache = tmp_path / "cache"
    cache.mkdir()
    prefix = f".{re.sub('[^0-9A-Za-z_]+', '-', source.title).strip('-')}-"
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from keras_resnet.staging import staging_folder\n"
        "with staging_folder(Path(sys.argv[1]), sys.argv[2]) as folder:\n"
        "    (folder / 'images').write_bytes(bytes(1000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(cache), prefix],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == -9
    assert len(list(cache.iterdir())) == 2  # the folder and its lock
    folder = prepare_file(source, str(cache))
    assert list(cache.iterdir()) == [folder]


def test_a_folder_goes_at_the_end_unless_it_was_renamed(tmp_path):
    with staging_folder(tmp_path, ".x-") as folder:
        (folder / "file").touch()
        assert (tmp_path / f"{folder.name}.lock").exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), staging_folder(tmp_path, ".x-") as folder:
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with staging_folder(tmp_path, ".x-") as folder:
        folder.rename(tmp_path / "1")
    assert [item.name for item in tmp_path.iterdir()] == ["1"]


def test_folders_of_other_prefixes_are_nobodys_business(tmp_path):
    other = tmp_path / ".y-0123456789abcdef"
    other.mkdir()
    os.utime(other, (time.time() - 10**7,) * 2)
    (tmp_path / ".x-notes").mkdir()
    with staging_folder(tmp_path, ".x-"):
        pass
    assert {item.name for item in tmp_path.iterdir()} == {other.name, ".x-notes"}


def test_the_package_makes_no_file_with_a_foreseeable_name():
    """`os.getpid` names nothing: it only says who holds a lock."""
    found = [
        str(path.relative_to(ROOT))
        for folder in ("keras_resnet", "input_pipeline")
        for path in (ROOT / folder).rglob("*.py")
        if "getpid" in path.read_text()
    ]
    assert found == ["keras_resnet/training/lock.py"]
