"""Learning rate schedules and optimisers, from the config to Keras objects."""

import keras
import tensorflow as tf
from ml_collections import ConfigDict

DECAYED_LAYERS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@keras.saving.register_keras_serializable("keras_resnet")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up of another schedule (Goyal et al. 2017, section 2.2, "gradual warmup").

    During step t < warmup_steps the rate is (t + 1) / warmup_steps times what the schedule gives
    there, so that the first step already learns and the rate is continuous where the warm-up ends.

    Args:
      schedule: the schedule to warm up.
      warmup_steps: length of the warm-up in steps; 0 leaves the schedule as it is.
    """

    def __init__(self, schedule, warmup_steps: int):
        self.schedule = schedule
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step):
        fraction = (keras.ops.cast(step, "float32") + 1.0) / max(self.warmup_steps, 1)
        return self.schedule(step) * keras.ops.minimum(fraction, 1.0)

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "warmup_steps": self.warmup_steps}

    @classmethod
    def from_config(cls, config):
        return cls(
            keras.saving.deserialize_keras_object(config["schedule"]), config["warmup_steps"]
        )


def make_schedule(
    config: ConfigDict, *, steps_per_epoch: float, total_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the rate over steps: `schedule.*` is its shape, `optimizer.learning_rate` its peak.

    cosine: half a cosine from the peak to 0 over the whole run (Loshchilov and Hutter 2017, without
    restarts). step: times `factor` after each of `boundaries` (He et al. 2015, section 3.4).
    """
    peak, schedule = config.optimizer.learning_rate, config.schedule
    if schedule.name == "cosine":
        shape = keras.optimizers.schedules.CosineDecay(peak, decay_steps=total_steps)
    else:
        boundaries = [round(epoch * steps_per_epoch) for epoch in schedule.boundaries]
        rates = [peak * schedule.factor**power for power in range(len(boundaries) + 1)]
        # Keras keeps the old rate at the boundary step itself; step numbers here count from 0.
        shape = keras.optimizers.schedules.PiecewiseConstantDecay(
            [float(step - 1) for step in boundaries], rates
        )
    return Warmup(shape, round(schedule.warmup_epochs * steps_per_epoch))


def make_optimizer(config: ConfigDict, schedule) -> keras.optimizers.Optimizer:
    """Returns the optimiser of `optimizer.*`; weight decay is added to the gradients before it."""
    options = config.optimizer
    return keras.optimizers.SGD(schedule, momentum=options.momentum, nesterov=options.nesterov)


def decayed_variables(model: keras.Model) -> list:
    """Returns the variables that L2 applies to: kernels of convolution and dense layers.

    Normalisation and biases stay free (Goyal et al. 2017, section 5.3; He et al. 2019, section
    3.1). The choice goes by layer type, so that renaming a layer cannot change the training.
    """
    layers = (layer for layer in model._flatten_layers(include_self=False, recursive=True))
    return [layer.kernel for layer in layers if isinstance(layer, DECAYED_LAYERS)]


def learning_rate_at(schedule, step: int) -> float:
    """Returns the learning rate used by training step `step` (counted from 0)."""
    return float(tf.convert_to_tensor(schedule(step)))
