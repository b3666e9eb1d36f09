"""Max pooling that pads inside its window, for XLA. Only imported on the TensorFlow backend."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

# TensorFlow's public pooling refuses explicit padding under XLA ("XLA does not support pooling ops
# with explicit padding"); these wrappers of XLA's own operations are what jax2tf builds on.
from tensorflow.compiler.tf2xla.python import xla


def windowed_max_pool(
    inputs, windows: Mapping[int, tuple[int, int, tuple[int, int]]], zero_pad: bool
):
    """Max pool with a border, without a padded copy.

    XLA only. Where several values of a window are equal and largest, the first one gets the
    gradient, as with TensorFlow's own operation.

    Args:
        inputs: float tensor, static along the axes that are pooled.
        windows: those axes, and for each the size and stride of the window and the pixels before
            and after the input.
        zero_pad: a border of 0 instead of one that never wins.

    Returns:
        A tensor of the inputs' type.
    """
    rank = inputs.shape.rank
    shape = list(inputs.shape)
    sizes, strides, padding = [1] * rank, [1] * rank, [[0, 0] for _ in range(rank)]
    touches = np.zeros([1] * rank, bool)
    for axis, (size, stride, (before, after)) in windows.items():
        pixels = inputs.shape[axis]
        count = (pixels + before + after - size) // stride + 1
        starts = np.arange(count) * stride - before
        # Pixels that no window reaches are left out.
        beyond = max(int(starts[-1]) + size - pixels, 0)
        sizes[axis], strides[axis], padding[axis] = size, stride, [before, beyond]
        shape[axis] = count
        ends = (starts < 0) | (starts + size > pixels)
        touches = touches | ends.reshape([-1 if i == axis else 1 for i in range(rank)])
    window = {"window_dimensions": sizes, "window_strides": strides, "padding": padding}
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
    return tf.where(touches, tf.nn.relu(outputs), outputs)


def _of_two_scalars(operation, dtype):
    """`operation` as a function that XLA calls for a pair of values."""
    scalar = tf.TensorSpec([], dtype)
    return tf.function(operation, autograph=False).get_concrete_function(scalar, scalar)
