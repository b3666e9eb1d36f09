"""Checkpoints: what is kept, damaged files, full disks, other networks, other replicas."""

import errno
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from bucket_helpers import buckets_in_memory
from conftest import mirrored_strategy

from keras_resnet import storage
from keras_resnet.errors import UserError
from keras_resnet.training.engine import NonFiniteWeights
from keras_resnet.training.progress import Progress
from keras_resnet.training.tensorflow.checkpoints import Checkpoints


class State:
    """A network with dropout and its optimizer, with weights of `seed`."""

    def __init__(self, seed, units=3, strategy=None):
        keras.utils.set_random_seed(seed)
        with (strategy or tf.distribute.get_strategy()).scope():
            inputs = keras.Input((4,))
            x = keras.layers.Dropout(0.5)(keras.layers.Dense(units)(inputs))
            self.model = keras.Model(inputs, keras.layers.Dense(2)(x))
            self.optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
            self.optimizer.build(self.model.trainable_variables)
            for variable in self.optimizer.variables:
                if variable.name.endswith("momentum"):
                    variable.assign(np.random.default_rng(seed).normal(size=variable.shape))

    def values(self):
        return [
            keras.ops.convert_to_numpy(variable)
            for variable in [*self.model.variables, *self.optimizer.variables]
        ]

    def checkpoints(self, folder, **options):
        trackables = {"model": self.model, "optimizer": self.optimizer}
        return Checkpoints(folder, trackables, **options)


def assert_same_bits(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.tobytes() == other.tobytes()


def save_steps(folder, *steps, **options):
    """Saves states with weights of seed = step; returns the progress of the last."""
    for step in steps:
        progress = Progress(step=step, skipped=7, best_step=steps[0], best_top1=0.5)
        State(step).checkpoints(folder, **options).save(progress)
    return progress


def test_everything_comes_back(tmp_path):
    progress = save_steps(tmp_path, 5)
    state = State(0)
    restored = state.checkpoints(tmp_path).restore_newest()
    assert restored == progress
    assert_same_bits(state.values(), State(5).values())


def test_nothing_to_restore(tmp_path):
    assert State(0).checkpoints(tmp_path / "none").restore_newest() is None


def test_the_newest_and_the_best_are_kept(tmp_path):
    save_steps(tmp_path, 10, 20, 30, 40, 100, keep=2)
    state = State(0)
    checkpoints = state.checkpoints(tmp_path)
    assert checkpoints.steps() == [10, 40, 100]
    assert len(list(tmp_path.iterdir())) == 6  # an index and a data file each
    assert checkpoints.restore_best().step == 10
    assert_same_bits(state.values(), State(10).values())


def test_the_best_is_the_one_with_the_highest_top1():
    progress = Progress(step=1)
    assert progress.evaluated(0.5)
    progress.step = 2
    assert not progress.evaluated(0.5)
    progress.step = 3
    assert progress.evaluated(0.6)
    assert (progress.best_step, progress.best_top1) == (3, 0.6)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "data truncated": ("data-00000-of-00001", _truncate),
    "data empty": ("data-00000-of-00001", lambda path: path.write_bytes(b"")),
    "data missing": ("data-00000-of-00001", os.unlink),
    "a bit of the data": ("data-00000-of-00001", _flip_a_bit),
    "index truncated": ("index", _truncate),
    "index empty": ("index", lambda path: path.write_bytes(b"")),
    "index of garbage": ("index", lambda path: path.write_bytes(os.urandom(3000))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_with_a_warning(damage, tmp_path):
    save_steps(tmp_path, 10, 20)
    suffix, spoil = DAMAGES[damage]
    spoil(tmp_path / f"ckpt-20.{suffix}")
    warnings, state = [], State(0)
    checkpoints = state.checkpoints(tmp_path, say=warnings.append)
    assert checkpoints.restore_newest().step == 10
    assert_same_bits(state.values(), State(10).values())
    (warning,) = warnings
    assert "ckpt-20" in warning
    assert "damaged" in warning
    # The run goes on and comes to the same step again.
    state = State(20)
    state.checkpoints(tmp_path).save(Progress(step=20))
    assert State(0).checkpoints(tmp_path).restore_newest().step == 20


def test_all_damaged_is_an_error(tmp_path):
    save_steps(tmp_path, 10, 20)
    for path in tmp_path.glob("*.data-*"):
        _truncate(path)
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged .steps 10, 20."):
        State(0).checkpoints(tmp_path, say=lambda line: None).restore_newest()


def test_a_lost_best_is_an_error(tmp_path):
    save_steps(tmp_path, 10, 20)
    (tmp_path / "ckpt-10.index").unlink()
    with pytest.raises(UserError, match=r"ckpt-10, cannot be read .missing."):
        State(0).checkpoints(tmp_path).restore_best()


@pytest.mark.parametrize("moment", ["os.replace", "tf write", "os.fsync"])
def test_a_full_disk_leaves_the_older_checkpoints_whole(moment, tmp_path, monkeypatch):
    save_steps(tmp_path, 10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoints = State(20).checkpoints(tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment == "tf write":
        monkeypatch.setattr(checkpoints._checkpoint, "write", full)
    else:
        monkeypatch.setattr(os, moment.removeprefix("os."), full)
    with pytest.raises(UserError, match=r"step 20 .* No space left.*older checkpoints are whole"):
        checkpoints.save(Progress(step=20))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    state = State(0)
    assert state.checkpoints(tmp_path).restore_newest().step == 10
    assert_same_bits(state.values(), State(10).values())


def test_tensorflow_itself_running_out_of_space(tmp_path):
    """A limit on the size of files, as `ulimit -f` sets it, in place of a full disk."""
    import resource
    import signal

    save_steps(tmp_path, 10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoints = State(20, units=3000).checkpoints(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(UserError, match="step 20 could not be written") as caught:
            checkpoints.save(Progress(step=20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert not re.search(r"\{\{|\[Op:", str(caught.value))  # TensorFlow's own names
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_never_written(value, tmp_path):
    save_steps(tmp_path, 10)
    state = State(20)
    kernel = state.model.trainable_variables[0]
    kernel.assign(np.where(np.eye(4, 3) > 0, value, kernel.numpy()))
    with pytest.raises(NonFiniteWeights, match=r"holds a NaN or an infinity$"):
        state.checkpoints(tmp_path).save(Progress(step=20))
    assert State(0).checkpoints(tmp_path).steps() == [10]


def test_another_network_is_an_error_and_no_damage(tmp_path):
    save_steps(tmp_path, 10, 20)
    with pytest.raises(UserError, match=r"of another network.*kernel has the shape \(4, 5\)"):
        State(0, units=5).checkpoints(tmp_path).restore_newest()


def test_another_optimizer_is_an_error(tmp_path):
    save_steps(tmp_path, 10)
    state = State(0)
    state.optimizer = keras.optimizers.AdamW(0.1)
    state.optimizer.build(state.model.trainable_variables)
    with pytest.raises(UserError, match="another network, optimizer or version"):
        state.checkpoints(tmp_path).restore_newest()


def test_inference_needs_no_optimizer(tmp_path):
    save_steps(tmp_path, 10)
    model = State(0).model
    assert Checkpoints(tmp_path, {"model": model}).restore_newest().step == 10
    assert_same_bits(model.get_weights(), State(10).model.get_weights())


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4)])
def test_checkpoints_move_between_numbers_of_replicas(before, after, tmp_path):
    def strategy(replicas):
        return mirrored_strategy(replicas) if replicas > 1 else None

    written = State(10, strategy=strategy(before))
    written.checkpoints(tmp_path).save(Progress(step=10))
    state = State(0, strategy=strategy(after))
    state.checkpoints(tmp_path).restore_newest()
    assert_same_bits(state.values(), written.values())


def test_other_hosts_take_part_and_write_nothing(tmp_path):
    state = State(20)
    state.checkpoints(tmp_path, writes=False).save(Progress(step=20))
    assert list(tmp_path.iterdir()) == []


def test_in_a_bucket_a_kill_before_the_index_leaves_the_one_before(monkeypatch):
    with buckets_in_memory():
        folder = storage.as_path("ram://checkpoints/run")
        save_steps(folder, 10, 20, 30, keep=2)
        replace, names = type(folder).replace, []

        def dies_at_the_index(self, target):
            names.append(self.name)
            if self.suffix == ".index":
                raise KeyboardInterrupt
            return replace(self, target)

        monkeypatch.setattr(type(folder), "replace", dies_at_the_index)
        with pytest.raises(KeyboardInterrupt):
            save_steps(folder, 40)
        monkeypatch.undo()
        assert names == ["ckpt-40.data-00000-of-00001", "ckpt-40.index"]
        state = State(0)
        checkpoints = state.checkpoints(folder)
        assert checkpoints.steps() == [10, 20, 30]
        assert checkpoints.restore_newest().step == 30
        assert_same_bits(state.values(), State(30).values())
        save_steps(folder, 40)
        assert state.checkpoints(folder).restore_newest().step == 40
        assert not (folder / ".partial").exists()


def test_a_bucket_that_refuses_is_an_error_of_one_line(monkeypatch):
    with buckets_in_memory():
        folder = storage.as_path("ram://checkpoints/refused")
        save_steps(folder, 10)

        def refuse(*_):
            raise tf.errors.PermissionDeniedError(None, None, "HTTP 403: no access\nwhen writing")

        monkeypatch.setattr(type(folder), "replace", refuse)
        message = rf"step 20 could not be written to {folder}: HTTP 403: no access\. The older"
        with pytest.raises(UserError, match=message):
            State(20).checkpoints(folder).save(Progress(step=20))
        monkeypatch.undo()
        assert State(0).checkpoints(folder).steps() == [10]


@pytest.mark.parametrize(
    "name", ["x[1]", "a\\b", "[!a]*?", "ü {a,b} 100% $HOME", "-new\nline", "x\udcff"]
)
def test_folders_of_any_name(name, tmp_path):
    """TensorFlow's reader takes brackets and backslashes for a pattern, and UTF-8 only."""
    folder = tmp_path / name / "checkpoints"
    folder.mkdir(parents=True)
    save_steps(folder, 10, 20)
    state = State(9)
    assert state.checkpoints(folder).restore_newest().step == 20
    assert sorted(path.name for path in folder.glob("*.index")) == [
        "ckpt-10.index",
        "ckpt-20.index",
    ]
