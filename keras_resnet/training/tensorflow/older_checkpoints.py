"""Reads the checkpoints of earlier versions: `ckpt-STEP.index` and its data, of TensorFlow.

Nothing writes them any more; `training/checkpoints.py` does.
"""

import collections
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet import storage
from keras_resnet.training.checkpoint_file import Damaged
from keras_resnet.training.progress import Progress

# TensorFlow's reader turns its status codes into these: data that ends early is an IndexError.
_READ_ERRORS = (tf.errors.OpError, OSError, ValueError, RuntimeError, LookupError)


class _ProgressState(tf.train.experimental.PythonState):
    """Progress as a part of the checkpoint."""

    def __init__(self):
        self.value = Progress()

    def serialize(self) -> str:
        raise NotImplementedError("nothing writes this format any more")

    def deserialize(self, string_value) -> None:
        self.value = Progress(**json.loads(string_value))


class OlderCheckpoints:
    """The checkpoints of earlier versions; `Checkpoints` reads them through this.

    Args:
        trackables: everything that a checkpoint holds, by name; "model" among them. Without an
            "optimizer" only the rest of it is read.
    """

    def __init__(self, trackables: Mapping[str, Any]):
        self._trains = "optimizer" in trackables
        self._progress = _ProgressState()
        # Keras keeps the random state of dropout and stochastic depth out of TensorFlow's sight.
        self._model = trackables["model"]
        weights = {id(variable) for variable in self._model.weights}
        seeds = [variable for variable in self._model.variables if id(variable) not in weights]
        self._checkpoint = tf.train.Checkpoint(**trackables, seeds=seeds, progress=self._progress)

    def restore(self, folder: Path, step: int) -> Progress:
        """Restores the checkpoint of `step`; returns its progress.

        Raises:
            Damaged: it cannot be read, or does not fit its checksums.
            ValueError: it is of something else; says what differs.
        """
        with storage.plainly_named(folder) as seen:
            path = str(seen / f"ckpt-{step}")
            try:
                _read_all(path)
            except _READ_ERRORS as error:
                raise Damaged(_first_line(error)) from error
            return self._restore(path)

    def _restore(self, path: str) -> Progress:
        status = None
        try:
            status = self._checkpoint.read(path)
            if self._trains:
                status.assert_consumed()
            else:
                status.assert_existing_objects_matched().expect_partial()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            if status is not None:
                status.expect_partial()  # else TensorFlow warns of each value by itself
            raise ValueError(self._difference(path) or _first_line(error)) from error
        return self._progress.value

    def _difference(self, path: str) -> str | None:
        """Returns in words the first weight of ours that the checkpoint cannot have, or None."""
        shapes = _reader(path).get_variable_to_shape_map().values()
        left = collections.Counter(tuple(shape) for shape in shapes)
        for weight in self._model.weights:
            shape = tuple(weight.shape)
            if not left[shape]:
                return f"{weight.path} has the shape {shape} now, and nothing in it has"
            left[shape] -= 1
        return None


def _read_all(path: str) -> None:
    """Reads the whole checkpoint `path`, with its checksums; raises what TensorFlow does."""
    reader = _reader(path)
    for name, dtype in reader.get_variable_to_dtype_map().items():
        value = reader.get_tensor(name)
        if dtype.is_floating and not np.isfinite(value.astype("float32")).all():
            raise ValueError(f"{name} holds a NaN or an infinity")


def _reader(path: str):
    # tf.train.load_checkpoint first asks whether `path` is a folder of checkpoints: to ram:// every
    # prefix of a name is one, and in a bucket the question is one request more.
    return tf.compat.v1.train.NewCheckpointReader(path)


def _first_line(error: Exception) -> str:
    """Returns what went wrong, without the names of TensorFlow's own operations."""
    lines = re.sub(r"\{\{.*?\}\} ?| ?\[Op:\w+\]", "", str(error)).splitlines()
    return lines[0] if lines else type(error).__name__
