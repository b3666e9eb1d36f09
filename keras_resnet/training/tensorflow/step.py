"""What one replica computes in a step, and the compiled loops that call it many times.

The loop is our own because Keras' `fit` does not survive tf.distribute (docs/training.md says
where).
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet import input_pipeline
from keras_resnet.backend import cpu_multiplies_bfloat16
from keras_resnet.errors import UsageError
from keras_resnet.flips import answer_with_flips
from keras_resnet.fused import form_for, training_as
from keras_resnet.layers import (
    average_moving_statistics,
    defer_moving_statistics,
    is_compiled_for_tpu,
)
from keras_resnet.training import mixing
from keras_resnet.training.counting import Counting, counting_of, with_sum_of
from keras_resnet.training.distillation import TeacherNetwork, distill
from keras_resnet.training.engine import Evaluated
from keras_resnet.training.losses import example_losses, example_weights
from keras_resnet.training.metrics import DISTILLATION
from keras_resnet.training.tensorflow import hosts
from keras_resnet.training.tensorflow.ema import WeightAverage
from keras_resnet.training.tensorflow.gradient_norms import GradientNorms
from keras_resnet.training.tensorflow.strategy import device_kind

# Only the loops below need AutoGraph; it would go on through the model and take seconds.
without_autograph = tf.autograph.experimental.do_not_convert


def use_xla(choice: str, strategy: tf.distribute.Strategy, synchronized_norm: bool = False) -> bool:
    """Says whether our own functions are compiled with XLA.

    TPUStrategy compiles `strategy.run` by itself. On CPU oneDNN's graph is about twice as fast as
    XLA (measured, ResNet-50), so "auto" leaves it off there.

    Args:
        choice: auto, on or off.
        strategy: where it will run.
        synchronized_norm: the model's batch normalizations need the other replicas.

    Raises:
        UsageError: "on" for what cannot be compiled.
    """
    kind = device_kind(strategy)
    if kind == "TPU":
        return False
    if synchronized_norm and strategy.num_replicas_in_sync > 1:
        if choice == "on":
            raise UsageError(
                "config.xla='on' with config.model.synchronized_norm=True on "
                f"{strategy.num_replicas_in_sync} replicas: no collective runs inside a function "
                "compiled per replica; take xla=off or synchronized_norm=False"
            )
        return False
    return kind == "GPU" if choice == "auto" else choice == "on"


def kind_of_form(strategy: tf.distribute.Strategy, config: ConfigDict) -> str:
    """Returns the device as `fused.form_for` names it; all hosts call it at the same place."""
    kind = "TPU" if is_compiled_for_tpu() else device_kind(strategy)
    # "always" does not ask for the instructions, and with XLA the form was never measured.
    if kind != "CPU" or config.fused_step != "auto" or use_xla(config.xla, strategy):
        return kind
    # On all hosts or none: sums over replicas are others in another form.
    return "AMX" if hosts.mean(strategy, float(cpu_multiplies_bfloat16())) == 1.0 else "CPU"


class Steps:
    """The compiled training and evaluation loops of one model.

    Args:
        model: maps normalized float images [b, h, w, 3] to logits [b, classes].
        optimizer: a Keras optimizer, built for the model's trainable variables; None evaluates
            only.
        strategy: where it runs; model and optimizer were created in its scope.
        config: reads `batch_size`, `accumulate_steps`, `xla`, `loss`, `data.multi_label`,
            `evaluation.tta`, `model.synchronized_norm` and `log_gradient_norms`; with a teacher
            `distill`.
        average: the moving average of the weights that training updates, if any.
        class_weights: of the loss, one for each class; () for none. With `data.multi_label` they
            are factors of the loss of its yes, else of the examples that have it as their label.

    Attributes:
        norms: of the gradients of what trains, in the last step of each call; None without them.
        form: in which the network trains (`keras_resnet.fused`).
        teacher: that the network learns from; to be set before the first step, if there is one.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer | None,
        strategy: tf.distribute.Strategy,
        config: ConfigDict,
        average: WeightAverage | None = None,
        class_weights: Sequence[float] = (),
    ):
        self.model, self.strategy, self.config = model, strategy, config
        self.optimizer: Any = optimizer  # None is never asked to train
        self.average, self.class_weights = average, tuple(class_weights)
        classes = model.outputs[0].shape[-1]
        self.counting: Counting = counting_of(config.data.multi_label, classes)
        self.teacher: TeacherNetwork | None = None
        # What is trainable is asked here and when it is traced.
        self.form = None
        if optimizer is not None:
            kind = kind_of_form(strategy, config)
            self.form = form_for(model, config.fused_step, kind, "tensorflow")
        self._forward_backward = self.forward_backward
        self._train_step, self._accumulate_step = self.train_step, self.accumulate_step
        self._update_step = self.update_step
        self._averages_late = False
        logs_norms = config.log_gradient_norms == "on" or (
            config.log_gradient_norms == "auto" and device_kind(strategy) == "CPU"
        )
        self.norms: GradientNorms | None = None
        if optimizer is not None and logs_norms:
            self.norms = GradientNorms(optimizer, model.trainable_variables)
        self._gradients = self._make_gradient_sums() if config.accumulate_steps > 1 else []
        if use_xla(config.xla, strategy, config.model.synchronized_norm):
            compiled = functools.partial(tf.function, jit_compile=True, autograph=False)
            # With several replicas the update must stay outside: a collective cannot run inside a
            # function compiled per replica. With one, the whole step is one program.
            if strategy.num_replicas_in_sync > 1:
                self._averages_late = True
                defer_moving_statistics(model)
                self._forward_backward = compiled(self.forward_backward)
            else:
                self._train_step = compiled(self.train_step)
                self._accumulate_step = compiled(self.accumulate_step)
                self._update_step = compiled(self.update_step)

    @property
    def sums(self) -> tuple[str, ...]:
        """What a training step counts."""
        return (*self.counting.names, *([DISTILLATION] if self.teacher else []))

    def losses(self, labels: tf.Tensor, logits: tf.Tensor, mix: tf.Tensor | None = None):
        """Returns the loss of each example, float32 [b]: `losses.example_losses` of `loss.*`."""
        return example_losses(self.config.loss, labels, logits, mix)

    def forward_backward(self, images: tf.Tensor, labels: tf.Tensor, mix: tf.Tensor | None = None):
        """Returns (gradients of the loss over the global batch, SUMS over our own examples).

        With `mix` images and targets are mixed, and top1 and top5 ask for the label with the
        larger share.
        """
        if mix is not None:
            images = mixing.mix_images(images, mix)
        answers = self.teacher(images) if self.teacher else None
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            with training_as(self.model, self.form):
                logits = self.model(self._normalize(images), training=True)
            losses, of_teacher = self._weighted_losses(labels, logits, mix), None
            if answers is not None:
                losses, of_teacher = distill(self.config, losses, logits, answers)
            loss = tf.reduce_sum(losses) / self.config.batch_size
            loss = self.optimizer.scale_loss(loss)  # float16 only
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        if mix is not None:
            labels = mixing.major_labels(labels, mix)
        sums = self.counting.sums(losses, labels, logits)
        return gradients, sums if of_teacher is None else with_sum_of(sums, of_teacher)

    def _weighted_losses(self, labels: tf.Tensor, logits: tf.Tensor, mix: tf.Tensor | None):
        if self.config.data.multi_label:
            return example_losses(self.config.loss, labels, logits, mix, self.class_weights)
        losses = self.losses(labels, logits, mix)
        if self.class_weights:
            losses *= example_weights(self.class_weights, labels, mix)
        return losses

    @without_autograph
    def train_step(self, batch: dict[str, tf.Tensor], log_norms: tf.Tensor | None = None) -> Any:
        """One replica's part of a training step.

        Returns:
            SUMS over its examples, and where `log_norms` is given also what `GradientNorms.update`
            gives.
        """
        gradients, sums = self._forward_backward(batch["image"], batch["label"], batch.get("mix"))
        norms = self._update(gradients, log_norms)
        return sums if norms is None else (sums, norms)

    @without_autograph
    def accumulate_step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """Adds the gradients of one micro-batch; returns SUMS over its examples."""
        gradients, sums = self._forward_backward(batch["image"], batch["label"], batch.get("mix"))
        for total, gradient in zip(self._gradients, gradients, strict=True):
            total.assign_add(tf.cast(gradient, total.dtype))
        return sums

    @without_autograph
    def update_step(self, log_norms: tf.Tensor | None = None) -> Any:
        """One replica's part of the update with what `accumulate_step` has added up.

        Returns:
            Where `log_norms` is given what `GradientNorms.update` gives, else None.
        """
        norms = self._update([tf.identity(total) for total in self._gradients], log_norms)
        for total in self._gradients:
            total.assign(tf.zeros_like(total))
        return norms

    def _update(self, gradients: list, log_norms: tf.Tensor | None) -> Any:
        norms = None
        # Keras' apply sums the gradients over the replicas.
        if self.norms is None or log_norms is None:
            self.optimizer.apply(gradients, self.model.trainable_variables)
        else:
            norms = self.norms.update(gradients, log_norms)
        if self.average is not None:
            self.average.update(self.optimizer.iterations)
        return norms

    def _make_gradient_sums(self) -> list[tf.Variable]:
        # Zero between steps, so no checkpoint needs them. Each replica adds up its own.
        with self.strategy.scope():
            return [
                tf.Variable(
                    tf.zeros(variable.shape, variable.dtype),
                    trainable=False,
                    synchronization=tf.VariableSynchronization.ON_READ,
                    aggregation=tf.VariableAggregation.SUM,
                )
                for variable in self.model.trainable_variables
            ]

    @without_autograph
    def evaluate_step(self, batch: dict[str, tf.Tensor], every: int = 1) -> Evaluated:
        """One replica's part of an evaluation step: of its own examples what `Evaluated` says.

        Args:
            batch: image, label and mask.
            every: which examples' logits are kept: 1 for all, 2 for every second one.
        """
        logits = answer_with_flips(
            functools.partial(self.model, training=False),
            self._normalize(batch["image"]),
            self.config.evaluation.tta,
            self.config.data.multi_label,
        )
        losses, counting = self.losses(batch["label"], logits), self.counting
        rows = counting.rows(batch["label"], logits, batch["mask"])
        return Evaluated(
            sums=counting.sums(losses, batch["label"], logits, batch["mask"]),
            rows=rows,
            logits=tf.cast(logits, tf.float32)[::every],
            logit_rows=rows[::every],
        )

    @tf.function
    def train_loop(self, iterator, steps: tf.Tensor) -> tf.Tensor:
        """Runs `steps` training steps on the next batches; returns SUMS of each, [steps, 4].

        With `accumulate_steps` the iterator gives that many micro-batches of each, one by one.
        """
        rows = tf.TensorArray(tf.float32, size=steps, element_shape=[len(self.sums)])
        for index in tf.range(steps):
            # A tensor, so that nothing is traced again; () where no norms are logged.
            is_last = () if self.norms is None else (index == steps - 1,)
            if self._gradients:
                sums = tf.zeros(len(self.sums))
                for _ in tf.range(self.config.accumulate_steps):
                    counted = self.strategy.run(self._accumulate_step, args=(next(iterator),))
                    sums += self.strategy.reduce("SUM", counted, axis=None)
                self._keep_norms(self.strategy.run(self._update_step, args=is_last))
            else:
                found = self.strategy.run(self._train_step, args=(next(iterator), *is_last))
                if self.norms is not None:
                    found, of_blocks = found
                    self._keep_norms(of_blocks)
                sums = self.strategy.reduce("SUM", found, axis=None)
            rows = rows.write(index, sums)
        if self._averages_late:  # before anybody reads them
            followers = self.average.moving_statistics() if self.average else []
            average_moving_statistics(self.model, followers)
        return rows.stack()

    @tf.function
    def evaluation_loop(self, iterator, steps: tf.Tensor, every: int = 1) -> Evaluated:
        """Evaluates the next `steps` batches; `every` is that of `evaluate_step`."""
        dtype, names = tf.as_dtype(self.counting.row_dtype), self.counting.names
        of_examples, classes = [None, *self.counting.row_shape], self.model.output.shape[-1]
        shapes = Evaluated([len(names)], of_examples, [None, classes], of_examples)
        kinds = Evaluated(tf.float32, dtype, tf.float32, dtype)
        arrays = [
            tf.TensorArray(kind, size=steps, element_shape=shape)
            for kind, shape in zip(kinds, shapes, strict=True)
        ]
        for index in tf.range(steps):
            found = self.strategy.run(self.evaluate_step, args=(next(iterator), every))
            sums = self.strategy.reduce("SUM", found.sums, axis=None)
            rows = [sums, *(self.strategy.gather(part, axis=0) for part in found[1:])]
            arrays = [array.write(index, row) for array, row in zip(arrays, rows, strict=True)]
        return Evaluated(arrays[0].stack(), *(array.concat() for array in arrays[1:]))

    @without_autograph
    def _keep_norms(self, of_blocks: Any) -> None:
        """Keeps what `GradientNorms.update` gave on each replica; those of one are those of all."""
        if self.norms is not None:
            self.norms.last.assign(self.strategy.experimental_local_results(of_blocks)[0])

    def _normalize(self, images: tf.Tensor) -> tf.Tensor:
        dtype = self.model.compute_dtype
        return input_pipeline.normalize(images, self.model.preprocessing, dtype=dtype)
