"""Max pooling that pads inside its window, for XLA. Only imported on the TensorFlow backend."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# TensorFlow's public pooling refuses explicit padding under XLA ("XLA does not support pooling ops
# with explicit padding"); these wrappers of XLA's own operations are what jax2tf builds on.
from tensorflow.compiler.tf2xla.python import xla


def windowed_max_pool(inputs, axes: Sequence[int], zero_pad: bool):
    """Max pool of 3 with stride 2 and a border of one, without a padded copy.

    XLA only. Where several values of a window are equal and largest, the first one gets the
    gradient, as with TensorFlow's own operation.

    Args:
        inputs: float tensor, static along `axes`.
        axes: those that are pooled.
        zero_pad: a border of 0 instead of one that never wins.

    Returns:
        A tensor of the inputs' type, ceil(n / 2) long where it was n.
    """
    rank = inputs.shape.rank
    window = {
        "window_dimensions": [3 if axis in axes else 1 for axis in range(rank)],
        "window_strides": [2 if axis in axes else 1 for axis in range(rank)],
        # Behind an even size no window reaches the border.
        "padding": [
            [1, inputs.shape[axis] % 2] if axis in axes else [0, 0] for axis in range(rank)
        ],
    }
    shape = [(size + 1) // 2 if axis in axes else size for axis, size in enumerate(inputs.shape)]
    maximum, add, at_least = (
        _of_two_scalars(operation, inputs.dtype)
        for operation in (tf.maximum, tf.add, tf.greater_equal)
    )

    @tf.custom_gradient
    def pool(x):
        outputs = xla.reduce_window(x, tf.constant(-np.inf, x.dtype), maximum, **window)
        outputs.set_shape(shape)

        def gradient(upstream):
            scattered = xla.select_and_scatter(
                operand=x,
                source=upstream,
                init_value=tf.zeros([], x.dtype),
                select=at_least,
                scatter=add,
                **window,
            )
            scattered.set_shape(x.shape)
            return scattered

        return outputs, gradient

    outputs = pool(inputs)
    if not zero_pad:
        return outputs
    touches = np.zeros([1] * rank, bool)
    for axis in axes:
        size = inputs.shape[axis]
        ends = np.zeros((size + 1) // 2, bool)
        ends[0] = True
        ends[-1] |= bool(size % 2)
        touches = touches | ends.reshape([-1 if i == axis else 1 for i in range(rank)])
    return tf.where(touches, tf.nn.relu(outputs), outputs)


def _of_two_scalars(operation, dtype):
    """`operation` as a function that XLA calls for a pair of values."""
    scalar = tf.TensorSpec([], dtype)
    return tf.function(operation, autograph=False).get_concrete_function(scalar, scalar)
