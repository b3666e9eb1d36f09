"""What all optimizers of a run share: decay, clipping and rates per layer, on every engine.

What `DecayMixin` adds works inside Keras' update of one variable, after the gradients have been
summed over the replicas, so that one replica and many compute the same.
"""

import threading

import keras
from keras import ops

from keras_resnet.layers import keras_internals

# Under several replicas `apply` runs in a thread for each, of which the last would win elsewhere.
_kept = threading.local()


class DecayMixin(keras.optimizers.Optimizer):
    """What the optimizers here share, to be inherited before the Keras optimizer.

    - `weight_decay` is left to `update_step` of the class; Keras' own pass over all variables,
      decoupled and blind to the rates of layers, does not run.
    - `global_clipnorm` bounds the norm of the gradient of the *global* batch (Keras clips each
      replica's part). As in PyTorch recipes the gradient is the loss's, without weight decay.
    - `scale_learning_rate` multiplies the rate of single variables.
    - `take_gradients` gives what `apply` has summed over the replicas, with `keeps_gradients`.
    """

    keeps_gradients = False

    def scale_learning_rate(self, factors) -> None:
        """Multiplies the learning rate of variables; `factors` is pairs (variable, float)."""
        self._rate_factors = {
            keras_internals.variable_key(self, variable): factor for variable, factor in factors
        }

    def _rate_of(self, variable, learning_rate):
        """The learning rate of one variable, in its dtype."""
        factor = getattr(self, "_rate_factors", {}).get(
            keras_internals.variable_key(self, variable), 1.0
        )
        return ops.cast(learning_rate, variable.dtype) * factor

    def _decay_of(self, variable) -> float:
        return self.weight_decay if keras_internals.uses_weight_decay(self, variable) else 0.0

    def _apply_weight_decay(self, variables):
        pass  # update_step does it

    def _clip_gradients(self, gradients):
        # On TensorFlow too early: they are not summed over the replicas yet.
        return gradients if keras.backend.backend() == "tensorflow" else self._clipped(gradients)

    def _all_reduce_sum_gradients(self, grads_and_vars):  # Keras calls it on TensorFlow only
        gradients, variables = zip(*super()._all_reduce_sum_gradients(grads_and_vars), strict=True)
        if self.keeps_gradients:
            _kept.gradients = gradients
        return list(zip(self._clipped(gradients), variables, strict=True))

    @staticmethod
    def take_gradients() -> tuple:
        """Returns the gradients of the last `apply` in this thread, and forgets them.

        Summed over the replicas and not clipped, in the order of the variables. Needs
        `keeps_gradients`, on TensorFlow; AttributeError without an `apply` before.
        """
        gradients = _kept.gradients
        del _kept.gradients
        return gradients

    def _clipped(self, gradients):
        if not self.global_clipnorm:
            return gradients
        squares = [ops.sum(ops.square(gradient)) for gradient in gradients]
        norm = ops.sqrt(ops.sum(ops.stack(squares)))
        # A norm that is no number is no reason to hide it: where() would, a product does not.
        factor = self.global_clipnorm / ops.maximum(norm, self.global_clipnorm)
        return [gradient * factor for gradient in gradients]


class DecoupledMixin(DecayMixin):
    """Decay outside of the gradient (Loshchilov and Hutter 2019, algorithm 2), times the rate."""

    def update_step(self, gradient, variable, learning_rate):
        rate = self._rate_of(variable, learning_rate)
        decay = self._decay_of(variable)
        if decay:
            self.assign_sub(variable, rate * decay * variable)
        super().update_step(gradient, variable, rate)
