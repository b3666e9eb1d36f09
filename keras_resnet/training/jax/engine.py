"""The JAX engine: model, optimizer and data of one run over a mesh of all devices."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from keras_resnet.training import state
from keras_resnet.training.broken_images import explain_broken_images
from keras_resnet.training.checkpoints import Checkpoints
from keras_resnet.training.distillation import Teacher, TeacherNetwork
from keras_resnet.training.engine import Engine, Evaluated
from keras_resnet.training.finetuning import freeze, load_pretrained
from keras_resnet.training.fit import check_fit, class_weights_of
from keras_resnet.training.host_batches import (
    HostBatches,
    batches_to_evaluate,
    batches_to_train_on,
    blank_batches,
)
from keras_resnet.training.jax import processes
from keras_resnet.training.jax.batches import ConstantBatches, DeviceBatches, part_of_host
from keras_resnet.training.jax.devices import (
    is_native_everywhere,
    make_mesh,
    resolve_precision,
)
from keras_resnet.training.jax.evaluation import EvaluationSteps
from keras_resnet.training.jax.mesh import EVERYWHERE, describe
from keras_resnet.training.jax.step import State, Steps
from keras_resnet.training.network import build_model
from keras_resnet.training.optimizers import make_optimizer
from keras_resnet.training.say import Say, say
from keras_resnet.training.schedules import plateau_of
from keras_resnet.weights import Checkpoint


class JaxEngine(Engine):
    """Trains and evaluates the network of a config; `Engine` says what each method does.

    Between calls the variables of `model` and `optimizer` hold the state, as arrays that lie on all
    devices; a step is a function of them.

    Args:
        config: a checked config (`keras_resnet.config.check`).
        mesh: where to run, instead of the config's devices.
    """

    def __init__(self, config: ConfigDict, mesh: Mesh | None = None):
        self.mesh = make_mesh(config) if mesh is None else mesh
        self.config = resolve_precision(config, self.mesh)
        self.description = describe(self.mesh)
        self.is_chief = jax.process_index() == 0
        self.several_hosts = processes.several()
        self._profiles = False

    @staticmethod
    def check(config: ConfigDict, workdir: str | os.PathLike) -> None:
        """Nothing: what the machines cannot do shows when they are asked for their devices."""

    def build(
        self,
        class_names: Sequence[str],
        schedule: Any = None,
        weights: Checkpoint | None = None,
        say: Callable[[str], None] = say,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        config, trains = self.config, schedule is not None
        class_weights = class_weights_of(config, class_weights)
        check_fit(config, self.mesh.devices.size, len(class_names), trains, class_weights)
        keras.utils.set_random_seed(config.seed)
        self.model = build_model(config, list(class_names))
        if weights is not None:
            load_pretrained(self.model, weights, config, say)
        # What is unfrozen later has its part in the optimizer and the averages from the start.
        self._staged = bool(config.model.unfreeze_epoch)
        if not self._staged:
            freeze(self.model, config.model.freeze)
        self.optimizer = make_optimizer(config, schedule, self.model) if trains else None
        self._averaged = state.averaged_variables(self.model) if config.ema.decay else []
        self._average_names = state.average_names(self.model) if config.ema.decay else []
        self._put_on_devices()
        plateau = plateau_of(schedule) if trains else None
        self._make_steps = partial(
            Steps,
            self.model,
            self.optimizer,
            self.mesh,
            config,
            self._averaged,
            plateau.variable if plateau else None,
            class_weights,
        )
        self.steps = self._make_steps() if trains else None
        self.evaluations = EvaluationSteps(self.model, self.mesh, config)
        self._frozen_steps: Steps | None = None
        self._norms: dict[str, float] = {}
        self._evaluation_data: tuple[HostBatches, Any] | None = None

    def multiplies_bfloat16(self) -> bool:
        return is_native_everywhere(self.mesh)

    def teach(self, teacher: Teacher) -> None:
        assert self.steps is not None  # built to train
        network = TeacherNetwork(teacher)
        for variable in network.variables:
            variable.assign(self._everywhere(variable.value))
        self.steps.teacher = network

    def _put_on_devices(self) -> None:
        """Gives every device a copy of the state."""
        for variable in (*self.model.variables, *self._optimizer_variables()):
            variable.assign(self._everywhere(variable.value))
        self._averages = [jnp.copy(variable.value) for variable in self._averaged]

    def _everywhere(self, value: Any) -> jax.Array:
        array = np.asarray(value)
        sharding = NamedSharding(self.mesh, EVERYWHERE)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def _optimizer_variables(self) -> list[Any]:
        return self.optimizer.variables if self.optimizer else []

    # ---- Training and evaluation --------------------------------------------------------------

    def train_batches(
        self, source: Any, first: int, end: int, image_size: int | None = None
    ) -> Any:
        batches = batches_to_train_on(self.config, source, first, end, image_size)
        if source.is_synthetic:
            return ConstantBatches(batches, self.mesh)
        with explain_broken_images(source):
            return DeviceBatches(batches, self.mesh, first)

    def blank_batches(self, source: Any, image_size: int) -> Any:
        if source.is_synthetic:
            return self.train_batches(source, 0, 1, image_size)
        return DeviceBatches(blank_batches(self.config, source, image_size), self.mesh)

    def train(self, batches: Any, steps: int, frozen: bool = False) -> np.ndarray:
        stage = self._stage(frozen)
        now = State(
            [variable.value for variable in stage.trained],
            [variable.value for variable in stage.rest],
            [variable.value for variable in self._optimizer_variables()],
            self._averages,
        )
        # Those of batches before are through.
        ids = partial(batches.example_ids, 1)
        try:
            with explain_broken_images(batches.host_batches.source, ids):
                sums, norms = stage.train(now, batches, steps)
        finally:
            self._take(stage, stage.latest)
        self._norms = dict(zip(stage.norm_names, norms.tolist(), strict=True))
        return sums

    def _take(self, stage: Steps, new: State) -> None:
        """Leaves a state in the variables it belongs to."""
        variables = (*stage.trained, *stage.rest, *self._optimizer_variables())
        for variable, value in zip(
            variables, (*new.trained, *new.rest, *new.optimizer), strict=True
        ):
            variable.assign(value)
        self._averages = new.averages

    def gradient_norms(self) -> dict[str, float]:
        return self._norms

    def _stage(self, frozen: bool) -> Steps:
        """Returns the compiled steps of a stage; those of the first one leave the body alone."""
        assert self.steps is not None  # built to train
        if not self._staged:
            return self.steps
        # What is trainable is asked when steps are made, and when they are traced.
        freeze(self.model, self.config.model.freeze, frozen)
        if not frozen:
            return self.steps
        if self._frozen_steps is None:
            self._frozen_steps = self._make_steps()
            self._frozen_steps.teacher = self.steps.teacher
        return self._frozen_steps

    def evaluation_batches(self, source: Any) -> DeviceBatches:
        # Tracing the pipeline takes seconds, so every evaluation of a source uses the same one.
        if self._evaluation_data is None or self._evaluation_data[0].source is not source:
            batches = batches_to_evaluate(self.config, source, self.model.preprocessing)
            with explain_broken_images(source):
                self._evaluation_data = batches, part_of_host(batches)
        batches, dataset = self._evaluation_data
        return DeviceBatches(batches, self.mesh, dataset=dataset)

    def evaluate(self, batches: DeviceBatches, steps: int, every: int = 1) -> Evaluated:
        weights = [variable.value for variable in self.model.variables]
        with explain_broken_images(batches.host_batches.source, partial(batches.example_ids, 1)):
            return self.evaluations.run(weights, batches, steps, every)

    # ---- State --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        if not self._averages:
            yield
            return
        kept = [variable.value for variable in self._averaged]
        try:
            self._assign_averaged(self._averages)
            yield
        finally:
            self._assign_averaged(kept)

    def _assign_averaged(self, values: Sequence[Any]) -> None:
        for variable, value in zip(self._averaged, values, strict=True):
            variable.assign(value)

    def inference_weights(self) -> list[np.ndarray]:
        with self.averaged_weights():
            return [np.asarray(value) for value in self.model.get_weights()]

    def checkpoints(self, folder: Path, say: Say) -> Checkpoints:
        return Checkpoints(
            folder,
            self.state,
            self.load_state,
            engine="jax",
            trains=self.optimizer is not None,
            keep=self.config.checkpoint.keep,
            writes=self.is_chief,
            say=say,
        )

    def state(self) -> dict[str, np.ndarray]:
        return state.arrays_of(self._variables())

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        variables = self._variables()
        state.check_state(variables, arrays)
        averages = []
        for name, variable in variables.items():
            value = self._everywhere(state.fitting(name, variable, arrays[name]))
            if name in self._average_names:
                averages.append(value)
            else:
                variable.assign(value)
        self._averages = averages

    def _variables(self) -> dict[str, Any]:
        averages = dict(zip(self._average_names, self._averages, strict=True))
        return state.named_variables(self.model, self.optimizer, averages)

    # ---- Processes and the profiler -----------------------------------------------------------

    def mean(self, value: float) -> float:
        return processes.mean(value)

    def any_host(self, value: bool) -> bool:
        return processes.any_process(value)

    def hosts_that_differ(self, digest: bytes) -> list[str]:
        return processes.that_differ(digest)

    def wait_for_hosts(self) -> None:
        processes.wait_for_all()

    def explain_lost_hosts(self) -> contextlib.AbstractContextManager:
        return processes.explain_lost_processes()

    def start_profile(self, folder: Path) -> None:
        jax.profiler.start_trace(str(folder))
        self._profiles = True

    def stop_profile(self) -> None:
        if self._profiles:
            self._profiles = False
            jax.profiler.stop_trace()
