"""Runs that are killed or asked to stop end in the very bits of one that was left alone."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from run_helpers import (
    ROOT,
    TINY,
    final_weights,
    kill_at_random_moments,
    start,
    tiny_config,
    wait_for,
)

from keras_resnet.errors import Interrupted, UserError
from keras_resnet.training import run
from keras_resnet.training.interruption import SIGNALS, Interruption, exit_code
from keras_resnet.training.workdir import WorkDir

# Ends the process as SIGKILL would at the moment in question, once.
DIES = """
import os, signal
def die_at(module, name, call):
    original, calls = getattr(module, name), []
    def wrapped(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    setattr(module, name, wrapped)
"""
# os.replace: config.json, dataset.json, then each checkpoint.
MOMENTS = {
    "before the second checkpoint is in its place": 'die_at(os, "replace", 4)',
    "while the second checkpoint is flushed": 'die_at(os, "fsync", 3)',
}
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The final weights and the metrics of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    output, _ = start(folder).communicate()
    assert "Done" in output, output
    return final_weights(folder), _figures(folder)


def _figures(folder):
    rows = WorkDir(folder).read_metrics()
    return [(row["step"], row["loss"], row["top1"]) for row in rows if row["kind"] == "eval"]


def _finish(folder):
    process = start(folder)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("moment", [pytest.param(name, marks=slow) for name in MOMENTS])
def test_killed_while_a_checkpoint_is_written(moment, uninterrupted, tmp_path):
    process = start(tmp_path, prelude=DIES + MOMENTS[moment])
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    steps = sorted(path.name for path in (tmp_path / "checkpoints").glob("ckpt-*"))
    assert steps == ["ckpt-22.safetensors"]
    assert "resuming   at step 22" in _finish(tmp_path)
    assert (final_weights(tmp_path), _figures(tmp_path)) == uninterrupted
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.ci
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=slow)])
def test_a_signal_saves_at_the_next_step_and_a_kill_loses_nothing(number, uninterrupted, tmp_path):
    """Asked to stop, resumed, killed while a checkpoint is flushed, resumed: the same bits."""
    process = start(tmp_path)
    metrics, folder = WorkDir(tmp_path).metrics, tmp_path / "checkpoints"
    assert wait_for(metrics.exists, process)  # the first step is done
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == 128 + number, output
    assert "the same command resumes" in output
    assert list(folder.glob("ckpt-*.safetensors"))
    assert not (tmp_path / "result.json").exists()
    # File and folder of the first checkpoint, then the file of the second.
    process = start(tmp_path, prelude=DIES + 'die_at(os, "fsync", 3)')
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output
    _finish(tmp_path)
    assert not list(folder.glob(".*"))
    assert (final_weights(tmp_path), _figures(tmp_path)) == uninterrupted


def test_a_second_sigint_leaves_at_once():
    """The main thread sleeps inside one call, as in a step that takes long."""
    program = (
        "from keras_resnet.training.interruption import Interruption\n"
        "import ctypes, time\n"
        "with Interruption() as asked:\n"
        "    print('ready', flush=True)\n"
        "    while not asked(): time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    ctypes.CDLL(None).sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert "leaving at once" in process.stderr.read()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143)])
def test_a_signal_asks_and_one_ctrl_c_after_it_still_saves(number, code, capfd):
    with Interruption() as asked:
        signal.raise_signal(number)
        while not asked():
            pass
        signal.raise_signal(signal.SIGINT)
        while "Ctrl-C again" not in (said := capfd.readouterr().err):
            time.sleep(0.01)
    assert asked.signal == number
    assert exit_code(number) == code
    assert "saving at the next step" in said


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as asked:
            signal.raise_signal(signal.SIGHUP)
            time.sleep(0.1)
            assert not asked()
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.ci
def test_a_closed_terminal_saves(tmp_path):
    """The terminal goes away: SIGHUP comes, and every write to it fails with EIO."""
    master, slave = pty.openpty()
    program = (
        "import fcntl, os, signal, sys, termios\n"
        "os.setsid(); fcntl.ioctl(1, termios.TIOCSCTTY, 0)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # which the tests may be told to ignore
        "from keras_resnet.commands import main\nsys.exit(main())"
    )
    delta = {**TINY, "epochs": 4000, "evaluate_every_epochs": 4000}
    arguments = ["train", "--config=smoke", f"--workdir={tmp_path}"]
    arguments += [f"--config.{key}={value}" for key, value in delta.items()]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(slave)
    try:
        assert wait_for(WorkDir(tmp_path).metrics.exists, process)
        os.close(master)
        assert process.wait(timeout=60) == 129
    finally:
        process.kill()  # else it trains on where this fails
    assert list((tmp_path / "checkpoints").glob("ckpt-*.safetensors"))
    assert "training   digits train" in (tmp_path / "train.log").read_text()


def test_signals_are_as_before_afterwards():
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption() as asked:
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        while not asked():
            pass
    assert asked.signal == signal.SIGTERM
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.slow
def test_an_interrupted_evaluation_is_made_up_for(tmp_path, monkeypatch):
    """A signal that comes during evaluation does not wait for its end."""
    config = tiny_config(epochs=1, deterministic=False)
    evaluate_source = run.evaluate_source

    def interrupted(engine, source, steps_per_call, should_stop=lambda: False):
        signal.raise_signal(signal.SIGTERM)
        while not should_stop():
            pass
        return evaluate_source(engine, source, steps_per_call, should_stop)

    monkeypatch.setattr(run, "evaluate_source", interrupted)
    with pytest.raises(Interrupted) as caught:
        run.train(config, tmp_path)
    assert caught.value.code == 143
    assert [row["kind"] for row in WorkDir(tmp_path).read_metrics()].count("eval") == 0
    monkeypatch.undo()
    result = run.train(config, tmp_path)
    assert result["examples"] == 360
    assert [row["kind"] for row in WorkDir(tmp_path).read_metrics()].count("eval") == 1


def test_two_runs_cannot_share_a_folder(tmp_path):
    config = tiny_config(epochs=1, deterministic=False)
    workdir = WorkDir(tmp_path)
    workdir.claim(config)
    with workdir.locked(), pytest.raises(UserError, match="another process is training here"):
        run.train(config, tmp_path)


@pytest.mark.slow
def test_ten_kills_at_random_moments(uninterrupted, tmp_path):
    """SIGKILL anywhere from the start of TensorFlow to the last file; then to the end."""
    kill_at_random_moments(tmp_path, longest=8.0)
    _finish(tmp_path)
    assert (final_weights(tmp_path), _figures(tmp_path)) == uninterrupted
