"""Checkpoints of earlier versions, in TensorFlow's format: read, kept, removed, and refused."""

import dataclasses
import json
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import mirrored_strategy

from keras_resnet.errors import UserError
from keras_resnet.training import state
from keras_resnet.training.checkpoints import Checkpoints
from keras_resnet.training.progress import Progress
from keras_resnet.training.tensorflow.ema import WeightAverage
from keras_resnet.training.tensorflow.older_checkpoints import OlderCheckpoints, _ProgressState


class State:
    """A network with dropout, its optimizer and averages, with weights of `seed`."""

    def __init__(self, seed, units=3, strategy=None, optimizer=None):
        keras.utils.set_random_seed(seed)
        with (strategy or tf.distribute.get_strategy()).scope():
            inputs = keras.Input((4,))
            x = keras.layers.Dense(units, name="first")(inputs)
            x = keras.layers.Dropout(0.5, name="dropout")(x)
            self.model = keras.Model(inputs, keras.layers.Dense(2, name="second")(x))
            self.optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
            self.optimizer.build(self.model.trainable_variables)
            self.average = WeightAverage(self.model, 0.9, False)
            random = np.random.default_rng(seed)
            for name, variable in self.variables().items():
                if name.endswith("momentum") or name.startswith("average/"):
                    variable.assign(random.normal(size=variable.shape))

    def variables(self):
        return state.named_variables(self.model, self.optimizer, self.average.named())

    def checkpoints(self, folder, **options):
        parts = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        return Checkpoints(
            folder,
            lambda: state.arrays_of(self.variables()),
            lambda arrays: state.load(self.variables(), arrays),
            **{"engine": "tensorflow", "older": OlderCheckpoints(parts), **options},
        )

    def save_as_before(self, folder, progress):
        """Writes what version 0.1.0 and those after it have written."""
        parts = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        older = OlderCheckpoints(parts)
        older._progress.value = progress
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                _ProgressState, "serialize", lambda self: json.dumps(dataclasses.asdict(self.value))
            )
            older._checkpoint.write(str(folder / f"ckpt-{progress.step}"))


def assert_state(found, seed):
    expected = state.arrays_of(State(seed).variables())
    for name, array in state.arrays_of(found.variables()).items():
        assert array.tobytes() == expected[name].tobytes(), name


def save_steps(folder, *steps):
    for step in steps:
        State(step).save_as_before(folder, Progress(step=step, skipped=7, best_step=steps[0]))


@pytest.mark.parametrize("replicas", [1, 2])
def test_everything_comes_back(replicas, tmp_path):
    save_steps(tmp_path, 10, 20)
    found = State(0, strategy=mirrored_strategy(replicas) if replicas > 1 else None)
    checkpoints = found.checkpoints(tmp_path)
    assert checkpoints.restore_newest() == Progress(step=20, skipped=7, best_step=10)
    assert_state(found, 20)
    assert checkpoints.restore_best().step == 10
    assert_state(found, 10)


def test_a_folder_with_both_kinds(tmp_path):
    save_steps(tmp_path, 10, 20, 30)
    found = State(40)
    checkpoints = found.checkpoints(tmp_path, keep=2)
    checkpoints.save(Progress(step=40, best_step=10))
    assert checkpoints.steps() == [10, 30, 40]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "ckpt-10.data-00000-of-00001",
        "ckpt-10.index",
        "ckpt-30.data-00000-of-00001",
        "ckpt-30.index",
        "ckpt-40.safetensors",
    ]
    found = State(0)
    assert found.checkpoints(tmp_path).restore_best().step == 10
    assert_state(found, 10)
    (tmp_path / "ckpt-40.safetensors").write_bytes(b"")
    assert found.checkpoints(tmp_path, say=lambda line: None).restore_newest().step == 30
    assert_state(found, 30)


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
def test_a_damaged_newest_falls_back_and_is_replaced(damage, tmp_path):
    save_steps(tmp_path, 10, 20)
    suffix, spoil = DAMAGES[damage]
    spoil(tmp_path / f"ckpt-20.{suffix}")
    warnings, found = [], State(0)
    checkpoints = found.checkpoints(tmp_path, say=warnings.append)
    assert checkpoints.restore_newest().step == 10
    assert_state(found, 10)
    (warning,) = warnings
    assert re.search(r"ckpt-20 is damaged \(.*\); taking the one before$", warning)
    # The run goes on and comes to the same step again: nothing of the damaged one is left.
    State(20).checkpoints(tmp_path).save(Progress(step=20))
    assert [path.name for path in tmp_path.glob("ckpt-20.*")] == ["ckpt-20.safetensors"]


def test_another_network_is_an_error_and_no_damage(tmp_path):
    save_steps(tmp_path, 10)
    with pytest.raises(UserError, match=r"of another network.*kernel has the shape \(4, 5\)"):
        State(0, units=5).checkpoints(tmp_path).restore_newest()


def test_another_optimizer_is_an_error(tmp_path):
    save_steps(tmp_path, 10)
    found = State(0, optimizer=keras.optimizers.AdamW(0.1))
    with pytest.raises(UserError, match="another network, optimizer or version"):
        found.checkpoints(tmp_path).restore_newest()


def test_inference_needs_no_optimizer(tmp_path):
    save_steps(tmp_path, 10)
    model = State(0).model
    checkpoints = Checkpoints(
        tmp_path,
        dict,
        lambda arrays: None,
        engine="tensorflow",
        trains=False,
        older=OlderCheckpoints({"model": model}),
    )
    assert checkpoints.restore_newest().step == 10
    for ours, theirs in zip(model.get_weights(), State(10).model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("restore", ["restore_newest", "restore_best"])
def test_another_engine_says_what_to_do(restore, tmp_path):
    save_steps(tmp_path, 10, 20)
    checkpoints = State(0).checkpoints(tmp_path, engine="jax", older=None)
    with pytest.raises(UserError, match=r"ckpt-20\.index: .*only engine=tensorflow reads; go on"):
        getattr(checkpoints, restore)()
    with pytest.raises(UserError, match=r"ckpt-20\.index: .*a run that is over needs more epochs"):
        checkpoints.refuse_older()
    State(30).checkpoints(tmp_path).save(Progress(step=30, best_step=10))
    checkpoints.refuse_older()
    assert checkpoints.restore_newest().step == 30
    with pytest.raises(UserError, match=r"ckpt-10\.index: .*only engine=tensorflow reads"):
        checkpoints.restore_best()


@pytest.mark.parametrize("name", ["x[1]", "a\\b", "[!a]*?", "x\udcff"])
def test_folders_of_any_name(name, tmp_path):
    """TensorFlow's reader takes brackets and backslashes for a pattern, and UTF-8 only."""
    save_steps(tmp_path, 10)
    folder = tmp_path / name
    folder.mkdir()
    for path in tmp_path.glob("ckpt-*"):
        path.rename(folder / path.name)
    found = State(0)
    assert found.checkpoints(folder).restore_newest().step == 10
    assert_state(found, 10)
