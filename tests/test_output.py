"""Output that cannot be written: a run goes on, keeps its log, and does not end with success."""

import errno
import io
import logging
import os
import re
import subprocess
import sys
import threading

import pytest
from input_helpers import encode, smooth_image
from run_helpers import ROOT, TINY, tiny_config

from keras_resnet.training import run
from keras_resnet.training.say import OutputLost, Say
from keras_resnet.training.workdir import WorkDir

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}


class Failing(io.StringIO):
    """Standard output whose every flush fails, as that of a buffered file does."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def flush(self):
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EIO, 1), (errno.ENOSPC, 1), (errno.EPIPE, 141)]
)
def test_a_line_is_in_the_log_and_the_end_reports_the_failure(number, code, tmp_path, monkeypatch):
    say, log = Say(), tmp_path / "train.log"
    say("before there is a log")
    monkeypatch.setattr(sys, "stdout", Failing(number))
    say.keep_log(log)
    say("ü \udcff")
    lines = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    assert lines == ["before there is a log", "ü \\xff"]
    with pytest.raises(OutputLost, match=os.strerror(number)) as caught:
        say.check_output()
    assert caught.value.code == code
    assert str(log) in str(caught.value)


def test_what_the_pipeline_logs_is_said_by_the_one_voice(tmp_path, capsys, caplog):
    """From threads of its own, and as a plain line, whatever others do to Python's logging."""
    say, logger = Say(), logging.getLogger("input_pipeline")
    say.keep_log(tmp_path / "train.log")
    with say.speaks_for("input_pipeline"):
        threads = [threading.Thread(target=logger.warning, args=("line %d", i)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        logger.info("nothing to be told")
    wanted = sorted(f"line {number}" for number in range(20))
    assert sorted(capsys.readouterr().out.splitlines()) == wanted
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert sorted(line.split(" ", 2)[2] for line in lines) == wanted
    assert not caplog.text
    logger.warning("after the run")
    with Say(enabled=False).speaks_for("input_pipeline"):
        logger.warning("of another host")
    assert "after the run" in caplog.text
    assert "of another host" in caplog.text


def test_a_log_that_cannot_be_written_is_made_up_for(tmp_path, capsys):
    say = Say()
    say.keep_log(tmp_path / "later" / "train.log")
    say("one")
    (tmp_path / "later").mkdir()
    say("two")
    lines = (tmp_path / "later" / "train.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["one", "two"]
    assert capsys.readouterr().out == "one\ntwo\n"
    say.check_output()


@pytest.mark.parametrize("stream", [None, "ascii", "closed"])
def test_streams_that_take_nothing_or_little(stream, monkeypatch):
    raw = io.BytesIO()
    file = None if stream is None else io.TextIOWrapper(raw, encoding="ascii")
    if stream == "closed":
        file.close()
    monkeypatch.setattr(sys, "stdout", file)
    say = Say()
    say("naïve")
    assert (say.failure is not None) == (stream == "closed")
    if stream == "ascii":
        assert raw.getvalue() == b"na\\xefve\n"


def _command(*arguments):
    return [sys.executable, "-m", "keras_resnet_cli", *arguments]


def test_commands_whose_output_fails_do_not_end_with_success():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            _command("--version"), stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("keras-resnet: ")
    assert "No space left on device" in line
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        _command("config"), stdout=writer, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_closed_streams_are_no_descriptors_for_files(tmp_path):
    """`keras-resnet … >&- 2>&-`: the next file must not become standard output."""
    program = (
        "import os, sys, keras_resnet_cli\n"
        "keras_resnet_cli.defer_loading()\n"
        "from keras_resnet.commands.standard_streams import open_missing\n"
        "for number in (0, 1, 2): os.close(number)\n"
        "open_missing()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "os.write(1, b'printed by a library')\n"
        "sys.exit(file.fileno())"
    )
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT)
    assert done.returncode >= 3
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.ci
def test_a_run_goes_on_without_its_output(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    say = Say()
    result = run.train(tiny_config(epochs=1, deterministic=False), tmp_path, say)
    assert result["step"] == 22
    assert isinstance(say.failure, OSError)
    assert "Done: top1" in WorkDir(tmp_path).log.read_text()


@pytest.mark.ci
@pytest.mark.parametrize(("kind", "code"), [("pipe", 141), ("full", 1), ("closed", 0)])
def test_the_train_command_ends_all_its_epochs(kind, code, tmp_path):
    """`train | head -7`, `train > full-disk`, `train >&-`."""
    arguments = [f"--config.{key}={value}" for key, value in {**TINY, "epochs": 2}.items()]
    command = _command("train", "--config=smoke", f"--workdir={tmp_path}", *arguments)
    redirected = {"pipe": "| head -3", "full": "> /dev/full", "closed": ">&- 2>&-"}[kind]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirected}; exit ${{PIPESTATUS[0]}}', "bash", *command],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.returncode == code, done.stderr
    assert WorkDir(tmp_path).read_result()["step"] == 44
    assert "Done: top1" in WorkDir(tmp_path).log.read_text()
    if kind == "full":
        assert "No space left on device). Training went on to its end" in done.stderr


@pytest.mark.ci
def test_a_run_on_a_cpu_prints_no_errors_of_tensorflow(tmp_path):
    """Photos whose batches are cut into uneven chunks and resized, trained and evaluated."""
    for split in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            for index in range(20):
                path = tmp_path / "photos" / split / name / f"{index}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode(smooth_image(150, 120, 100 * number + index), "JPEG"))
    options = {
        "data.source": "image_folder",
        "data.path": tmp_path / "photos",
        "data.image_size": 96,
        "data.augment.random_resized_crop": True,
        "data.augment.crop_padding": 0,
        "batch_size": 16,
        "model.name": "ResNet18",
        "model.depths": "1,1,1,1",
        "model.widths": "8,8,16,16",
        "epochs": 2,
    }
    command = [sys.executable, "-m", "keras_resnet_cli", "train", "--config=smoke"]
    flags = [f"--config.{key}={value}" for key, value in options.items()]
    environment = {key: value for key, value in ENVIRONMENT.items() if "MIN_LOG" not in key}
    process = subprocess.run(
        [*command, f"--workdir={tmp_path / 'run'}", *flags],
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert process.returncode == 0, process.stderr
    assert not [line for line in process.stderr.splitlines() if re.match(r"[EW]\d{4} ", line)]
