"""The optimizers that Keras has beside those of `optimizers`, by their names there.

Each is Keras' class with `DecoupledMixin` in front of it: the update is Keras', weight decay is
that of kernels alone, and clipping, rates per layer and the sum over the replicas are those of all
optimizers here.
"""

import functools
from typing import Any

import keras
from keras import ops

from keras_resnet.layers import keras_internals
from keras_resnet.training.decay import DecayMixin, DecoupledMixin


class MuonMixin(DecoupledMixin):
    """Muon has a decay of its own for what it trains by Adam: the same unless that is given."""

    def __init__(self, *args, weight_decay=0.004, adam_weight_decay=None, **kwargs):
        if adam_weight_decay is None:
            adam_weight_decay = weight_decay
        super().__init__(
            *args, weight_decay=weight_decay, adam_weight_decay=adam_weight_decay, **kwargs
        )

    def build(self, variables):
        super().build(variables)
        # Asked here, as a step of a replica has variables without a path.
        self._by_adam = {
            keras_internals.variable_key(self, variable)
            for variable in variables
            if keras_internals.trains_by_adam(self, variable)
        }

    def _decay_of(self, variable):
        if not keras_internals.uses_weight_decay(self, variable):
            return 0.0
        by_adam = keras_internals.variable_key(self, variable) in self._by_adam
        return self.adam_weight_decay if by_adam else self.weight_decay


class NadamMixin(DecoupledMixin):
    """Nadam has a product over all steps, which a step on several replicas has to update once."""

    def build(self, variables):
        super().build(variables)
        keras_internals.share_product_of_nadam(self)


class ScheduleFreeMixin(DecayMixin):
    """Keras' update (Defazio et al. 2024, algorithm 1) as it is on every backend but TensorFlow.

    There Keras 3.15 reads the old z after it has assigned the new one, so that x is another
    sequence. The variable is y = (1 - beta_1) z + beta_1 x, and z is what Keras calls momentum.
    """

    def update_step(self, gradient, variable, learning_rate):
        rate = self._rate_of(variable, learning_rate)
        gradient = ops.cast(gradient, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (ops.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        z, velocity = keras_internals.adam_slots(self, variable)
        y = variable - rate * self._decay_of(variable) * variable
        x = (y - (1.0 - beta_1) * z) / beta_1
        if self.warmup_steps > 0:
            rate = rate * ops.minimum(step / self.warmup_steps, 1.0)
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1.0 - beta_2))
        bias = 1.0 - ops.power(beta_2, step)
        self.assign_sub(z, rate * gradient / (ops.sqrt(velocity / bias) + self.epsilon))
        x = (1.0 - 1.0 / step) * x + z / step
        self.assign(variable, (1.0 - beta_1) * z + beta_1 * x)


_MIXINS: dict[str, type] = {
    "Muon": MuonMixin,
    "Nadam": NadamMixin,
    "ScheduleFreeAdamW": ScheduleFreeMixin,
}


@functools.cache
def keras_optimizer(name: str) -> Any:
    """Returns the class for a name of `config.keras_optimizers.keras_optimizers`."""
    parents = (_MIXINS.get(name, DecoupledMixin), getattr(keras.optimizers, name))
    kind: Any = type(name, parents, {"__module__": __name__, "__doc__": parents[1].__doc__})
    return keras.saving.register_keras_serializable("keras_resnet_by_name")(kind)
