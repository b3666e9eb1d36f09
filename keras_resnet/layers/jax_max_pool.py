"""Max pooling that pads inside its window. Only imported on the JAX backend."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np


def windowed_max_pool(
    inputs, windows: Mapping[int, tuple[int, int, tuple[int, int]]], zero_pad: bool
):
    """Max pool with a border, without a padded copy in the forward pass.

    Nor is there one in the backward pass on a TPU. (JAX itself makes it on CPU and GPU.) Where
    several values of a window are equal and largest, the first one gets the gradient.

    Args:
        inputs: float tensor.
        windows: the axes that are pooled, and for each the size and stride of the window and the
            pixels before and after the input.
        zero_pad: a border of 0 instead of one that never wins.

    Returns:
        A tensor of the inputs' type.
    """
    rank = inputs.ndim
    sizes, strides, padding = zip(
        *(windows.get(axis, (1, 1, (0, 0))) for axis in range(rank)), strict=True
    )
    never = np.array(-np.inf, inputs.dtype)
    outputs = jax.lax.reduce_window(inputs, never, jax.lax.max, sizes, strides, padding)
    if not zero_pad:
        return outputs
    touches = jnp.zeros((1,) * rank, bool)
    for axis, (size, stride, (before, _)) in windows.items():
        starts = jnp.arange(outputs.shape[axis]) * stride - before
        ends = (starts < 0) | (starts + size > inputs.shape[axis])
        touches = touches | ends.reshape([-1 if i == axis else 1 for i in range(rank)])
    return jnp.where(touches, jax.nn.relu(outputs), outputs)
