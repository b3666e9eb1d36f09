"""Strided convolution of few channels as one of blocks of pixels. Only imported on JAX."""

import math

import jax
import numpy as np

from keras_resnet.axes import PerAxis, per_axis

CHANNEL_MULTIPLE = 8
"""16 bytes of bfloat16: what the convolutions of tensor cores read at once."""


def blocked_conv(
    inputs,
    kernel,
    stride: PerAxis,
    padding: PerAxis,
    channel_multiple: int = CHANNEL_MULTIPLE,
):
    """A convolution with stride, computed with stride 1 on blocks of pixels ("space to depth").

    Matrix units stay mostly idle on an image's three channels. With stride s, blocks of s x s
    pixels become one pixel of s * s times the channels, and the kernel is regrouped likewise,
    behind zeros up to a multiple of s: 7 x 7 with stride 2 on 224 x 224 x 3 is 4 x 4 with stride 1
    on 115 x 115 x 12. The result is the same but for the order of the sum, and so are the
    gradients, which reach the kernel as it was given. As pixels are multiplied by those zeros, one
    that is not finite can reach outputs just beside its own.

    Source: the stem in Ying et al. 2018, "Image Classification at Supercomputer Scale",
    section 3, and in MLPerf submissions of ResNet-50.

    Args:
        inputs: float tensor (batch, *sizes, channels) with any number of spatial axes.
        kernel: (*sizes, channels, filters), of the inputs' type.
        stride: of all axes, or of each.
        padding: zeros before and behind all axes, or each.
        channel_multiple: a block gets channels of zeros up to a multiple of this.

    Returns:
        (batch, *sizes, filters), as `jax.lax.conv_general_dilated` has it.

    Raises:
        ValueError: where the shapes or the numbers of axes do not fit together.
    """
    rank = kernel.ndim - 2
    if inputs.ndim != rank + 2 or inputs.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            f"A kernel of shape {kernel.shape} does not fit inputs of shape {inputs.shape}: they "
            "are (*sizes, channels, filters) and (batch, *sizes, channels)."
        )
    strides = per_axis(stride, rank, "stride")
    borders = np.broadcast_to(padding, rank).tolist()
    reach = [-(-size // s) for size, s in zip(kernel.shape, strides, strict=False)]  # in blocks
    spans = []
    for n, size, s, border, blocks in zip(
        inputs.shape[1:-1], kernel.shape[:-2], strides, borders, reach, strict=True
    ):
        outputs = max((n + 2 * border - size) // s + 1, 0)
        spans.append((outputs - 1 + blocks) * s)
    blocked = _blocks(inputs, 1, strides, borders, spans, channel_multiple)
    lengths = [blocks * s for blocks, s in zip(reach, strides, strict=True)]
    regrouped = _blocks(kernel, 0, strides, [0] * rank, lengths, channel_multiple)
    axes = range(1, rank + 1)
    layout = jax.lax.ConvDimensionNumbers(
        lhs_spec=(0, rank + 1, *axes),
        rhs_spec=(rank + 1, rank, *range(rank)),
        out_spec=(0, rank + 1, *axes),
    )
    return jax.lax.conv_general_dilated(
        blocked, regrouped, (1,) * rank, "VALID", dimension_numbers=layout
    )


def _blocks(x, first, strides, before, lengths, channel_multiple):
    """Spatial axes from `first` on, and behind them the channels, become blocks and theirs.

    The axes get `before` zeros in front, and at the end what makes them `lengths` long, where
    that is shorter nothing but pixels that no window reaches.
    """
    rank = len(strides)
    channel_axis = first + rank
    edges = [(0, 0, 0)] * x.ndim
    for i, (low, length) in enumerate(zip(before, lengths, strict=True)):
        edges[first + i] = (low, length - low - x.shape[first + i], 0)
    x = jax.lax.pad(x, np.zeros((), x.dtype), edges)
    head, channels, tail = x.shape[:first], x.shape[channel_axis], x.shape[channel_axis + 1 :]
    blocks = [length // s for length, s in zip(lengths, strides, strict=True)]
    pairs = [size for pair in zip(blocks, strides, strict=True) for size in pair]
    x = x.reshape(*head, *pairs, channels, *tail)
    split = range(first, first + 2 * rank)
    order = [*range(first), *split[::2], *split[1::2], *range(first + 2 * rank, x.ndim)]
    depth = math.prod(strides) * channels
    x = x.transpose(order).reshape(*head, *blocks, depth, *tail)
    edges = [(0, 0, 0)] * x.ndim
    edges[channel_axis] = (0, -depth % channel_multiple, 0)
    return jax.lax.pad(x, np.zeros((), x.dtype), edges)
