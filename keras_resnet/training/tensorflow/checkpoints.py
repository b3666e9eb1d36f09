"""Checkpoints that survive kills, full disks and damaged files: the last few, and the best."""

import collections
import contextlib
import dataclasses
import errno
import json
import re
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import storage
from keras_resnet.errors import UserError
from keras_resnet.training.engine import NonFiniteWeights
from keras_resnet.training.progress import Progress
from keras_resnet.training.say import say
from keras_resnet.training.workdir import checkpoint_steps

_PARTIAL = ".partial"
# TensorFlow's reader turns its status codes into these: data that ends early is an IndexError.
_READ_ERRORS = (tf.errors.OpError, OSError, ValueError, RuntimeError, LookupError)


class _ProgressState(tf.train.experimental.PythonState):
    """Progress as a part of the checkpoint, so that both are always of the same moment."""

    def __init__(self):
        self.value = Progress()

    def serialize(self) -> str:
        return json.dumps(dataclasses.asdict(self.value))

    def deserialize(self, string_value) -> None:
        self.value = Progress(**json.loads(string_value))


class Checkpoints:
    """The checkpoints of a run, numbered by step: `ckpt-STEP.index` and its data.

    A checkpoint is written in a folder of its own, read back, and only then moved into place, the
    index last. So a kill at any moment, or a full disk, leaves all earlier ones as they were, and
    one without an index does not exist. The last `keep` are kept, and the best.

    Args:
        folder: where they are, of this machine or in a bucket; with several hosts a folder that all
            of them see.
        trackables: everything that a checkpoint holds, by name; "model" among them.
        keep: how many of the newest to keep.
        writes: False on all hosts but the first: they take part in reading the variables, but what
            they write is thrown away.
        say: told of each damaged checkpoint that is passed over.
    """

    def __init__(
        self,
        folder: Path,
        trackables: Mapping[str, Any],
        keep: int = 3,
        writes: bool = True,
        say: Callable[[str], None] = say,
    ):
        self.folder, self._keep = storage.as_path(folder), keep
        # As TensorFlow sees it; a link, if there is one, goes with this object.
        links = contextlib.ExitStack()
        self._seen = links.enter_context(storage.plainly_named(self.folder))
        weakref.finalize(self, links.close)
        self._writes, self._say = writes, say
        self._state = _ProgressState()
        self._trains = "optimizer" in trackables
        # Keras keeps the random state of dropout and stochastic depth out of TensorFlow's sight.
        model = trackables["model"]
        weights = {id(variable) for variable in model.weights}
        seeds = [variable for variable in model.variables if id(variable) not in weights]
        self._checkpoint = tf.train.Checkpoint(**trackables, seeds=seeds, progress=self._state)

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints there are, rising."""
        return checkpoint_steps(self.folder)

    def restore_newest(self) -> Progress | None:
        """Restores the newest checkpoint that is whole; returns its progress, None without any.

        Raises:
            UserError: all are damaged, or the checkpoint is one of another network.
        """
        steps = self.steps()
        for step in reversed(steps):
            damage = find_damage(self._seen_path(step))
            if damage is None:
                return self._restore(step)
            older = "taking the one before" if step > steps[0] else "there is none before it"
            self._say(f"warning: checkpoint {self._path(step)} is damaged ({damage}); {older}")
        if steps:
            raise UserError(
                f"every checkpoint in {self.folder} is damaged (steps "
                f"{', '.join(map(str, steps))}): bring one back, or start in another --workdir"
            )
        return None

    def restore_best(self) -> Progress | None:
        """Restores the checkpoint with the best evaluation; returns its progress, None without any.

        Raises:
            UserError: it is gone or damaged, or nothing was evaluated yet.
        """
        newest = self.restore_newest()
        if newest is None:
            return None
        step = newest.best_step
        if step is None:
            raise UserError(
                f"{self.folder}: no evaluation yet, so no best checkpoint; take the newest"
            )
        damage = "missing" if step not in self.steps() else find_damage(self._seen_path(step))
        if damage is not None:
            raise UserError(
                f"the best checkpoint, {self._path(step)}, cannot be read ({damage}); "
                "take the newest"
            )
        return self._restore(step)

    def save(self, progress: Progress) -> None:
        """Writes the checkpoint of `progress.step`, then removes those no longer kept.

        Raises:
            NonFiniteWeights: a value is NaN or infinite.
            UserError: it could not be written, for example because the disk is full.
        """
        self._state.value = dataclasses.replace(progress)
        try:
            if self._writes:
                partial = self.folder / _PARTIAL
                storage.remove_folder(partial)  # of a run that was killed
                if not storage.in_bucket(partial) and partial.is_symlink():
                    partial.unlink()  # which was not followed
                partial.mkdir(parents=True, exist_ok=storage.in_bucket(partial))
                partial = self._seen / _PARTIAL
            else:
                partial = Path(tempfile.mkdtemp())
            try:
                self._write(partial, progress.step)
            finally:
                storage.remove_folder(partial)
        except _READ_ERRORS as error:
            full = isinstance(error, tf.errors.ResourceExhaustedError) or (
                getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
            )
            raise UserError(
                f"checkpoint of step {progress.step} could not be written to {self.folder}: "
                f"{_first_line(error)}. The older checkpoints are whole: "
                f"{'make room' if full else 'put that right'} and run the same command again"
            ) from error
        if self._writes:
            with storage.explain_bucket_errors(self.folder):
                self._remove_old(progress)

    def _write(self, partial: Path, step: int) -> None:
        prefix = str(partial / f"ckpt-{step}")
        self._checkpoint.write(prefix)
        if not self._writes:
            return
        name = _find_non_finite(prefix)  # reads all back, checksums included
        if name is not None:
            raise NonFiniteWeights(f"{name} holds a NaN or an infinity")
        *data, index = sorted(partial.glob(f"ckpt-{step}.*"))  # ckpt-N.data-… before ckpt-N.index
        for path in (*data, index):
            storage.flush_to_disk(path)
        # A damaged checkpoint of the same step may stand here: it stops to exist first.
        (self.folder / index.name).unlink(missing_ok=True)
        for path in (*data, index):
            path.replace(self.folder / path.name)
        storage.flush_to_disk(self.folder)

    def _restore(self, step: int) -> Progress:
        path, status = self._seen_path(step), None
        try:
            status = self._checkpoint.read(path)
            if self._trains:
                status.assert_consumed()
            else:
                status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            if status is not None:
                status.expect_partial()  # else TensorFlow warns of each value by itself
            raise UserError(
                f"checkpoint {self._path(step)} is of another network, optimizer or version than "
                f"the config asks for ({self._difference(path) or _first_line(error)}); go on with "
                "the config it was written with, or take another --workdir"
            ) from error
        return dataclasses.replace(self._state.value)

    def _difference(self, path: str) -> str | None:
        """Returns in words the first weight of ours that the checkpoint cannot have, or None."""
        shapes = _reader(path).get_variable_to_shape_map().values()
        left = collections.Counter(tuple(shape) for shape in shapes)
        for weight in self._checkpoint.model.weights:
            shape = tuple(weight.shape)
            if not left[shape]:
                return f"{weight.path} has the shape {shape} now, and nothing in it has"
            left[shape] -= 1
        return None

    def _remove_old(self, progress: Progress) -> None:
        kept = {*self.steps()[-self._keep :], progress.best_step}
        for step in set(self.steps()) - kept:
            self.remove(step)

    def remove(self, step: int) -> None:
        """Removes the checkpoint of `step`, its index first."""
        (self.folder / f"ckpt-{step}.index").unlink(missing_ok=True)
        for data in self.folder.glob(f"ckpt-{step}.data-*"):
            data.unlink(missing_ok=True)

    def _path(self, step: int) -> str:
        return str(self.folder / f"ckpt-{step}")

    def _seen_path(self, step: int) -> str:
        return str(self._seen / f"ckpt-{step}")


def find_damage(path: str) -> str | None:
    """Reads the whole checkpoint `path`, with its checksums; returns what is wrong, or None."""
    try:
        _find_non_finite(path)
    except _READ_ERRORS as error:
        return _first_line(error)
    return None


def _find_non_finite(path: str) -> str | None:
    """Returns the name of a tensor in the checkpoint that holds a NaN or an infinity."""
    reader = _reader(path)
    for name, dtype in reader.get_variable_to_dtype_map().items():
        value = reader.get_tensor(name)
        if dtype.is_floating and not np.isfinite(value.astype("float32")).all():
            return name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    return None


def _reader(path: str):
    # tf.train.load_checkpoint first asks whether `path` is a folder of checkpoints: to ram:// every
    # prefix of a name is one, and in a bucket the question is one request more.
    return tf.compat.v1.train.NewCheckpointReader(path)


def _first_line(error: Exception) -> str:
    """Returns what went wrong, without the names of TensorFlow's own operations."""
    lines = re.sub(r"\{\{.*?\}\} ?| ?\[Op:\w+\]", "", str(error)).splitlines()
    return lines[0] if lines else type(error).__name__
