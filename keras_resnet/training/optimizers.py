"""Optimizers: Keras' own, with the decay, clipping and rates per layer that recipes ask for."""

import math
import re
from typing import Any

import keras
from keras import ops
from ml_collections import ConfigDict

from keras_resnet.config.keras_optimizers import WHERE, parse_arguments
from keras_resnet.errors import UsageError
from keras_resnet.layers import keras_internals
from keras_resnet.training.decay import DecayMixin, DecoupledMixin
from keras_resnet.training.keras_optimizers import keras_optimizer
from keras_resnet.training.schedules import plateau_of

DECAYED_LAYERS = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


@keras.saving.register_keras_serializable("keras_resnet")
class SGD(DecayMixin, keras.optimizers.SGD):
    """SGD with (Nesterov) momentum and weight decay as L2 coupled into the gradient.

    gradient + weight_decay * variable goes into the momentum, as in the papers that train residual
    networks (He et al. 2015; Goyal et al. 2017, section 3) and in PyTorch's SGD.
    """

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.cast(gradient, variable.dtype)
        decay = self._decay_of(variable)
        if decay:
            gradient = gradient + decay * variable
        super().update_step(gradient, variable, self._rate_of(variable, learning_rate))


@keras.saving.register_keras_serializable("keras_resnet")
class LARS(DecayMixin, keras.optimizers.SGD):
    """Layer-wise adaptive rate scaling (You et al. 2017, algorithm 1) as MLPerf runs it.

    The gradient plus L2 of each decayed variable is multiplied by trust_coefficient * |w| / (|g| +
    weight_decay * |w|); variables without decay (normalization and biases) are plain SGD. The
    learning rate is inside the momentum. MLPerf Training, ResNet reference (lars_optimizer.py).

    Args:
        trust_coefficient: eta of the paper, 0.001 in MLPerf.
        **kwargs: of `keras.optimizers.SGD`.
    """

    def __init__(self, learning_rate=0.1, trust_coefficient=0.001, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.trust_coefficient = trust_coefficient

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.cast(gradient, variable.dtype)
        if keras_internals.uses_weight_decay(self, variable):
            decay = self.weight_decay or 0.0
            weight_norm, norm = _norm(variable), _norm(gradient)
            ratio = self.trust_coefficient * weight_norm / (norm + decay * weight_norm)
            ratio = ops.where((weight_norm > 0) & (norm > 0), ratio, 1.0)
            gradient = ratio * (gradient + decay * variable)
        super().update_step(gradient, variable, self._rate_of(variable, learning_rate))

    def get_config(self):
        return {**super().get_config(), "trust_coefficient": self.trust_coefficient}


@keras.saving.register_keras_serializable("keras_resnet")
class AdamW(DecoupledMixin, keras.optimizers.AdamW):
    """Keras' AdamW (Loshchilov and Hutter 2019, algorithm 2): decay decoupled, times the rate."""


@keras.saving.register_keras_serializable("keras_resnet")
class LAMB(DecayMixin, keras.optimizers.Lamb):
    """LAMB (You et al. 2020, algorithm 2): Adam's direction plus decay, scaled by a trust ratio.

    Slots and options are those of Keras' `Lamb`, which decouples the decay instead; the published
    recipes (Wightman et al. 2021) train with the paper's, inside the trust ratio. Variables without
    decay (normalization and biases) take Adam's step, as in timm.
    """

    def update_step(self, gradient, variable, learning_rate):
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        momentum, velocity = keras_internals.adam_slots(self, variable)
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        # 1 - beta**step without the cancellation, which in float32 costs half of the digits.
        bias_1 = -ops.expm1(step * math.log(self.beta_1)) if self.beta_1 else 1.0
        bias_2 = -ops.expm1(step * math.log(self.beta_2)) if self.beta_2 else 1.0
        update = (momentum / bias_1) / (ops.sqrt(velocity / bias_2) + self.epsilon)
        if keras_internals.uses_weight_decay(self, variable):
            update = update + (self.weight_decay or 0.0) * variable
            weight_norm, norm = _norm(variable), _norm(update)
            ratio = ops.where((weight_norm > 0) & (norm > 0), weight_norm / norm, 1.0)
            update = ratio * update
        self.assign_sub(variable, self._rate_of(variable, learning_rate) * update)


# Name -> (class, the keys of `optimizer.*` that it takes as arguments of the same names). Others
# of Keras are in `keras_optimizers`.
OPTIMIZERS = {
    "sgd": (SGD, ("momentum", "nesterov")),
    "lars": (LARS, ("momentum", "nesterov", "trust_coefficient")),
    "adamw": (AdamW, ("beta_1", "beta_2", "epsilon")),
    "lamb": (LAMB, ("beta_1", "beta_2", "epsilon")),
}


def make_optimizer(config: ConfigDict, schedule, model: keras.Model) -> keras.optimizers.Optimizer:
    """Returns the optimizer of `optimizer.*`, built for the trainable variables of `model`.

    Frozen layers have no part in it: no gradient, no decay, no slots. Call it in the strategy's
    scope and before the first `tf.function`, or the slots are made in the wrong place.

    Args:
        config: reads `optimizer.*` and `precision`.
        schedule: learning rate, a float or a schedule.
        model: what it will train.

    Raises:
        UsageError: Keras refuses a value of `optimizer.arguments`.
    """
    if plateau := plateau_of(schedule):
        plateau.build()
    options = config.optimizer
    optimizer = _make(config, schedule)
    decayed = {id(variable) for variable in decayed_variables(model)}
    variables = model.trainable_variables
    optimizer.exclude_from_weight_decay([v for v in variables if id(v) not in decayed])
    if options.layer_decay != 1.0:
        optimizer.scale_learning_rate(rate_factors(model, options.layer_decay))
    if config.precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(variables)
    return optimizer


def _make(config: ConfigDict, schedule) -> Any:
    """The optimizer with its arguments, not built."""
    options = config.optimizer
    of_all = {"weight_decay": options.weight_decay, "global_clipnorm": options.clip_norm or None}
    if options.name in OPTIMIZERS:
        kind, keys = OPTIMIZERS[options.name]
        return kind(schedule, **of_all, **{key: options[key] for key in keys})
    try:
        return keras_optimizer(options.name)(schedule, **of_all, **parse_arguments(config))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{WHERE}={options.arguments!r}: {options.name} refuses them: {reason}"
        ) from error


def decayed_variables(model: keras.Model) -> list:
    """Returns the variables that weight decay applies to: kernels of convolutions and dense layers.

    Normalization and biases stay free (Goyal et al. 2017, section 5.3; He et al. 2019, section
    3.1). The choice goes by layer type, so that renaming a layer cannot change the training.
    """
    return [layer.kernel for layer in _layers(model) if isinstance(layer, DECAYED_LAYERS)]


def rate_factors(model: keras.Model, decay: float) -> list[tuple]:
    """Returns (variable, factor) for discriminative learning rates.

    The classifier learns at the full rate, the last stage at `decay` times it, and every stage
    below and at last the stem at `decay` times the one above (Howard and Ruder 2018, section 3.2,
    with stages for layers).
    """
    layers = [layer for layer in _layers(model) if layer.trainable_variables]
    stages = [int(match[1]) if (match := _STAGE.match(layer.name)) else None for layer in layers]
    last = max((stage for stage in stages if stage is not None), default=0)
    factors: list[tuple] = []
    for layer, stage in zip(layers, stages, strict=True):
        if stage is None:
            # Outside the stages: the classifier, the norm after the last stage, the stem.
            depth = {"predictions": 0, "final": 1}.get(layer.name.partition("_")[0], last + 1)
        else:
            depth = last - stage + 1
        factors.extend((variable, decay**depth) for variable in layer.trainable_variables)
    return factors


_STAGE = re.compile(r"stage(\d+)_")  # layer names are API


def _norm(values):
    return ops.sqrt(ops.sum(ops.square(values)))


def _layers(model: keras.Model) -> list:
    layers = keras_internals.layers_within(model)
    return [layer for layer in layers if not isinstance(layer, keras.Model)]
