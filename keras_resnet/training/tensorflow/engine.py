"""The TensorFlow engine: model, optimizer and data of one run, under a `tf.distribute` strategy."""

import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet import storage, tpu_chips
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
from keras_resnet.training.network import build_model
from keras_resnet.training.optimizers import make_optimizer
from keras_resnet.training.say import Say, say
from keras_resnet.training.tensorflow import hosts
from keras_resnet.training.tensorflow.batches import (
    ConstantBatches,
    DistributedBatches,
    of_replicas,
)
from keras_resnet.training.tensorflow.cluster import explain_lost_hosts
from keras_resnet.training.tensorflow.ema import WeightAverage
from keras_resnet.training.tensorflow.older_checkpoints import OlderCheckpoints
from keras_resnet.training.tensorflow.precision import is_native_everywhere, resolve_precision
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.tensorflow.strategy import (
    check_pod,
    check_told_as_tensorflow_is,
    describe,
    is_chief,
    strategy_of,
)
from keras_resnet.weights import Checkpoint


class TensorFlowEngine(Engine):
    """Trains and evaluates the network of a config; `Engine` says what each method does.

    Args:
        config: a checked config (`keras_resnet.config.check`).
        strategy: where to run, instead of the config's.
    """

    def __init__(self, config: ConfigDict, strategy: tf.distribute.Strategy | None = None):
        self.strategy = strategy_of(config) if strategy is None else strategy
        self.config = resolve_precision(config, self.strategy)
        self.description = describe(self.strategy)
        self.is_chief = is_chief(self.strategy)
        self.several_hosts = hosts.several_hosts(self.strategy)
        self._links = contextlib.ExitStack()  # to where the profiler writes, until it has

    @staticmethod
    def check(config: ConfigDict, workdir: str | os.PathLike) -> None:
        tpu_chips.refuse_idle(config.strategy)
        check_pod(config, workdir)
        check_told_as_tensorflow_is(config, workdir)

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
        replicas = self.strategy.num_replicas_in_sync
        check_fit(config, replicas, len(class_names), trains, class_weights)
        if config.deterministic and trains:
            tf.config.experimental.enable_op_determinism()
        # Data ops must not land on the accelerator, so only what holds variables is in the scope.
        keras.utils.set_random_seed(config.seed)
        with self.strategy.scope():
            self.model = build_model(config, list(class_names))
            if weights is not None:
                load_pretrained(self.model, weights, config, say)
            # What is unfrozen later has its part in the optimizer and the averages from the start.
            self._staged = bool(config.model.unfreeze_epoch)
            if not self._staged:
                freeze(self.model, config.model.freeze)
            self.optimizer = make_optimizer(config, schedule, self.model) if trains else None
            self.average = None
            if config.ema.decay:
                self.average = WeightAverage(self.model, config.ema.decay, config.ema.warmup)
        self._make_steps = partial(
            Steps, self.model, self.optimizer, self.strategy, config, self.average, class_weights
        )
        self.steps = self._make_steps()
        self._frozen_steps: Steps | None = None
        self._trained: Steps | None = None  # by which of them it was trained last
        self._evaluation_data: tuple[HostBatches, Any] | None = None
        self._constant: dict[int, ConstantBatches] = {}

    def multiplies_bfloat16(self) -> bool:
        return is_native_everywhere(self.strategy)

    def teach(self, teacher: Teacher) -> None:
        with self.strategy.scope():
            self.steps.teacher = TeacherNetwork(teacher)

    # ---- Training and evaluation --------------------------------------------------------------

    def train_batches(
        self, source: Any, first: int, end: int, image_size: int | None = None
    ) -> DistributedBatches:
        batches = batches_to_train_on(self.config, source, first, end, image_size)
        if source.is_synthetic:
            return DistributedBatches(batches, self._constant_batches(batches), first)
        with explain_broken_images(source):
            return DistributedBatches(batches, iter(self.distribute(batches)), first)

    def blank_batches(self, source: Any, image_size: int) -> DistributedBatches:
        if source.is_synthetic:
            return self.train_batches(source, 0, 1, image_size)
        batches = blank_batches(self.config, source, image_size)
        return DistributedBatches(batches, iter(self.distribute(batches)))

    def _constant_batches(self, batches: HostBatches) -> ConstantBatches:
        source, pixels = batches.source, batches.options["image_size"]
        found = self._constant.get(pixels)
        # The compiled loop knows each by its identity.
        if found is None or found.source is not source:
            size = batches.batch_size // batches.micro_batches
            found = ConstantBatches(self.strategy, source, size, pixels)
            self._constant[pixels] = found
        return found

    def train(self, batches: DistributedBatches, steps: int, frozen: bool = False) -> np.ndarray:
        ids, stage = partial(batches.example_ids, steps), self._stage(frozen)
        with explain_broken_images(batches.host_batches.source, ids):
            sums = stage.train_loop(batches.iterator, tf.constant(steps)).numpy()
        batches.position += steps
        self._trained = stage
        return sums

    def gradient_norms(self) -> dict[str, float]:
        norms = self._trained.norms if self._trained else None
        if norms is None:
            return {}
        return dict(zip(norms.names, norms.last.numpy().tolist(), strict=True))

    def _stage(self, frozen: bool) -> Steps:
        """Returns the compiled steps of a stage; those of the first one leave the body alone."""
        if not self._staged:
            return self.steps
        # What is trainable is asked when steps are made, and when their loop is traced.
        freeze(self.model, self.config.model.freeze, frozen)
        if not frozen:
            return self.steps
        if self._frozen_steps is None:
            self._frozen_steps = self._make_steps()
            self._frozen_steps.teacher = self.steps.teacher
        return self._frozen_steps

    def evaluation_batches(self, source: Any) -> DistributedBatches:
        # Tracing the pipeline takes seconds, so every evaluation of a source uses the same one.
        if self._evaluation_data is None or self._evaluation_data[0].source is not source:
            batches = batches_to_evaluate(self.config, source, self.model.preprocessing)
            with explain_broken_images(source):
                self._evaluation_data = batches, self.distribute(batches)
        batches, data = self._evaluation_data
        return DistributedBatches(batches, iter(data))

    def evaluate(self, batches: DistributedBatches, steps: int, every: int = 1) -> Evaluated:
        ids = partial(batches.example_ids, steps)
        with explain_broken_images(batches.host_batches.source, ids):
            found = self.steps.evaluation_loop(batches.iterator, tf.constant(steps), every)
            counted = Evaluated(*(values.numpy() for values in found))
        batches.position += steps
        return counted

    def distribute(self, batches: HostBatches) -> Any:
        """Returns the elements of `batches` for `strategy.run`, each replica with its own part."""
        # The default options fetch the next batches to the devices while a step runs.
        return self.strategy.distribute_datasets_from_function(partial(of_replicas, batches))

    # ---- State --------------------------------------------------------------------------------

    def averaged_weights(self) -> contextlib.AbstractContextManager:
        return self.average.in_model() if self.average else contextlib.nullcontext()

    def inference_weights(self) -> list[np.ndarray]:
        with self.averaged_weights():
            return [keras.ops.convert_to_numpy(value) for value in self.model.get_weights()]

    def checkpoints(self, folder: Path, say: Say) -> Checkpoints:
        parts = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        there = {name: part for name, part in parts.items() if part is not None}
        return Checkpoints(
            folder,
            self.state,
            self.load_state,
            engine="tensorflow",
            trains=self.optimizer is not None,
            keep=self.config.checkpoint.keep,
            writes=self.is_chief,
            say=say,
            older=OlderCheckpoints(there),
        )

    def state(self) -> dict[str, np.ndarray]:
        return state.arrays_of(self._variables())

    def load_state(self, arrays: dict[str, np.ndarray]) -> None:
        state.load(self._variables(), arrays)

    def _variables(self) -> dict[str, Any]:
        averages = self.average.named() if self.average else None
        return state.named_variables(self.model, self.optimizer, averages)

    # ---- Hosts and the profiler ---------------------------------------------------------------

    def mean(self, value: float) -> float:
        return hosts.mean(self.strategy, value)

    def any_host(self, value: bool) -> bool:
        return hosts.any_host(self.strategy, value)

    def hosts_that_differ(self, digest: bytes) -> list[str]:
        return hosts.hosts_that_differ(self.strategy, digest)

    def wait_for_hosts(self) -> None:
        hosts.wait_for_all(self.strategy)

    def explain_lost_hosts(self) -> contextlib.AbstractContextManager:
        return explain_lost_hosts()

    def start_profile(self, folder: Path) -> None:
        parent = self._links.enter_context(storage.plainly_named(folder.parent))
        tf.profiler.experimental.start(str(parent / folder.name))

    def stop_profile(self) -> None:
        # UnavailableError: it was never started.
        with self._links, contextlib.suppress(tf.errors.UnavailableError):
            tf.profiler.experimental.stop()
