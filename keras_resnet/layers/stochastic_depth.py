"""Stochastic depth: drop a residual branch for some examples of the batch."""

import keras
from keras import ops

from keras_resnet.layers.replicas import current_replica_axis


@keras.saving.register_keras_serializable(package="keras_resnet")
class StochasticDepth(keras.layers.Layer):
    """Set the whole input to zero for each example with probability `rate`, in training.

    Huang et al., "Deep Networks with Stochastic Depth" (2016), section 3, applied to each
    example on its own and with the survivors divided by `1 - rate` in training, so that
    inference is the identity (as timm's `DropPath` does it; the paper drops a branch for the
    whole batch and multiplies by `1 - rate` in inference instead). Put it at the end of the
    residual branch, before the sum.

    Under `tf.distribute`, and on JAX under `keras_resnet.layers.replica_axis`, each replica draws
    on its own (with a plain `SeedGenerator`, as in Keras' `Dropout`, example i of every replica
    meets the same fate).

    Input and output: a float tensor of shape `(batch, ...)`, of any rank; the dtype stays.

    Args:
        rate: probability of dropping an example's branch, 0 <= rate < 1. At 0 the layer is the
            identity, in training too.
        seed: integer that fixes the draws; `None` takes a random one.

    Raises:
        ValueError: for a `rate` outside [0, 1).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(
                "StochasticDepth needs a `rate` of at least 0 and less than 1 (the probability "
                f"of dropping the branch), received {rate!r}."
            )
        self.rate = float(rate)
        self.seed = seed
        self.seed_generator = _ReplicaSeedGenerator(seed) if rate else None
        self.supports_masking = True
        self.built = True

    def call(self, inputs, training=None):
        if not training or not self.rate:
            return inputs
        factors = self.factors(ops.shape(inputs)[0], len(inputs.shape))
        return inputs * ops.cast(factors, inputs.dtype)

    def factors(self, examples, rank: int):
        """What each example's branch is multiplied by in training: float32[examples, 1, ...]."""
        # Drawn in float32: a bfloat16 number from [0, 1) has steps as wide as small rates.
        shape = (examples,) + (1,) * (rank - 1)
        drawn = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        survival = 1.0 - self.rate
        return ops.cast(drawn < survival, "float32") / survival

    def rematerialized_call(self, fn, *args, **kwargs):
        """`fn` itself: it keeps one number an example, and a second call would draw anew."""
        return fn

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


class _ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A `SeedGenerator` whose seeds differ from replica to replica of a training step.

    The state itself advances alike on all of them.
    """

    def next(self, ordered=True):
        seed = super().next(ordered)
        replica = _replica()
        if replica is None:
            return seed
        replica = ops.cast(replica, seed.dtype)
        # The golden ratio of 2**31 keeps replica 1 of seed 0 apart from replica 0 of seed 1.
        return seed + ops.stack([replica * 1_327_217_885, ops.zeros_like(replica)])


def _replica():
    """The number of the replica that runs, a scalar tensor; `None` where there is but one."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return None
        return context.replica_id_in_sync_group
    if backend == "jax" and (axis := current_replica_axis()) is not None:
        import jax

        return jax.lax.axis_index(axis)
    return None
