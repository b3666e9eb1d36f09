"""The trainer: model, optimizer and data of one experiment, under one `tf.distribute` strategy."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet import input_pipeline
from keras_resnet.config import training_image_size
from keras_resnet.errors import UsageError
from keras_resnet.input_pipeline.augment import check_augment, check_batch
from keras_resnet.training import metrics
from keras_resnet.training.finetuning import freeze, load_pretrained
from keras_resnet.training.network import build_model
from keras_resnet.training.optimizers import make_optimizer
from keras_resnet.training.schedules import make_schedule
from keras_resnet.training.tensorflow.broken_images import explain_broken_images
from keras_resnet.training.tensorflow.ema import WeightAverage
from keras_resnet.training.tensorflow.host_batches import ConstantBatches, HostBatches
from keras_resnet.training.tensorflow.pace import Pace
from keras_resnet.training.tensorflow.steps import Steps
from keras_resnet.weights import Checkpoint


class Trainer:
    """Trains and evaluates the network of a config.

    Epochs need not be whole numbers of steps: batches run across their borders, so that every
    example is seen once an epoch. Only the last partial batch of the run is left out.

    Args:
        config: a checked config (`keras_resnet.config.check`).
        strategy: where to run.
        class_names: one for each output of the network.
        train_examples: size of the training split; 0 builds for evaluation, without an optimizer.
        weights: to start from instead of random ones (`finetuning.read_pretrained`).
    """

    def __init__(
        self,
        config: ConfigDict,
        strategy: tf.distribute.Strategy,
        class_names: list[str],
        train_examples: int = 0,
        weights: Checkpoint | None = None,
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
            if weights is not None:
                load_pretrained(self.model, weights, config)
            freeze(self.model, config.model.freeze)
            self.optimizer = self._build_optimizer() if train_examples else None
            self.average = None
            if config.ema.decay:
                self.average = WeightAverage(self.model, config.ema.decay, config.ema.warmup)
        self.steps = Steps(self.model, self.optimizer, strategy, config, self.average)
        self.labels_and_predictions = None  # of the last evaluation
        self._evaluation_data = None
        self._train_pace, self._evaluation_pace = Pace(strategy), Pace(strategy)

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

        Built for evaluation (no `train_examples`), it holds what inference needs and no optimizer.
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
        self,
        source: input_pipeline.Source,
        start_step: int,
        stops: list[int],
        *,
        skipped: int = 0,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """Trains from `start_step` on; yields (step, averages since the last yield) often.

        A yield comes at every multiple of `log_every_steps`, at every step in `stops`, at the first
        step, where a non-finite loss shows, and where `should_stop` asks for the end, after which
        nothing comes. `averages` holds loss, top1, top5, examples and seconds, and as
        "non_finite_step" the first step (counted from 0) whose loss was no finite number, or None.

        Args:
            source: what to train on.
            start_step: steps done before.
            stops: steps after which a yield must come.
            skipped: step t trains on batch t + skipped.
            should_stop: asked after each call of the compiled loop, every two seconds or so.

        Raises:
            input_pipeline.DataError: an example cannot be read; names it.
        """
        log = self.config.log_every_steps
        stops = sorted({*stops, start_step + 1, self.total_steps})
        options = {
            "seed": self.config.seed,
            "start_step": start_step + skipped,
            "num_steps": self.total_steps + skipped,
            "image_size": training_image_size(self.config),
            "augment": self.config.data.augment.to_dict(),
        }
        batches = self._host_batches(
            input_pipeline.train_batches, source, self.config.accumulate_steps, **options
        )
        with explain_broken_images(source) as search:
            iterator = iter(self._distribute(batches))
            step, ended = start_step, False
            while step < self.total_steps and not ended:
                stop = next(stop for stop in stops if stop > step)
                stop = min(stop, (step // log + 1) * log)
                first, rows, seconds, broken = step, [], 0.0, None
                while step < stop and broken is None and not ended:
                    count = self._train_pace.steps(stop - step)
                    search.handles = partial(batches.handles, step + skipped, count)
                    sums, elapsed = self._train_pace.time(
                        self.steps.train, iterator, tf.constant(count)
                    )
                    rows.append(sums)
                    seconds += elapsed
                    step += len(sums)
                    broken = metrics.first_non_finite(np.concatenate(rows))
                    ended = should_stop()
                means = {
                    **metrics.averages(np.concatenate(rows)),
                    "seconds": seconds,
                    "non_finite_step": None if broken is None else first + broken,
                }
                yield step, means

    def evaluate(
        self, source: input_pipeline.Source, should_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Returns loss, top1, top5 and examples over every example of `source`, each counted once.

        With `ema.decay` of the averaged weights; the loss is without class weights. Afterwards
        `labels_and_predictions` holds int32[examples, 2], from which `confusion_matrix` and
        `per_class_accuracy` count. Returns None if `should_stop`, asked every two seconds or so,
        ended it before the last batch.

        Raises:
            input_pipeline.DataError: an example cannot be read; names it.
        """
        total, done = -(-source.num_examples // self.config.batch_size), 0
        rows, pairs = [], []
        with explain_broken_images(source) as search, self.averaged_weights():
            # Tracing the pipeline takes seconds, so every evaluation of a source uses the same one.
            if self._evaluation_data is None or self._evaluation_data[0].source is not source:
                batches = self._host_batches(
                    input_pipeline.evaluation_batches,
                    source,
                    preprocessing=self.model.preprocessing,
                )
                self._evaluation_data = batches, self._distribute(batches)
            batches, data = self._evaluation_data
            iterator = iter(data)
            while done < total:
                if rows and should_stop():
                    return None
                count = self._evaluation_pace.steps(total - done)
                search.handles = partial(batches.handles, done, count)
                (sums, part), _ = self._evaluation_pace.time(
                    self.steps.evaluate, iterator, tf.constant(count)
                )
                rows.append(sums)
                pairs.append(part)
                done += len(sums)
        pairs = np.concatenate(pairs)
        self.labels_and_predictions = pairs[pairs[:, 0] >= 0]
        return metrics.averages(np.concatenate(rows))

    def confusion_matrix(self) -> np.ndarray:
        """Returns int64[classes, classes] of the last evaluation: row the label, column the guess.

        Exact whatever the batch size and the number of replicas; 8 MB for 1,000 classes.
        """
        return metrics.confusion_matrix(self.labels_and_predictions, len(self.model.class_names))

    def per_class_accuracy(self) -> np.ndarray:
        """Returns the top-1 accuracy of each class in the last evaluation, NaN without examples."""
        return metrics.per_class_accuracy(self.labels_and_predictions, len(self.model.class_names))

    def iterate(
        self, make_batches: Callable[..., tf.data.Dataset], source, parts: int = 1, **options
    ):
        """Returns an iterator that hands each replica its part of the global batch, in order.

        With `parts` above 1 that many elements make up the replica's part, one after the other.
        """
        batches = self._host_batches(make_batches, source, parts, **options)
        return iter(self._distribute(batches))

    def _host_batches(self, make_batches, source, parts: int = 1, **options) -> HostBatches:
        return HostBatches(make_batches, source, self.config.batch_size, parts, options)

    def _distribute(self, batches: HostBatches):
        if batches.make_batches is input_pipeline.train_batches and batches.source.is_synthetic:
            size = batches.batch_size // batches.parts
            return ConstantBatches(
                self.strategy, batches.source, size, batches.options["image_size"]
            )
        # The default options fetch the next batches to the devices while a step runs.
        return self.strategy.distribute_datasets_from_function(batches)

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
