"""The seam between a run and what computes it: TensorFlow under `tf.distribute`, or JAX.

An engine has the devices, the network and its training state; it trains a number of steps,
evaluates a number of batches, and hands its state out. The run (`run.py`), schedules, progress,
reporting, interruption, the work directory and metrics know only what stands here.
"""

import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
from ml_collections import ConfigDict

from keras_resnet.errors import UserError
from keras_resnet.training.checkpoints import Checkpoints
from keras_resnet.training.distillation import Teacher
from keras_resnet.training.say import Say
from keras_resnet.weights.checkpoint import Checkpoint

# Engine, which is also the name of the backend that Keras needs for it -> its class.
ENGINES = {
    "tensorflow": "keras_resnet.training.tensorflow.engine:TensorFlowEngine",
    "jax": "keras_resnet.training.jax.engine:JaxEngine",
}


def find_engine(config: ConfigDict) -> "type[Engine]":
    """Returns the engine class for `engine`; `find_engine(config)(config)` starts the devices.

    Raises:
        UserError: Keras was started on another backend, or on one that has no engine.
    """
    backend = keras.backend.backend()
    name = backend if config.engine == "auto" else config.engine
    if name not in ENGINES:
        raise UserError(
            f"KERAS_BACKEND={name}: training runs on {', '.join(ENGINES)}; unset the variable "
            "(models and blocks work on every backend)"
        )
    if name != backend:
        raise UserError(
            f"config.engine={name!r}, but Keras has started on {backend} in this process: set "
            f"KERAS_BACKEND={name} before anything imports Keras (the command line does)"
        )
    module, _, kind = ENGINES[name].partition(":")
    return getattr(importlib.import_module(module), kind)


def engine_here() -> "type[Engine]":
    """Returns the engine class for Keras' backend; evaluating, one engine is as good as another."""
    return find_engine(ConfigDict({"engine": "auto"}))


class Evaluated(NamedTuple):
    """What some batches of an evaluation give.

    Attributes:
        sums: SUMS (or LABEL_SET_SUMS) of each batch, float32[steps, 4].
        rows: of each example the label and the prediction, int32[steps * batch_size, 2]; with
            several labels an image labels and probabilities, float32[..., 2, classes]; -1 for
            padding.
        logits: float32[n, classes], of all or some of the examples.
        logit_rows: the rows of those.
    """

    sums: Any
    rows: Any
    logits: Any
    logit_rows: Any


class Engine(Protocol):
    """What a run asks of an engine. `Engine(config)` finds the devices; `build` makes the network.

    Several hosts run the same program: each calls the same functions in the same order.

    Attributes:
        config: of the run; in place of precision=auto with what that is on the devices.
        description: strategy and devices in words.
        is_chief: whether this host writes the files and speaks.
        several_hosts: whether other processes take part in the run.
        model: the network, with `class_names` and `preprocessing`.
    """

    config: ConfigDict
    description: str
    is_chief: bool
    several_hosts: bool
    model: keras.Model

    def __init__(self, config: ConfigDict):
        """Finds the devices, and waits for the other hosts; raises UserError."""

    @staticmethod
    def check(config: ConfigDict, workdir: str | os.PathLike) -> None:
        """Raises UserError where the machines cannot do the run; no device is touched."""

    def build(
        self,
        class_names: Sequence[str],
        schedule: Any = None,
        weights: Checkpoint | None = None,
        say: Callable[[str], None] = ...,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Makes network, optimizer and averages from `config` and its seed.

        Args:
            class_names: one for each output of the network.
            schedule: the learning rate; None builds for inference, without an optimizer.
            weights: to start from instead of random ones.
            say: told what the person should know of them.
            class_weights: of the loss, one for each class, () for none; None: `loss.class_weights`,
                of which "balanced" is none without the images.
        """

    def multiplies_bfloat16(self) -> bool:
        """Returns whether all devices of all hosts do natively; the hosts call it together."""

    def teach(self, teacher: Teacher) -> None:
        """Lets the network learn from a teacher, whatever the config says of one.

        After `build` with a schedule, and before the first `train`, whose sums then have
        `metrics.DISTILLATION` after the others.
        """

    def train_batches(
        self, source: Any, first: int, end: int, image_size: int | None = None
    ) -> Any:
        """Returns the training batches of number `first` to `end - 1`, for `train` to take.

        Args:
            source: of the images.
            first: number of the first batch.
            end: number after the last one.
            image_size: pixels of both sides; None takes the most that the config has.
        """

    def blank_batches(self, source: Any, image_size: int) -> Any:
        """Returns one batch of zeros shaped as those of `source`, to compile `train` with."""

    def train(self, batches: Any, steps: int, frozen: bool = False) -> np.ndarray:
        """Trains on the next `steps` batches; returns SUMS of each, float32[steps, 4].

        Args:
            batches: of `train_batches`.
            steps: how many.
            frozen: whether they leave alone what `model.freeze` names and `model.unfreeze_epoch`
                unfreezes later. Without such an epoch it has no effect.

        Raises:
            input_pipeline.DataError: an example cannot be read; names it.
        """

    def gradient_norms(self) -> dict[str, float]:
        """Returns the norm of the gradient of each block that trained in the last step of `train`.

        Of the mean loss of the global batch, by "stem", "stage1_block1", … and "head"; {} where
        `log_gradient_norms` is off.
        """

    def evaluation_batches(self, source: Any) -> Any:
        """Returns the batches in which every example of `source` is once, for `evaluate`."""

    def evaluate(self, batches: Any, steps: int, every: int = 1) -> "Evaluated":
        """Evaluates the next `steps` batches with the weights as they are.

        Args:
            batches: of `evaluation_batches`.
            steps: how many.
            every: keeps the logits of every so many-th example of each replica's batch.

        Raises:
            input_pipeline.DataError: an example cannot be read; names it.
        """

    def averaged_weights(self) -> AbstractContextManager:
        """Returns a context in which `model` has the weights to infer with (`ema.decay`)."""

    def inference_weights(self) -> list[np.ndarray]:
        """Returns what `model.get_weights()` is in `averaged_weights`."""

    def state(self) -> dict[str, np.ndarray]:
        """Returns copies of all that training changes, by the names of `state.named_variables`.

        Several hosts call it together.
        """

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        """Takes what `state` gave, also of another engine: whole numbers may be of another width.

        Raises ValueError, which names the first difference, if it is the state of something else.
        """

    def checkpoints(self, folder: Path, say: Say) -> Checkpoints:
        """Returns the checkpoints of this engine's state in `folder`, which all hosts share."""

    def mean(self, value: float) -> float:
        """Returns the mean of `value` over all hosts, the same on each."""

    def any_host(self, value: bool) -> bool:
        """Returns whether `value` is true on some host."""

    def hosts_that_differ(self, digest: bytes) -> list[str]:
        """Returns the addresses of the hosts that call this with another digest (16 bytes)."""

    def wait_for_hosts(self) -> None:
        """Returns when every host has called this."""

    def explain_lost_hosts(self) -> AbstractContextManager:
        """Returns a context that turns the failure of another host into a UserError."""

    def start_profile(self, folder: Path) -> None:
        """Begins to record what the devices do, for TensorBoard."""

    def stop_profile(self) -> None:
        """Writes the recording to its folder; does nothing without one."""
