"""Checkpoints of model, optimiser and step by `tf.train.CheckpointManager`."""

from pathlib import Path

import keras
import tensorflow as tf

from keras_resnet.errors import UserError


class Checkpoints:
    """The last few checkpoints of a run, numbered by step.

    A checkpoint appears under its name only when it is complete (TensorFlow writes the data, then
    the index, then the file `checkpoint` that names the newest, each by renaming), so a kill at any
    moment leaves the one before.
    """

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer | None = None,
        keep: int = 3,
    ):
        self._checkpoint = tf.train.Checkpoint(model=model)
        if optimizer is not None:
            self._checkpoint.optimizer = optimizer
        self._optimizer = optimizer
        self._manager = tf.train.CheckpointManager(self._checkpoint, str(folder), max_to_keep=keep)

    def restore_newest(self) -> int | None:
        """Restores the newest checkpoint; returns its step, or None if there is none.

        Raises:
          UserError: the checkpoint is damaged, or is one of another network.
        """
        path = self._manager.latest_checkpoint
        if path is None:
            return None
        try:
            status = self._checkpoint.restore(path)
            if self._optimizer is not None:
                status.assert_consumed()
            else:
                status.assert_existing_objects_matched().expect_partial()
        except (tf.errors.OpError, AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"checkpoint {path} cannot be restored: {reason}") from error
        return int(path.rsplit("-", 1)[1])

    def save(self, step: int) -> None:
        """Writes the checkpoint of `step` and removes the oldest beyond `keep`.

        Raises:
          UserError: it could not be written, for example because the disk is full.
        """
        try:
            self._manager.save(checkpoint_number=step)
        except (tf.errors.OpError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"checkpoint of step {step} could not be written: {reason}") from error
