"""The trainer: model, optimiser and data of one experiment, under one `tf.distribute` strategy."""

import contextlib
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

import input_pipeline
from input_pipeline.augment import check_augment, check_batch
from keras_resnet.config import preprocessing
from keras_resnet.errors import UsageError
from keras_resnet.training import metrics
from keras_resnet.training.accumulation import split_batches
from keras_resnet.training.cluster import naming_lost_hosts
from keras_resnet.training.ema import WeightAverage
from keras_resnet.training.optimizers import make_optimizer
from keras_resnet.training.schedules import make_schedule
from keras_resnet.training.steps import Steps


class Trainer:
    """Trains and evaluates the network of a config.

    Epochs need not be whole numbers of steps: batches run across their borders, so that every
    example is seen once an epoch. Only the last partial batch of the run is left out.

    Args:
      config: a checked config (`keras_resnet.config.check`).
      strategy: where to run.
      class_names: one for each output of the network.
      train_examples: size of the training split; 0 builds for evaluation, without an optimiser.
    """

    def __init__(
        self,
        config: ConfigDict,
        strategy: tf.distribute.Strategy,
        class_names: list[str],
        train_examples: int = 0,
    ):
        self.config, self.strategy = config, strategy
        self.train_examples = train_examples
        self.total_steps = self.step_at_epoch(config.epochs)
        if train_examples and not self.total_steps:
            raise UsageError(
                f"config.batch_size={config.batch_size} is more than the {train_examples} training "
                f"examples of {config.epochs} epochs: not one step to train"
            )
        self._check(len(class_names))
        # Data ops must not land on the accelerator, so only what holds variables is in the scope.
        keras.utils.set_random_seed(config.seed)
        with strategy.scope():
            self.model = build_model(config, class_names)
            self.optimizer = self._build_optimizer() if train_examples else None
            self.average = None
            if config.ema.decay:
                self.average = WeightAverage(self.model, config.ema.decay, config.ema.warmup)
        self.steps = Steps(self.model, self.optimizer, strategy, config, self.average)

    def _check(self, classes: int) -> None:
        """Raises UsageError where config, replicas and data do not fit each other."""
        config, replicas = self.config, self.strategy.num_replicas_in_sync
        parts = config.accumulate_steps if self.train_examples else 1
        if config.batch_size % (replicas * parts):
            size = replicas * parts
            times = f" times config.accumulate_steps={parts}" if parts > 1 else ""
            raise UsageError(
                f"config.batch_size={config.batch_size} does not divide by {replicas} replicas"
                f"{times}; take {max(config.batch_size // size, 1) * size}"
            )
        if self.train_examples:
            augment = check_augment(config.data.augment.to_dict())
            check_batch(augment, config.batch_size // replicas // parts)
        if config.precision == "mixed_float16" and replicas > 1:
            raise UsageError(
                f"config.precision='mixed_float16' on {replicas} replicas: Keras' loss scaling "
                "looks at the gradients of the first replica only, an overflow on another one "
                "would reach the weights; take mixed_bfloat16, or one replica"
            )
        weights = config.loss.class_weights
        if weights and len(weights) != classes:
            raise UsageError(
                f"config.loss.class_weights has {len(weights)} numbers, but the data has {classes} "
                "classes; give one for each, in the order of the class names"
            )

    def _build_optimizer(self) -> keras.optimizers.Optimizer:
        self.schedule = make_schedule(
            self.config,
            steps_per_epoch=self.train_examples / self.config.batch_size,
            total_steps=self.total_steps,
        )
        return make_optimizer(self.config, self.schedule, self.model)

    def trackables(self) -> dict[str, tf.__internal__.tracking.Trackable]:
        """Returns all state that a checkpoint must hold, by name.

        Built for evaluation (no `train_examples`), it holds what inference needs and no optimiser.
        """
        state = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        return {name: value for name, value in state.items() if value is not None}

    def step_at_epoch(self, epoch: int) -> int:
        """Returns the number of whole batches in the first `epoch` epochs."""
        return self.train_examples * epoch // self.config.batch_size

    def epoch_at_step(self, step: int) -> float:
        """Returns how many times the training split has been seen after `step` steps."""
        return step * self.config.batch_size / self.train_examples

    def train(
        self, source: input_pipeline.Source, start_step: int, stops: list[int]
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Trains from `start_step` on; yields (step, averages since the last yield) often.

        A yield comes at least every `log_every_steps` steps and exactly at every step in `stops`.
        `averages` holds loss, top1, top5, examples and seconds, and as "non_finite_step" the first
        step (counted from 0) whose loss was no finite number, or None.

        Raises:
          input_pipeline.DataError: an example cannot be read; names it.
          UserError: another host of a multi_worker run went away; names it.
        """
        stops = sorted({*stops, self.total_steps})
        augment = self.config.data.augment.to_dict()
        with naming_lost_hosts(), naming_broken_images(source):
            iterator = self._iterate(
                input_pipeline.train_batches,
                source,
                parts=self.config.accumulate_steps,
                seed=self.config.seed,
                start_step=start_step,
                num_steps=self.total_steps,
                image_size=self.config.data.image_size,
                augment=augment,
            )
            step = start_step
            while step < self.total_steps:
                stop = next(stop for stop in stops if stop > step)
                count = min(self.config.log_every_steps, stop - step)
                begin = time.perf_counter()
                sums = self.steps.train(iterator, tf.constant(count)).numpy()
                seconds = time.perf_counter() - begin
                broken = metrics.first_non_finite(sums)
                means = {
                    **metrics.averages(sums),
                    "seconds": seconds,
                    "non_finite_step": None if broken is None else step + broken,
                }
                step += count
                yield step, means

    def evaluate(self, source: input_pipeline.Source) -> dict[str, float]:
        """Returns loss, top1, top5 and examples over every example of `source`, each counted once.

        With `ema.decay` of the averaged weights; the loss is without class weights. Afterwards
        `labels_and_predictions` holds int32[examples, 2], from which `confusion_matrix` and
        `per_class_accuracy` count.

        Raises:
          input_pipeline.DataError: an example cannot be read; names it.
        """
        with naming_lost_hosts(), naming_broken_images(source), self.averaged_weights():
            iterator = self._iterate(
                input_pipeline.evaluation_batches, source, preprocessing=self.model.preprocessing
            )
            batches = -(-source.num_examples // self.config.batch_size)
            sums, pairs = self.steps.evaluate(iterator, tf.constant(batches))
        pairs = pairs.numpy()
        self.labels_and_predictions = pairs[pairs[:, 0] >= 0]
        return metrics.averages(sums.numpy())

    def confusion_matrix(self) -> np.ndarray:
        """Returns int64[classes, classes] of the last evaluation: row the label, column the guess.

        Exact whatever the batch size and the number of replicas; 8 MB for 1,000 classes.
        """
        return metrics.confusion_matrix(self.labels_and_predictions, len(self.model.class_names))

    def per_class_accuracy(self) -> np.ndarray:
        """Returns the top-1 accuracy of each class in the last evaluation, NaN without examples."""
        return metrics.per_class_accuracy(self.labels_and_predictions, len(self.model.class_names))

    def _iterate(
        self, make_batches: Callable[..., tf.data.Dataset], source, parts: int = 1, **options
    ):
        """Returns an iterator that hands each replica its part of the global batch, in order.

        With `parts` above 1 that many elements make up the replica's part, one after the other.
        """
        size = self.config.batch_size

        def batches_of_host(context: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = make_batches(
                source,
                batch_size=size,
                shard_index=context.input_pipeline_id,
                num_shards=context.num_input_pipelines,
                **options,
            )
            replicas = context.num_replicas_in_sync // context.num_input_pipelines
            return split_batches(batches, replicas, parts)

        return iter(self.strategy.distribute_datasets_from_function(batches_of_host))

    def averaged_weights(self) -> contextlib.AbstractContextManager:
        """Returns a context in which the model has the weights to infer with.

        The averaged ones with `ema.decay`, else those that it has.
        """
        return self.average.in_model() if self.average else contextlib.nullcontext()

    def inference_model(self) -> keras.Model:
        """Returns the network with the trained weights on plain variables, giving probabilities.

        In float32 and outside the strategy, so that it saves and loads anywhere; with `ema.decay`
        the weights are the averaged ones.
        """
        model = build_model(
            self.config,
            self.model.class_names,
            precision="float32",
            classifier_activation="softmax",
        )
        with self.averaged_weights():
            weights = self.model.get_weights()
        model.set_weights([keras.ops.convert_to_numpy(value) for value in weights])
        return model


def build_model(
    config: ConfigDict,
    class_names: list[str],
    precision: str | None = None,
    classifier_activation: str | None = None,
) -> keras.Model:
    """Returns the network of `model.*` with random weights; by default it gives logits.

    Its `preprocessing` (from `data.*`) and `class_names` are what evaluation, prediction and saved
    models use.
    """
    from keras_resnet.models import create_model

    data = config.data
    # None and () mean: as the variant has it.
    options = {key: value for key, value in config.model.items() if value not in (None, ())}
    options["norm"] = {"synchronized": options.pop("synchronized_norm")}
    model = create_model(
        options.pop("name"),
        input_shape=(data.image_size, data.image_size, 3),
        classes=len(class_names),
        classifier_activation=classifier_activation,
        dtype=precision or config.precision,
        **options,
    )
    model.class_names = list(class_names)
    model.preprocessing = preprocessing(config)
    return model


class naming_broken_images:
    """Turns TensorFlow's error about an unreadable example into a DataError with its name."""

    def __init__(self, source: input_pipeline.Source):
        self.source = source

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        failures = (
            tf.errors.InvalidArgumentError,
            tf.errors.NotFoundError,
            tf.errors.DataLossError,
        )
        if isinstance(error, failures):
            named = input_pipeline.find_broken_image(self.source)
            if named is not None:
                raise named from error
        return False
