"""Checkpoints: what is kept, damaged files, full disks, other networks, other engines.

The state is arrays without a network: no engine takes part, so that they hold for every one.
"""

import errno
import os
import resource
import signal

import numpy as np
import pytest
from bucket_helpers import buckets_in_memory

from keras_resnet import storage
from keras_resnet.errors import UserError
from keras_resnet.training import checkpoint_file
from keras_resnet.training.checkpoints import Checkpoints, NonFiniteWeights
from keras_resnet.training.progress import Progress
from keras_resnet.training.state import check_state


class State:
    """What training changes, with values of `seed`; a network of `units`."""

    def __init__(self, seed, units=3, slots=("momentum",)):
        random = np.random.default_rng(seed)
        shapes = {"dense/kernel": (4, units), "dense/bias": (units,)}
        self.arrays = {
            f"{part}{name}{suffix}": random.normal(size=shape).astype("float32")
            for part, suffixes in (
                ("model/", [""]),
                ("optimizer/", [f"_{slot}" for slot in slots]),
                ("average/", [""]),
            )
            for suffix in suffixes
            for name, shape in shapes.items()
        }
        self.arrays["seeds/dropout/0"] = random.integers(0, 2**32, 2, "uint32")
        self.arrays["optimizer/iteration"] = np.array(seed, "int64")

    def state(self):
        return {name: array.copy() for name, array in self.arrays.items()}

    def load_state(self, arrays):
        check_state(self.arrays, arrays)
        self.arrays = arrays

    def values(self):
        return [self.arrays[name] for name in sorted(self.arrays)]

    def checkpoints(self, folder, engine="numpy", **options):
        return Checkpoints(folder, self.state, self.load_state, engine=engine, **options)


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
    assert len(list(tmp_path.iterdir())) == 3
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
    "truncated": _truncate,
    "empty": lambda path: path.write_bytes(b""),
    "a bit": _flip_a_bit,
    "garbage": lambda path: path.write_bytes(os.urandom(3000)),
    "a text": lambda path: path.write_text("<html>"),
    "another version's progress": lambda path: checkpoint_file.write(
        path, State(1).arrays, {**TEXTS, "progress": '{"step": 20, "more": 1}'}
    ),
    "progress of text": lambda path: checkpoint_file.write(
        path, State(1).arrays, {**TEXTS, "progress": '{"step": "20"}'}
    ),
    "no progress": lambda path: checkpoint_file.write(path, State(1).arrays, TEXTS),
    "of something else": lambda path: checkpoint_file.write(path, State(1).arrays, {}),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
TEXTS = {"kind": "keras_resnet checkpoint", "version": "1", "engine": "numpy"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_with_a_warning(damage, tmp_path):
    save_steps(tmp_path, 10, 20)
    DAMAGES[damage](tmp_path / "ckpt-20.safetensors")
    warnings, state = [], State(0)
    checkpoints = state.checkpoints(tmp_path, say=warnings.append)
    assert checkpoints.restore_newest().step == 10
    assert_same_bits(state.values(), State(10).values())
    (warning,) = warnings
    assert "ckpt-20" in warning
    assert "damaged" in warning
    assert "\n" not in warning
    if damage == "a folder":  # it may be the user's own; a run does not begin before it is away
        return
    # The run goes on and comes to the same step again.
    save_steps(tmp_path, 20)
    assert State(0).checkpoints(tmp_path).restore_newest().step == 20


def test_all_damaged_is_an_error(tmp_path):
    save_steps(tmp_path, 10, 20)
    for path in tmp_path.iterdir():
        _truncate(path)
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged .steps 10, 20."):
        State(0).checkpoints(tmp_path, say=lambda line: None).restore_newest()


def test_a_lost_best_is_an_error(tmp_path):
    save_steps(tmp_path, 10, 20)
    (tmp_path / "ckpt-10.safetensors").unlink()
    with pytest.raises(UserError, match=r"ckpt-10, cannot be read .missing."):
        State(0).checkpoints(tmp_path).restore_best()


@pytest.mark.parametrize("moment", ["os.replace", "os.fsync", "verify"])
def test_a_full_disk_leaves_the_older_checkpoints_whole(moment, tmp_path, monkeypatch):
    save_steps(tmp_path, 10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoints = State(20).checkpoints(tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    module = checkpoint_file if moment == "verify" else os
    monkeypatch.setattr(module, moment.removeprefix("os."), full)
    with pytest.raises(UserError, match=r"step 20 .* No space left.*are whole: make room and run"):
        checkpoints.save(Progress(step=20))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    state = State(0)
    assert state.checkpoints(tmp_path).restore_newest().step == 10
    assert_same_bits(state.values(), State(10).values())


def test_running_out_of_space_in_the_middle(tmp_path):
    """A limit on the size of files, as `ulimit -f` sets it, in place of a full disk."""
    save_steps(tmp_path, 10)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    checkpoints = State(20, units=3000).checkpoints(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        with pytest.raises(UserError, match=r"step 20 could not be written .*: File too large"):
            checkpoints.save(Progress(step=20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_that_writes_something_else_is_noticed(tmp_path, monkeypatch):
    save_steps(tmp_path, 10)
    flush = storage.flush_to_disk
    monkeypatch.setattr(storage, "flush_to_disk", lambda path: (flush(path), _flip_a_bit(path)))
    with pytest.raises(UserError, match=r"step 20 could not .*does not fit its checksum"):
        save_steps(tmp_path, 20)
    assert State(0).checkpoints(tmp_path).steps() == [10]


@pytest.mark.parametrize("writes", [True, False])  # every host notices, and rolls back
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_never_written(value, writes, tmp_path):
    save_steps(tmp_path, 10)
    state = State(20)
    state.arrays["average/dense/kernel"][2, 1] = value
    with pytest.raises(
        NonFiniteWeights, match=r"^average/dense/kernel holds a NaN or an infinity$"
    ):
        state.checkpoints(tmp_path, writes=writes).save(Progress(step=20))
    assert State(0).checkpoints(tmp_path).steps() == [10]


def test_another_network_is_an_error_and_no_damage(tmp_path):
    save_steps(tmp_path, 10, 20)
    reason = r"ckpt-20 is of another network.*model/dense/kernel has the shape \(4, 5\), the state"
    state = State(0, units=5)
    with pytest.raises(UserError, match=reason):
        state.checkpoints(tmp_path).restore_newest()
    assert_same_bits(state.values(), State(0, units=5).values())


def test_another_optimizer_is_an_error(tmp_path):
    save_steps(tmp_path, 10)
    state = State(0, slots=("momentum", "velocity"))
    reason = r"another network, optimizer or version .*kernel_velocity is not in the state"
    with pytest.raises(UserError, match=reason):
        state.checkpoints(tmp_path).restore_newest()


def test_a_later_version_is_an_error_and_no_damage(tmp_path):
    path = tmp_path / "ckpt-10.safetensors"
    checkpoint_file.write(path, State(1).arrays, {**TEXTS, "version": "2"})
    with pytest.raises(UserError, match=r"another network, optimizer or version .*version '2'"):
        State(0).checkpoints(tmp_path).restore_newest()


def test_inference_needs_no_optimizer(tmp_path):
    save_steps(tmp_path, 10)
    state = State(0, slots=())
    del state.arrays["optimizer/iteration"]
    assert state.checkpoints(tmp_path, trains=False).restore_newest().step == 10
    expected = State(10).arrays
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(array, expected[name])


def test_another_engine_goes_on_and_says_so(tmp_path):
    said, state = [], State(0)
    save_steps(tmp_path, 1200)
    state.checkpoints(tmp_path, say=said.append).restore_newest()
    assert said == []
    state.checkpoints(tmp_path, "jax", say=said.append).restore_newest()
    assert said == ["engine     step 1,200 was trained by numpy, jax goes on"]
    assert_same_bits(state.values(), State(1200).values())


def test_other_hosts_take_part_and_write_nothing(tmp_path):
    state = State(20)
    state.checkpoints(tmp_path, writes=False).save(Progress(step=20))
    assert list(tmp_path.iterdir()) == []


def test_in_a_bucket_a_kill_before_the_move_leaves_the_one_before(monkeypatch):
    with buckets_in_memory():
        folder = storage.as_path("ram://checkpoints/run")
        save_steps(folder, 10, 20, 30, keep=2)
        names = []

        def dies(self, target):
            names.append(self.name)
            raise KeyboardInterrupt

        monkeypatch.setattr(type(folder), "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            save_steps(folder, 40)
        monkeypatch.undo()
        assert names == ["ckpt-40.safetensors"]
        state = State(0)
        checkpoints = state.checkpoints(folder)
        assert checkpoints.steps() == [10, 20, 30]
        assert checkpoints.restore_newest().step == 30
        assert_same_bits(state.values(), State(30).values())
        save_steps(folder, 40)
        assert state.checkpoints(folder).restore_newest().step == 40
        assert not (folder / ".partial").exists()
        path = folder / "ckpt-40.safetensors"
        path.write_bytes(path.read_bytes()[:-40])
        said = []
        assert state.checkpoints(folder, say=said.append).restore_newest().step == 30
        assert "ckpt-40 is damaged" in said[0]


def test_a_bucket_that_refuses_is_an_error_of_one_line(monkeypatch):
    with buckets_in_memory():
        folder = storage.as_path("ram://checkpoints/refused")
        save_steps(folder, 10)

        import tensorflow as tf

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
    folder = tmp_path / name / "checkpoints"
    folder.mkdir(parents=True)
    save_steps(folder, 10, 20)
    state = State(9)
    assert state.checkpoints(folder).restore_newest().step == 20
    assert sorted(path.name for path in folder.iterdir()) == [
        "ckpt-10.safetensors",
        "ckpt-20.safetensors",
    ]


def test_only_checkpoints_are_counted_and_removed(tmp_path):
    for name in (
        "ckpt-x.safetensors",
        "ckpt-010.safetensors",
        "ckpt-5.safetensors.bak",
        "ckpt-٣.index",
    ):
        (tmp_path / name).write_text("mine")
    save_steps(tmp_path, 20, 30, 40, keep=1)
    assert State(0).checkpoints(tmp_path).steps() == [20, 40]
    assert len(list(tmp_path.iterdir())) == 6
