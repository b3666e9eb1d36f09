"""Max pooling that pads inside its window. Only imported on the JAX backend."""

import functools
import itertools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

_MOST_PLACES = 64  # written out one by one in `_gather_gradient`; compiling takes as long


def windowed_max_pool(
    inputs, windows: Mapping[int, tuple[int, int, tuple[int, int]]], zero_pad: bool
):
    """Max pool with a border, without a padded copy in the forward pass.

    Nor is there one in the backward pass on a TPU or GPU. (JAX itself makes it on CPU.) Where
    several values of a window are equal and largest, the first one gets the gradient. There are
    reverse-mode derivatives of any order, and no `jax.jvp` of the pool itself.

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
    outputs = _max_pool(inputs, sizes, strides, padding)
    if not zero_pad:
        return outputs
    touches = jnp.zeros((1,) * rank, bool)
    for axis, (size, stride, (before, _)) in windows.items():
        starts = jnp.arange(outputs.shape[axis]) * stride - before
        ends = (starts < 0) | (starts + size > inputs.shape[axis])
        touches = touches | ends.reshape([-1 if i == axis else 1 for i in range(rank)])
    return jnp.where(touches, jax.nn.relu(outputs), outputs)


def _plain_max_pool(inputs, sizes, strides, padding):
    """Size, stride and border for every axis of the inputs."""
    never = np.array(-np.inf, inputs.dtype)
    return jax.lax.reduce_window(inputs, never, jax.lax.max, sizes, strides, padding)


_max_pool = jax.custom_vjp(_plain_max_pool, nondiff_argnums=(1, 2, 3))


def _forward(inputs, sizes, strides, padding):
    outputs = _plain_max_pool(inputs, sizes, strides, padding)
    return outputs, (inputs, outputs)


def _backward(sizes, strides, padding, kept, upstream):
    inputs, outputs = kept
    if math.prod(sizes) > _MOST_PLACES:
        return (_scatter_gradient(sizes, strides, padding, inputs, outputs, upstream),)
    on_gpu = functools.partial(_gather_gradient, sizes, strides, padding)
    elsewhere = functools.partial(_scatter_gradient, sizes, strides, padding)
    by_inputs = jax.lax.platform_dependent(
        inputs, outputs, upstream, cuda=on_gpu, rocm=on_gpu, default=elsewhere
    )
    return (by_inputs,)


_max_pool.defvjp(_forward, _backward)


def _scatter_gradient(sizes, strides, padding, inputs, outputs, upstream):
    """JAX's own: the operation `select_and_scatter`, a kernel of its own on a TPU."""
    del outputs
    pool = functools.partial(_plain_max_pool, sizes=sizes, strides=strides, padding=padding)
    return jax.vjp(pool, inputs)[1](upstream)[0]


def _gather_gradient(sizes, strides, padding, inputs, outputs, upstream):
    """The same without a scatter, which XLA writes as atomic additions on a GPU.

    One pass finds which place of its window each output came from, another gathers: every input
    adds up what the windows around it send to its place. Windows are added in the scatter's order
    on a CPU, in float32 at least. Where the output is NaN, the window's first place gets the
    gradient.
    """
    places = list(itertools.product(*map(range, sizes)))
    never = np.array(-np.inf, inputs.dtype)
    winners = jnp.full(outputs.shape, len(places), jnp.uint8)
    for index, place in reversed(list(enumerate(places))):  # the first one is written last
        seen = _seen_by_windows(inputs, outputs.shape, place, strides, padding, never)
        winners = jnp.where(seen < outputs, winners, np.uint8(index))
    # Fused into the second pass, the first one would run once for every place.
    winners = jax.lax.optimization_barrier(winners)
    total_type = jnp.promote_types(upstream.dtype, jnp.float32)
    upstream = upstream.astype(total_type)
    total = jnp.zeros(inputs.shape, total_type)
    for index, place in reversed(list(enumerate(places))):  # windows in ascending order
        sent = jnp.where(winners == index, upstream, 0)
        total = total + _sent_to_inputs(sent, inputs.shape, place, strides, padding)
    return total.astype(inputs.dtype)


def _seen_by_windows(inputs, grid, place, strides, padding, border):
    """What each window of the grid has at a place: a slice of the inputs, and its border."""
    starts, limits, edges = [], [], []
    for n, windows, offset, stride, (before, _) in zip(
        inputs.shape, grid, place, strides, padding, strict=True
    ):
        shift = offset - before
        first = min(max(-(shift // stride), 0), windows)  # the first window with a pixel there
        end = max(min((n - 1 - shift) // stride + 1, windows), first)
        start = min(max(first * stride + shift, 0), n)
        starts.append(start)
        limits.append(start + (end - first - 1) * stride + 1 if end > first else start)
        edges.append((first, windows - end, 0))
    return jax.lax.pad(jax.lax.slice(inputs, starts, limits, strides), border, edges)


def _sent_to_inputs(values, shape, place, strides, padding):
    """The transpose: a value for each window, put where its place is, and 0 between."""
    edges = []
    for n, windows, offset, stride, (before, _) in zip(
        shape, values.shape, place, strides, padding, strict=True
    ):
        low = offset - before
        length = (windows - 1) * stride + 1 if windows else 0
        edges.append((low, n - low - length, stride - 1))
    return jax.lax.pad(values, np.zeros((), values.dtype), edges)
