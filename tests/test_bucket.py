"""Work directories in a bucket, on TensorFlow's file system in memory; the real one never ran."""

import json
import signal
import subprocess
import sys
import time

import keras
import pytest
import tensorflow as tf
from bucket_helpers import buckets_in_memory
from run_helpers import final_weights, tiny_config

from keras_resnet.commands import main
from keras_resnet.errors import Interrupted, UserError
from keras_resnet.training import run
from keras_resnet.training.finetuning import read_pretrained
from keras_resnet.training.lock import Lease
from keras_resnet.training.reporting import Reporter
from keras_resnet.training.workdir import WorkDir

BUCKET = "ram://bucket/runs/digits"


@pytest.fixture(scope="module", autouse=True)
def buckets():
    with buckets_in_memory():
        yield


@pytest.mark.ci
def test_a_run_in_a_bucket_is_the_run_in_a_folder(tmp_path, capsys):
    """One test, as a shared fixture would be made once for each process of the suite."""
    config = tiny_config(epochs=2, checkpoint__keep=1, report=True)
    local, bucket = WorkDir(tmp_path / "local"), WorkDir(BUCKET)
    run.train(config, local.path)
    with pytest.MonkeyPatch.context() as patch:
        _signal_after_the_first_call(patch)
        with pytest.raises(Interrupted):
            run.train(config, BUCKET)
    assert (bucket.checkpoints / "ckpt-1.safetensors").exists()
    assert not bucket.result.exists()
    run.train(config, BUCKET)
    # Interrupted and resumed, it ends in the same bits.
    assert final_weights(bucket.path) == final_weights(local.path)
    assert _losses(bucket) == _losses(local)
    _check_files(local, bucket)
    capsys.readouterr()
    _check_evaluate(bucket, capsys)
    _check_export(local, tmp_path / "model.keras")
    for name in ("", "/model.keras"):
        _check_weights_to_start_from(local, name)
    with pytest.raises(UserError, match=rf"{BUCKET} belongs to a run with another config: .*seed"):
        run.train(tiny_config(epochs=2, checkpoint__keep=1, seed=7, report=True), BUCKET)


def _signal_after_the_first_call(patch):
    trained = Reporter.trained

    def signalled(self, *arguments, **options):
        trained(self, *arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.2)  # a thread takes note of it

    patch.setattr(Reporter, "trained", signalled)


def _losses(workdir):
    rows = workdir.read_metrics()
    return [(row["step"], row["loss"], row["top1"]) for row in rows if row["kind"] == "eval"]


def _check_files(local, bucket):
    assert _names(bucket.path) == _names(local.path)
    # keep=1: the newest, and the best if that is another one.
    assert _names(bucket.checkpoints) == _names(local.checkpoints)
    assert len(_names(bucket.checkpoints)) in (1, 2)
    ours, theirs = (json.loads(one.result.read_text()) for one in (bucket, local))
    for result in (ours, theirs):
        assert result.pop("train_images_per_second") > 0
    assert ours == theirs
    for name in ("config", "dataset", "classes"):
        assert getattr(bucket, name).read_text() == getattr(local, name).read_text()
    assert bucket.curves.read_bytes().startswith(b"\x89PNG")
    assert bucket.report.read_text().startswith("<!doctype html>")
    assert all(name.startswith("events.out.tfevents") for name in _names(bucket.tensorboard))


def _names(folder):
    return {path.name for path in folder.iterdir()}


def _check_evaluate(bucket, capsys):
    assert main(["evaluate", f"--workdir={BUCKET}", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["top1"] == json.loads(bucket.result.read_text())["top1"]
    assert printed["step"] == 44


def _check_export(local, output):
    arguments = ["--format=keras", "--nofold", "--limit=8"]
    assert main(["export", f"--workdir={BUCKET}", f"--output={output}", *arguments]) == 0
    ours = keras.saving.load_model(output).get_weights()
    assert [weight.tobytes() for weight in ours] == final_weights(local.path)


def _check_weights_to_start_from(local, name):
    ours = read_pretrained(tiny_config(model__weights=BUCKET + name))
    theirs = read_pretrained(tiny_config(model__weights=str(local.path)))
    assert ours.origin == f"{BUCKET}/model.keras"
    assert {name: array.tobytes() for name, array in ours.arrays.items()} == {
        name: array.tobytes() for name, array in theirs.arrays.items()
    }


def test_two_runs_cannot_share_a_bucket(monkeypatch):
    """The lease of a run that goes on is renewed, which the second one sees."""
    monkeypatch.setattr(Lease, "RENEWED", 0.05)
    monkeypatch.setattr(Lease, "PATIENCE", 5.0)
    workdir = WorkDir("ram://bucket/runs/shared")
    workdir.path.mkdir(parents=True)
    with (
        workdir.locked(),
        pytest.raises(UserError, match=r"another process is training here .process"),
        WorkDir(workdir.path).locked(),
    ):
        pass
    with workdir.locked():
        pass


@pytest.mark.parametrize("name", ["a[1]", "a*", "a?"])
def test_a_name_that_is_a_pattern_is_refused_in_a_bucket(name):
    with pytest.raises(UserError, match="stands for a pattern in the name of a bucket's object"):
        WorkDir(f"ram://bucket/{name}").check(tiny_config())


def test_no_run_there(capsys):
    assert main(["evaluate", "--workdir=ram://bucket/none"]) == 1
    assert "--workdir=ram://bucket/none: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.PermissionDeniedError(None, None, "HTTP 403: no access\nwhen reading"),
        tf.errors.NotFoundError(None, None, "HTTP 404: no such bucket"),
        tf.errors.FailedPreconditionError(None, None, "Could not resolve hostname"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_an_unusable_bucket_is_one_line(error, command, monkeypatch, capsys):
    def refuse(*_, **__):
        raise error

    for name in ("exists", "makedirs"):
        monkeypatch.setattr(tf.io.gfile, name, refuse)
    config = ["--config=smoke"] if command == "train" else []
    assert main([command, *config, "--workdir=ram://bucket/mine"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"ram://bucket/mine: {error.message.splitlines()[0]}. The bucket must exist" in line


def test_local_folders_and_help_load_neither_epath_nor_tensorflow(tmp_path):
    WorkDir(tmp_path).claim(tiny_config())
    program = (
        "import sys\n"
        "import keras_resnet_cli; keras_resnet_cli.defer_loading()\n"
        "from keras_resnet.commands import main\n"
        "from keras_resnet.training.workdir import WorkDir\n"
        f"WorkDir({str(tmp_path)!r}).read_config()\n"
        "main(['train', '--help'])\n"
        "sys.exit(', '.join({'tensorflow', 'etils.epath'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
