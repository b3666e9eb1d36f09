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

from keras_resnet import input_pipeline, storage
from keras_resnet.config import training_image_size
from keras_resnet.errors import UsageError
from keras_resnet.input_pipeline.augment import check_augment, check_batch
from keras_resnet.training import state
from keras_resnet.training.checkpoints import Checkpoints
from keras_resnet.training.engine import Engine, Evaluated
from keras_resnet.training.finetuning import freeze, load_pretrained
from keras_resnet.training.network import build_model
from keras_resnet.training.optimizers import make_optimizer
from keras_resnet.training.say import Say, say
from keras_resnet.training.tensorflow import hosts
from keras_resnet.training.tensorflow.batches import (
    ConstantBatches,
    DistributedBatches,
    HostBatches,
)
from keras_resnet.training.tensorflow.broken_images import explain_broken_images
from keras_resnet.training.tensorflow.cluster import explain_lost_hosts
from keras_resnet.training.tensorflow.ema import WeightAverage
from keras_resnet.training.tensorflow.older_checkpoints import OlderCheckpoints
from keras_resnet.training.tensorflow.precision import resolve_precision
from keras_resnet.training.tensorflow.step import Steps
from keras_resnet.training.tensorflow.strategy import check_pod, describe, is_chief, strategy_of
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
        check_pod(config, workdir)

    def build(
        self,
        class_names: Sequence[str],
        schedule: Any = None,
        weights: Checkpoint | None = None,
        say: Callable[[str], None] = say,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        config, trains = self.config, schedule is not None
        if class_weights is None:
            balanced = config.loss.class_weights == "balanced"
            class_weights = () if balanced else config.loss.class_weights
        self._check(len(class_names), trains, class_weights)
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

    def _check(self, classes: int, trains: bool, weights: Sequence[float]) -> None:
        """Raises UsageError where config, replicas and data do not fit each other."""
        config, replicas = self.config, self.strategy.num_replicas_in_sync
        micro_batches = config.accumulate_steps if trains else 1
        if config.batch_size % (replicas * micro_batches):
            size = replicas * micro_batches
            times = f" times config.accumulate_steps={micro_batches}" if micro_batches > 1 else ""
            raise UsageError(
                f"config.batch_size={config.batch_size} does not divide by {replicas} replicas"
                f"{times}; take {max(config.batch_size // size, 1) * size}, or other devices "
                "(config.devices, config.strategy), which a run that was begun may change"
            )
        if trains:
            augment = check_augment(config.data.augment.to_dict())
            check_batch(augment, config.batch_size // replicas // micro_batches)
        if config.precision == "mixed_float16" and replicas > 1:
            raise UsageError(
                f"config.precision='mixed_float16' on {replicas} replicas: Keras' loss scaling "
                "looks at the gradients of the first replica only, an overflow on another one "
                "would reach the weights; take mixed_bfloat16, or one replica"
            )
        if weights and len(weights) != classes:
            raise UsageError(
                f"config.loss.class_weights has {len(weights)} numbers, but the data has {classes} "
                "classes; give one for each, in the order of the class names"
            )

    # ---- Training and evaluation --------------------------------------------------------------

    def train_batches(self, source: Any, first: int, end: int) -> DistributedBatches:
        batches = HostBatches(
            input_pipeline.train_batches,
            source,
            self.config.batch_size,
            self.config.accumulate_steps,
            options={
                "seed": self.config.seed,
                "start_step": first,
                "num_steps": end,
                "image_size": training_image_size(self.config),
                "augment": self.config.data.augment.to_dict(),
                "sampler": self.config.data.sampler,
            },
        )
        if source.is_synthetic:
            size = batches.batch_size // batches.micro_batches
            pixels = batches.options["image_size"]
            return DistributedBatches(
                batches, ConstantBatches(self.strategy, source, size, pixels), first
            )
        with explain_broken_images(source):
            return DistributedBatches(batches, iter(self.distribute(batches)), first)

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
        return self._frozen_steps

    def evaluation_batches(self, source: Any) -> DistributedBatches:
        # Tracing the pipeline takes seconds, so every evaluation of a source uses the same one.
        if self._evaluation_data is None or self._evaluation_data[0].source is not source:
            options = {"preprocessing": self.model.preprocessing}
            batches = HostBatches(
                input_pipeline.evaluation_batches, source, self.config.batch_size, 1, options
            )
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
        return self.strategy.distribute_datasets_from_function(batches)

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
