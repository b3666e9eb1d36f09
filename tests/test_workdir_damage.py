"""Damaged files in a work directory: repaired from what is whole, or one line; nothing whole lost.

A table of files, kinds of damage and commands. The default run takes the cases that need no
training or one of a kind; with `-m ci` all of them.
"""

import itertools
import shutil

import numpy as np
import pytest
from PIL import Image
from run_helpers import final_weights, tiny_config

from keras_resnet.commands import main
from keras_resnet.training import run
from keras_resnet.training.workdir import WorkDir

# Whole runs, most of them: `.ci/run` runs them, the README's command has its ten minutes.
pytestmark = pytest.mark.ci

STEP = 44
FILES = (
    "config.json",
    "dataset.json",
    "metrics.jsonl",
    f"checkpoints/ckpt-{STEP}.safetensors",
    "model.keras",
    "result.json",
    "curves.png",
    "train.log",
    ".lock",
)
CONTENTS = {
    "empty": b"",
    "null": b"null",
    "a number": b"5",
    "a list": b"[]",
    "an object": b"{}",
    "binary": bytes(range(256)),
    "deep": b"[" * 100_000,
}
KINDS = (*CONTENTS, "truncated", "flipped", "missing", "a folder")
COMMANDS = ("train", "evaluate", "predict", "export")

# What ends in one line: of these files a command needs what is nowhere else. Everything else is
# repaired or done without.
REFUSED = {
    **dict.fromkeys(itertools.product(["config.json"], ["train", "evaluate", "export"]), KINDS),
    ("dataset.json", "evaluate"): KINDS,
}


def _damage(path, kind):
    content = path.read_bytes()
    if kind in CONTENTS:
        path.write_bytes(CONTENTS[kind])
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped" and content:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :])
    elif kind != "flipped":
        path.unlink()
        if kind == "a folder":
            path.mkdir()
            (path / "mine").write_text("mine")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two epochs, an image, and the weights that it ended with."""
    folder = tmp_path_factory.mktemp("finished")
    run.train(tiny_config(epochs=2), folder / "run")
    Image.fromarray(np.zeros((8, 8, 3), "uint8")).save(folder / "image.png")
    return folder, final_weights(folder / "run")


def _arguments(command, workdir, folder, output):
    return [
        command,
        f"--workdir={workdir}",
        *{
            "train": [],
            "evaluate": [],
            "predict": [str(folder / "image.png")],
            "export": ["--format=keras", "--nofold", "--limit=8", f"--output={output}"],
        }[command],
    ]


def _contents(workdir):
    return {
        str(path.relative_to(workdir)): path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file()
    }


def _is_quick(file, kind, command):
    """Cases that are answered at once, and one that trains for each file."""
    if kind in REFUSED.get((file, command), ()) or (command == "train" and kind == "a folder"):
        return True
    return (file, kind, command) in {
        ("metrics.jsonl", "missing", "train"),
        ("model.keras", "truncated", "train"),
        ("model.keras", "truncated", "predict"),
        ("result.json", "an object", "train"),
        (f"checkpoints/ckpt-{STEP}.safetensors", "flipped", "evaluate"),
    }


def _is_in_ci(place, case):
    """One command for each file and kind, all in turn; all of them take twenty minutes."""
    return _is_quick(*case) or COMMANDS[place % len(COMMANDS)] == case[-1]


CASES = [
    pytest.param(
        *pair, command,
        marks=() if _is_in_ci(place, (*pair, command)) else pytest.mark.slow,
        id=" ".join((*pair, command)),
    )
    for place, pair in enumerate(itertools.product(FILES, KINDS))
    for command in COMMANDS
]  # fmt: skip


@pytest.mark.parametrize(("file", "kind", "command"), CASES)
def test_damage_is_repaired_or_one_line(file, kind, command, finished, tmp_path, capsys):
    folder, weights = finished
    workdir = tmp_path / "run"
    shutil.copytree(folder / "run", workdir)
    if file == ".lock" and not (workdir / file).exists():
        (workdir / file).touch()
    _damage(workdir / file, kind)
    before = _contents(workdir)
    capsys.readouterr()
    code = main(_arguments(command, workdir, folder, tmp_path / "out.keras"))  # no exception
    error = capsys.readouterr().err
    refused = kind in REFUSED.get((file, command), ()) or (
        # A folder may be the user's own: it is not replaced.
        kind == "a folder" and command == "train"
    )
    if file == "config.json" and kind == "flipped":  # it may hit a value that can be used
        refused = code != 0
    assert (code in (1, 2)) if refused else code == 0, error
    if refused:
        (line,) = [line for line in error.splitlines() if line.startswith("keras-resnet ")]
        assert file.rpartition("/")[2].partition(".")[0] in line or "--config is missing" in line
    after = _contents(workdir)
    if command != "train" or refused:
        lost = {name for name in before if after.get(name) != before[name]}
        assert lost <= {".lock"} - {file}
        return
    # It ends in the very weights of the run that nobody damaged, with all files whole.
    assert final_weights(workdir) == weights
    assert WorkDir(workdir).read_result()["step"] == STEP
    assert f"ckpt-{STEP}.safetensors" in {path.name for path in (workdir / "checkpoints").iterdir()}
    if file != "metrics.jsonl":
        rows = [row for row in WorkDir(workdir).read_metrics() if row["kind"] == "eval"]
        assert [row["step"] for row in rows] == [22, STEP]


@pytest.mark.parametrize("line", [b"null", b"5", b"\xff\x00", b'{"kind": "tr', b"[]", b"9" * 5000])
def test_one_bad_line_costs_only_itself(line, finished, tmp_path):
    workdir = WorkDir(tmp_path)
    rows = WorkDir(finished[0] / "run").read_metrics()
    lines = (finished[0] / "run" / "metrics.jsonl").read_bytes().splitlines()
    workdir.metrics.write_bytes(b"\n".join([*lines[:2], line, *lines[2:]]) + b"\n")
    assert workdir.rewind_metrics(STEP) == rows
    assert workdir.metrics.read_bytes().splitlines() == lines


def test_what_killed_processes_left_goes_and_what_is_the_users_stays(finished, tmp_path):
    workdir = WorkDir(tmp_path)
    for name in (".model.4711.keras", ".model.0a1b2c3d.keras", ".result.99.json"):
        (tmp_path / name).touch()
    for name in (".4711", ".model.mine.keras", "model.4711.keras", ".notes.12.txt"):
        (tmp_path / name).touch()
    workdir.remove_leftovers()
    assert {path.name for path in tmp_path.iterdir()} == {
        ".4711",
        ".model.mine.keras",
        "model.4711.keras",
        ".notes.12.txt",
    }
