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

    Nor is there one in the backward pass. Where several values of a window are equal and largest,
    the first one gets the gradient. There are reverse-mode derivatives of any order, and no
    `jax.jvp` of the pool itself.

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
    on_tpu = functools.partial(_scatter_gradient, sizes, strides, padding)
    elsewhere = functools.partial(_gather_gradient, sizes, strides, padding)
    by_inputs = jax.lax.platform_dependent(inputs, outputs, upstream, tpu=on_tpu, default=elsewhere)
    return (by_inputs,)


_max_pool.defvjp(_forward, _backward)


def _scatter_gradient(sizes, strides, padding, inputs, outputs, upstream):
    """JAX's own: the operation `select_and_scatter`, a kernel of its own on a TPU."""
    del outputs
    pool = functools.partial(_plain_max_pool, sizes=sizes, strides=strides, padding=padding)
    return jax.vjp(pool, inputs)[1](upstream)[0]


def _gather_gradient(sizes, strides, padding, inputs, outputs, upstream):
    """The same without a scatter, which is atomic additions on a GPU and slow on a CPU.

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
    upstream = upstream.astype(jnp.promote_types(upstream.dtype, jnp.float32))
    sent = {place: jnp.where(winners == index, upstream, 0) for index, place in enumerate(places)}
    befores = [before for before, _ in padding]
    return _gathered(sent, inputs.shape, strides, befores, ()).astype(inputs.dtype)


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


def _gathered(sent, shape, strides, befores, phase):
    """What windows send to each input, from what each of them sends to each of its places.

    With stride s, inputs whose number (the border included) is r modulo s are at the places r,
    r + s, ... of windows: all of them together are s interleaved arrays an axis. So an input looks
    at no place that it is not at.

    Args:
        sent: place -> an array of the windows.
        shape: of the inputs.
        strides, befores: of the windows, and the border before, an axis each.
        phase: r of the axes that are done; the others are interleaved here.
    """
    axis = len(phase)
    if axis == len(shape):
        return _sum_of_phase(sent, shape, strides, befores, phase)
    stride, before, n = strides[axis], befores[axis], shape[axis]
    parts = [_gathered(sent, shape, strides, befores, (*phase, r)) for r in range(stride)]
    if stride == 1:
        (whole,) = parts
    else:
        whole = jnp.stack(parts, axis + 1)
        shape_before, shape_after = whole.shape[:axis], whole.shape[axis + 2 :]
        whole = whole.reshape(*shape_before, whole.shape[axis] * stride, *shape_after)
    return jax.lax.slice_in_dim(whole, before, before + n, axis=axis)


def _sum_of_phase(sent, shape, strides, befores, phase):
    """The sum over the places of one phase; windows in ascending order, as a scatter adds them."""
    sizes = [
        -(-(n + before) // stride)
        for n, before, stride in zip(shape, befores, strides, strict=True)
    ]
    total = None
    for place in reversed(sent):
        back = [
            (offset - r) // stride if (offset - r) % stride == 0 else -1
            for offset, r, stride in zip(place, phase, strides, strict=True)
        ]
        if min(back) < 0:
            continue
        values = sent[place]
        edges = [
            (j, size - windows - j, 0)
            for j, size, windows in zip(back, sizes, values.shape, strict=True)
        ]
        part = jax.lax.pad(values, np.zeros((), values.dtype), edges)
        total = part if total is None else total + part
    if total is None:  # places that no window has: strides wider than windows
        return jnp.zeros(sizes, next(iter(sent.values())).dtype)
    return total
