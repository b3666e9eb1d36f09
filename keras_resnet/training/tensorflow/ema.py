"""Exponential moving average of the weights."""

import contextlib

import keras
import tensorflow as tf

from keras_resnet.training.state import average_names, averaged_variables


class WeightAverage(tf.Module):
    """Follows the weights of a model: average = decay * average + (1 - decay) * weight.

    It covers the trainable variables and the moving statistics of batch normalization, as in timm
    and torchvision: statistics of the latest weights do not fit averaged ones. Frozen layers stay
    as they are.

    Each replica keeps a copy that it updates from its own weights, the same everywhere, so nothing
    crosses replicas. Create it in the strategy's scope, after the weights have been loaded.

    Args:
        model: whose weights it follows; the averages begin at what they are now.
        decay: per step, 0..1; 0.9999 averages over the last 10,000 steps or so.
        warmup: from step to step use min(decay, (1 + t) / (10 + t)), t counting from 1, as
            `tf.train.ExponentialMovingAverage` does, so that a short run is not dominated by its
            initial weights.
    """

    def __init__(self, model: keras.Model, decay: float, warmup: bool):
        super().__init__()
        self._decay, self._warmup = decay, warmup
        self._followed = [variable.value for variable in averaged_variables(model)]
        self._moving = {id(variable.value) for variable in model.non_trainable_variables}
        self.averages = [_copy_on_replicas(variable) for variable in self._followed]
        self._names = tuple(average_names(model))

    def update(self, step) -> None:
        """Follows one step; call it in `strategy.run` after the update number `step` (from 1)."""
        # 1 - decay, in Python: in float32 the difference from 1 would lose its digits.
        rate = tf.constant(1.0 - self._decay, tf.float32)
        if self._warmup:
            rate = tf.maximum(rate, 9.0 / (10.0 + tf.cast(step, tf.float32)))
        for average, variable in zip(self.averages, self._followed, strict=True):
            average.assign_add(rate * (variable - average))

    def named(self) -> dict[str, tf.Variable]:
        """Returns the averages by their names in the state of a run."""
        return dict(zip(self._names, self.averages, strict=True))

    def moving_statistics(self) -> list[tf.Variable]:
        """Returns the averages of moving statistics, which differ while those are deferred."""
        pairs = zip(self.averages, self._followed, strict=True)
        return [average for average, variable in pairs if id(variable) in self._moving]

    @contextlib.contextmanager
    def in_model(self):
        """Puts the averages in the place of the weights for the time of a `with` block."""
        kept = [tf.identity(variable) for variable in self._followed]
        try:
            _assign(self._followed, self.averages)
            yield
        finally:
            _assign(self._followed, kept)


def _copy_on_replicas(variable: tf.Variable) -> tf.Variable:
    # ON_READ: a replica may assign without the others. They agree, so the first speaks for all.
    return tf.Variable(
        tf.identity(variable),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _assign(variables, values) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(tf.convert_to_tensor(value))
