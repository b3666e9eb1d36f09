"""Learning rate schedules, from the config to Keras objects that serialize."""

from collections.abc import Callable

import keras
from keras.optimizers import schedules
from ml_collections import ConfigDict

from keras_resnet.training.progress import Timeline


@keras.saving.register_keras_serializable("keras_resnet")
class Warmup(schedules.LearningRateSchedule):
    """Linear warm-up of another schedule (Goyal et al. 2017, section 2.2, "gradual warmup").

    During step t < warmup_steps the rate is (t + 1) / warmup_steps times what the schedule gives
    there, so that the first step already learns and the rate is continuous where the warm-up ends.

    Args:
        schedule: the schedule to warm up.
        warmup_steps: length of the warm-up in steps; 0 leaves the schedule as it is.
        delay: step at which the schedule begins; before it stays at what it begins with.
    """

    def __init__(self, schedule, warmup_steps: int, delay: int = 0):
        self.schedule = schedule
        self.warmup_steps = int(warmup_steps)
        self.delay = int(delay)

    def __call__(self, step):
        step = keras.ops.cast(step, "float32")
        fraction = (step + 1.0) / max(self.warmup_steps, 1)
        decayed = self.schedule(keras.ops.maximum(step - self.delay, 0.0))
        return decayed * keras.ops.minimum(fraction, 1.0)

    def get_config(self):
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "warmup_steps": self.warmup_steps, "delay": self.delay}

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["warmup_steps"], config.get("delay", 0))


@keras.saving.register_keras_serializable("keras_resnet")
class Plateau(schedules.LearningRateSchedule):
    """The peak, times `factor` each time that evaluations have brought nothing better for a while.

    Keras' `ReduceLROnPlateau` with `min_delta=0`; the rate follows no step but `reduced`. When, is
    counted in `Progress`, so that a checkpoint has it.

    Args:
        peak: the learning rate at the start.
        factor: what each reduction multiplies it by.
        end_learning_rate: it does not fall below.
    """

    def __init__(self, peak: float, factor: float, end_learning_rate: float = 0.0):
        self.peak, self.factor, self.end_learning_rate = peak, factor, end_learning_rate
        self._rate = peak
        self._variable: keras.Variable | None = None

    @property
    def variable(self) -> keras.Variable | None:
        """What compiled steps read the rate from, once it is built."""
        return self._variable

    def build(self) -> None:
        """Makes the variable that compiled steps read; call it where the optimizer is made."""
        self._variable = keras.Variable(self._rate, trainable=False, dtype="float32", name="rate")

    def reduced(self, times: int) -> None:
        """Sets the rate to what it is after so many reductions in all."""
        lowest = min(self.end_learning_rate, self.peak)
        self._rate = max(self.peak * self.factor**times, lowest)
        if self._variable is not None:
            self._variable.assign(self._rate)

    def __call__(self, step):
        rate = self._rate if self._variable is None else self._variable
        return keras.ops.convert_to_tensor(rate, "float32")

    def get_config(self):
        return {
            "peak": self.peak,
            "factor": self.factor,
            "end_learning_rate": self.end_learning_rate,
        }


def plateau_of(schedule) -> Plateau | None:
    """Returns the part of a schedule that evaluations lower, None where steps alone decide."""
    shape = schedule.schedule if isinstance(schedule, Warmup) else schedule
    return shape if isinstance(shape, Plateau) else None


def make_schedule(config: ConfigDict, timeline: Timeline) -> schedules.LearningRateSchedule:
    """Returns the rate over steps: `schedule.*` is its shape, `peak_learning_rate` its peak.

    Which step the decay counts from: step 0, as in timm and the TensorFlow Model Garden, so that
    the warm-up bends its first part; with `schedule.decay_after_warmup` the end of the warm-up, as
    in torchvision and MLPerf. Epochs always count from step 0.
    """
    options, steps_per_epoch = config.schedule, timeline.steps_per_epoch
    warmup_steps = round(options.warmup_epochs * steps_per_epoch)
    delay = warmup_steps if options.decay_after_warmup else 0
    shape = SCHEDULES[options.name](
        options,
        peak_learning_rate(config),
        steps=max(timeline.total_steps - delay, 1),
        step_of_epoch=lambda epoch: round(epoch * steps_per_epoch) - delay,
        steps_per_epoch=steps_per_epoch,
    )
    return Warmup(shape, warmup_steps, delay)


def peak_learning_rate(config: ConfigDict) -> float:
    """Returns `optimizer.learning_rate`, with `scale_with_batch` times the global batch / 256.

    The linear scaling rule of Goyal et al. 2017, section 2.1.
    """
    options = config.optimizer
    scale = config.batch_size / 256 if options.scale_with_batch else 1.0
    return options.learning_rate * scale


def learning_rate_at(schedule, step: int) -> float:
    """Returns the learning rate used by training step `step` (counted from 0)."""
    return float(keras.ops.convert_to_numpy(schedule(step)))


def _cosine(options, peak, *, steps, **_):
    """Half a cosine to `end_learning_rate` (Loshchilov and Hutter 2017, without restarts)."""
    alpha = options.end_learning_rate / peak if peak else 0.0
    return schedules.CosineDecay(peak, decay_steps=steps, alpha=alpha)


def _step(options, peak, *, step_of_epoch, **_):
    """Times `factor` after each of `boundaries` (He et al. 2015, section 3.4)."""
    rates = [peak * options.factor**power for power in range(len(options.boundaries) + 1)]
    # Keras keeps the old rate at the boundary step itself; step numbers here count from 0.
    boundaries = [float(step_of_epoch(epoch) - 1) for epoch in options.boundaries]
    return schedules.PiecewiseConstantDecay(boundaries, rates)


def _polynomial(options, peak, *, steps, **_):
    """(1 - t / steps) ** `power` from the peak to `end_learning_rate` (MLPerf: power 2)."""
    return schedules.PolynomialDecay(
        peak, steps, end_learning_rate=options.end_learning_rate, power=options.power
    )


def _exponential(options, peak, *, steps_per_epoch, **_):
    """Times `factor` every `decay_epochs`, smoothly (Tan and Le 2019, section 5)."""
    return schedules.ExponentialDecay(peak, options.decay_epochs * steps_per_epoch, options.factor)


def _plateau(options, peak, **_):
    """The peak until `patience` evaluations bring nothing better, then times `factor`."""
    return Plateau(peak, options.factor, options.end_learning_rate)


SCHEDULES: dict[str, Callable[..., schedules.LearningRateSchedule]] = {
    "cosine": _cosine,
    "step": _step,
    "polynomial": _polynomial,
    "exponential": _exponential,
    "plateau": _plateau,
}
