"""What one replica computes in a step, and the jitted programs over all of them.

A step is one `jax.jit` of a `jax.shard_map` over the mesh: each device normalizes by the statistics
of its own part of the batch, as under tf.distribute, and gradients, sums and moving statistics are
added up over the axis inside the program, where XLA can overlap that with computation. The state is
donated, so that no second copy of it lies on the devices.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.sharding import Mesh, NamedSharding
from keras.optimizers import LossScaleOptimizer
from ml_collections import ConfigDict

from keras_resnet.fused import form_for, training_as
from keras_resnet.layers.keras_internals import layers_within
from keras_resnet.training import mixing
from keras_resnet.training.counting import counting_of, with_sum_of
from keras_resnet.training.distillation import TeacherNetwork, distill
from keras_resnet.training.gradient_blocks import block_names, block_of, norms_of_blocks
from keras_resnet.training.jax.evaluation import IN_FLIGHT
from keras_resnet.training.jax.loss_scale import update_scaled
from keras_resnet.training.jax.mesh import AXIS, EVERYWHERE, device_kind, on_all, over_examples
from keras_resnet.training.jax.normalization import normalization_of
from keras_resnet.training.jax.sums import OVERLAP, sum_in_parts
from keras_resnet.training.losses import example_losses, example_weights
from keras_resnet.training.metrics import DISTILLATION


class State(NamedTuple):
    """The arrays that a training step takes and gives; each is the same on all devices.

    Attributes:
        trained: values of `model.trainable_variables`.
        rest: of `model.non_trainable_variables`, random state included.
        optimizer: of `optimizer.variables`.
        averages: moving averages of weights, of the variables that are averaged.
    """

    trained: list[Any]
    rest: list[Any]
    optimizer: list[Any]
    averages: list[Any]


class Steps:
    """The compiled training step of one model.

    Args:
        model: maps normalized float images [b, h, w, 3] to logits [b, classes].
        optimizer: a Keras optimizer, built for the model's trainable variables.
        mesh: of all devices, with the axis AXIS.
        config: reads `batch_size`, `accumulate_steps`, `loss`, `ema`, `data.multi_label` and
            `log_gradient_norms`; with a teacher `distill`.
        averaged: the variables of which moving averages are kept.
        rate: the variable of a learning rate that evaluations lower; None without one.
        class_weights: of the loss, one for each class; () for none. With `data.multi_label` they
            are factors of the loss of its yes, else of the examples that have it as their label.

    Attributes:
        trained, rest, averaged: the variables whose values `State` has.
        norm_names: of the blocks whose norms are given; [] without.
        form: in which the network trains (`keras_resnet.fused`).
        latest: the state after the last step of `train`.
        teacher: that the network learns from; to be set before the first step, if there is one.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: Any,
        mesh: Mesh,
        config: ConfigDict,
        averaged: Sequence[keras.Variable] = (),
        rate: keras.Variable | None = None,
        class_weights: Sequence[float] = (),
    ):
        self.model, self.optimizer, self.mesh, self.config = model, optimizer, mesh, config
        self.class_weights = tuple(class_weights)
        self.counting = counting_of(config.data.multi_label, model.outputs[0].shape[-1])
        self.teacher: TeacherNetwork | None = None
        self.trained = list(model.trainable_variables)
        self.rest = list(model.non_trainable_variables)
        self._rate = [] if rate is None else [rate]
        self._scaled = isinstance(optimizer, LossScaleOptimizer)
        moving = {id(variable) for variable in _moving_statistics(model)}
        self._moving = [id(variable) in moving for variable in self.rest]
        self.averaged = list(averaged)
        self._averaged = _places(averaged, self.trained, self.rest)
        self._normalize = normalization_of(model)
        # What is trainable is asked here and when it is traced.
        self.form = form_for(model, config.fused_step, device_kind(mesh), "jax")
        logs_norms = config.log_gradient_norms == "on" or (
            config.log_gradient_norms == "auto" and device_kind(mesh) == "CPU"
        )
        self._blocks = [block_of(variable.path) for variable in self.trained if logs_norms]
        self.norm_names = block_names(self._blocks)
        batch = over_examples(config.accumulate_steps)
        specs = (EVERYWHERE, EVERYWHERE, EVERYWHERE, batch, EVERYWHERE)
        options = OVERLAP.get(mesh.devices.flat[0].device_kind) if mesh.size > 1 else None
        self._train = on_all(
            self.mesh,
            self.train_step,
            specs,
            donate_argnums=0,
            compiler_options=options,
        )

    @property
    def sums(self) -> tuple[str, ...]:
        """What a training step counts."""
        return (*self.counting.names, *([DISTILLATION] if self.teacher else []))

    # ---- Training -----------------------------------------------------------------------------

    def train(
        self, state: State, batches: Iterator[Any], steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Runs `steps` training steps, which leave `latest`, also where one fails.

        Args:
            state: is gone afterwards.
            batches: gives the batch of each step.
            steps: how many.

        Returns:
            The sums of each step, float32[steps, len(sums)], and the norms of the last one.
        """
        self.latest = state
        counted: list[Any] = []
        norms: Any = np.zeros(0, np.float32)
        rate = [np.asarray(variable.value) for variable in self._rate]
        told = self._teacher_values()
        for index in range(steps):
            batch, is_last = next(batches), index == steps - 1
            self.latest, sums, norms = self._train(self.latest, rate, told, batch, is_last)
            counted.append(sums)
            if index >= IN_FLIGHT:
                counted[index - IN_FLIGHT].block_until_ready()
        return np.stack([np.asarray(sums) for sums in counted]), np.asarray(norms)

    def lower(self, batch: dict[str, Any]) -> Any:
        """Returns `jax.stages.Lowered` of the training step, of shapes alone.

        Args:
            batch: shape and dtype of each array of the global batch, as `jax.ShapeDtypeStruct`.
        """

        def placed(values: Any, sharding: NamedSharding) -> Any:
            return jax.tree.map(
                lambda value: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding),
                values,
            )

        groups: tuple = (self.trained, self.rest, self.optimizer.variables, [])
        values = ([variable.value for variable in group] for group in groups)
        state = State(*values)
        averages = [[*state.trained, *state.rest][place] for place in self._averaged]
        rate = [variable.value for variable in self._rate]
        everywhere = NamedSharding(self.mesh, EVERYWHERE)
        return self._train.lower(
            placed(state._replace(averages=averages), everywhere),
            placed(rate, everywhere),
            placed(self._teacher_values(), everywhere),
            placed(batch, NamedSharding(self.mesh, over_examples(self.config.accumulate_steps))),
            jax.ShapeDtypeStruct((), "bool", sharding=everywhere),
        )

    def _teacher_values(self) -> list:
        """The teacher's variables; an argument of the program, as constants would be part of it."""
        return [variable.value for variable in self.teacher.variables] if self.teacher else []

    def train_step(
        self, state: State, rate: list, told: list, batch: dict[str, Any], log_norms: Any
    ) -> Any:
        """One replica's part of a training step, of `accumulate_steps` parts of its batch.

        Args:
            state: of the run.
            rate: the learning rate that evaluations lower, or nothing.
            told: values of the teacher's variables.
            batch: image, label and perhaps mix.
            log_norms: whether norms are wanted.

        Returns:
            The new state, the sums over the global batch, float32[len(sums)], and the norm of the
            gradient of each of `norm_names`, zeros unless `log_norms`.
        """
        scale = self._loss_scale(state)
        if self.config.accumulate_steps > 1:
            gradients, sums, rest = self._accumulate(state, told, batch, scale)
        else:
            gradients, sums, rest = self._forward_backward(
                state.trained, state.rest, told, batch, scale
            )
        sums = jax.lax.psum(sums, AXIS)
        if self.mesh.size > 1:
            gradients = sum_in_parts(gradients, AXIS)
            rest = self._mean_statistics(rest)
        norms = self._norms(gradients, scale, log_norms)
        trained, optimizer = self._update(state, gradients, rate)
        averages = self._average(state.averages, trained, rest, optimizer)
        return State(trained, rest, optimizer, averages), sums, norms

    def _mean_statistics(self, rest: list) -> list:
        """Averages what moves apart, once for all layers; the random state advances alike."""
        moving = [value for value, moves in zip(rest, self._moving, strict=True) if moves]
        sums = iter(sum_in_parts(moving, AXIS))
        return [
            next(sums) / self.mesh.size if moves else value
            for value, moves in zip(rest, self._moving, strict=True)
        ]

    def _accumulate(self, state: State, told: list, batch: dict[str, Any], scale: Any) -> tuple:
        """Goes over the parts of a batch, one after the other; sums gradients and counts."""

        def part(carried, batch):
            gradients, sums, rest = carried
            added, counted, rest = self._forward_backward(state.trained, rest, told, batch, scale)
            gradients = [a + b.astype(a.dtype) for a, b in zip(gradients, added, strict=True)]
            return (gradients, sums + counted, rest), None

        zeros = [jnp.zeros_like(value) for value in state.trained]
        start = (zeros, jnp.zeros(len(self.sums)), state.rest)
        return jax.lax.scan(part, start, batch)[0]

    def _forward_backward(
        self, trained: list, rest: list, told: list, batch: dict, scale: Any
    ) -> tuple:
        """Returns gradients of the loss over the global batch, our sums, and the new `rest`.

        With numbers for mixing images and targets are mixed, and top1 and top5 ask for the label
        with the larger share.
        """
        images, labels, mix = batch["image"], batch["label"], batch.get("mix")
        if mix is not None:
            images = mixing.mix_images(images, mix)
        answers = self._answers(images, told)
        images = self._normalize(images)

        def loss_of(trained):
            with training_as(self.model, self.form):
                logits, new_rest = self.model.stateless_call(trained, rest, images, training=True)
            losses, of_teacher = self._weighted_losses(labels, logits, mix), None
            if answers is not None:
                losses, of_teacher = distill(self.config, losses, logits, answers)
            loss = jnp.sum(losses) / self.config.batch_size * scale
            return loss, (losses, of_teacher, logits, new_rest)

        gradients, (losses, of_teacher, logits, rest) = jax.grad(loss_of, has_aux=True)(trained)
        if mix is not None:
            labels = mixing.major_labels(labels, mix)
        sums = self.counting.sums(losses, labels, logits)
        return gradients, sums if of_teacher is None else with_sum_of(sums, of_teacher), rest

    def _answers(self, images: Any, told: list) -> Any:
        """Returns the teacher's logits of images, mixed or not; None without a teacher."""
        if self.teacher is None:
            return None
        mapping = list(zip(self.teacher.variables, told, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return self.teacher(images)

    def _weighted_losses(self, labels: Any, logits: Any, mix: Any) -> Any:
        if self.config.data.multi_label:
            return example_losses(self.config.loss, labels, logits, mix, self.class_weights)
        losses = example_losses(self.config.loss, labels, logits, mix)
        if self.class_weights:
            losses *= example_weights(self.class_weights, labels, mix)
        return losses

    def _update(self, state: State, gradients: list, rate: list) -> tuple[list, list]:
        """Returns the weights and the optimizer's variables after an update."""
        if self._scaled:
            return update_scaled(self.optimizer, self._apply, state, gradients, rate)
        return self._apply(self.optimizer, state.optimizer, state.trained, gradients, rate)

    def _apply(
        self, optimizer: Any, values: list, trained: list, gradients: list, rate: list
    ) -> tuple[list, list]:
        # Not `stateless_apply`: it wants all variables that the optimizer was built for, of which
        # those of a first stage are a part.
        variables = [*self.trained, *optimizer.variables, *self._rate]
        mapping = list(zip(variables, [*trained, *values, *rate], strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            optimizer.apply(gradients, self.trained)
        after = [scope.get_current_value(variable) for variable in variables]
        return after[: len(trained)], after[len(trained) : len(trained) + len(values)]

    def _average(self, averages: list, trained: list, rest: list, optimizer: list) -> list:
        """Moves the averages towards the weights: average + (1 - decay) · (weight - average)."""
        if not averages:
            return averages
        # 1 - decay, in Python: in float32 the difference from 1 would lose its digits.
        rate: Any = 1.0 - self.config.ema.decay
        if self.config.ema.warmup:
            # As `tf.train.ExponentialMovingAverage`: min(decay, (1 + t) / (10 + t)).
            step = optimizer[self._iterations()].astype("float32")
            rate = jnp.maximum(rate, 9.0 / (10.0 + step))
        weights = [*trained, *rest]
        followed = [weights[place] for place in self._averaged]
        return [
            average + jnp.asarray(rate, average.dtype) * (weight - average)
            for average, weight in zip(averages, followed, strict=True)
        ]

    def _iterations(self) -> int:
        counter = self.optimizer.iterations
        return next(i for i, v in enumerate(self.optimizer.variables) if v is counter)

    def _norms(self, gradients: list, scale: Any, wanted: Any) -> Any:
        if not self._blocks:
            return jnp.zeros(0)
        return jax.lax.cond(
            wanted,
            lambda: norms_of_blocks(self._blocks, gradients) / scale,
            lambda: jnp.zeros(len(self.norm_names)),
        )

    def _loss_scale(self, state: State) -> Any:
        """What the loss is multiplied by; 1 but in float16."""
        if not self._scaled:
            return 1.0
        variables = self.optimizer.variables
        scale = self.optimizer.dynamic_scale
        return next(x for v, x in zip(variables, state.optimizer, strict=True) if v is scale)


def _moving_statistics(model: keras.Model) -> Iterator[keras.Variable]:
    """The statistics that a training step changes, differently on each replica."""
    for layer in layers_within(model):
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable:
            yield from (layer.moving_mean, layer.moving_variance)


def _places(
    averaged: Sequence[keras.Variable],
    trained: Sequence[keras.Variable],
    rest: Sequence[keras.Variable],
) -> list[int]:
    """Returns where the averaged variables stand among `trained` and `rest`."""
    places = {id(variable): place for place, variable in enumerate([*trained, *rest])}
    return [places[id(variable)] for variable in averaged]
