"""Where each block of a network stands: kernels, strides and dilations."""

import dataclasses
import itertools
import math

from keras_resnet.architectures import Architecture
from keras_resnet.axes import PerAxis, compact, is_per_stage, per_stage
from keras_resnet.blocks.stems import stem_strides


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """Where a block stands: its stage and number (from 1), stride, dilations and kernel.

    A kernel_size of None is the block's own.
    """

    stage: int
    block: int
    stride: PerAxis
    first_dilation: PerAxis
    dilation: PerAxis
    kernel_size: PerAxis | None
    depth_fraction: float  # 0 for the first block of the network, 1 for the last


def total_strides(row: Architecture, rank: int) -> tuple[int, ...]:
    """Pixels of the input per pixel of the last feature map, without dilation, along each axis.

    Raises:
        ValueError: for strides that the network cannot have.
    """
    return tuple(map(math.prod, zip(*_strides(row, rank), strict=True)))


def plan_blocks(row: Architecture, rank: int, output_stride: int | None = None) -> list[BlockPlan]:
    """Strides, dilations and kernels of all blocks.

    Strides beyond `output_stride` become dilations: the convolution that loses its stride keeps
    the dilation of what came before, everything after it has twice as much (torchvision's
    `replace_stride_with_dilation`), so the outputs of the strided network are a subset of those
    of the dilated one. (Not with Keras' padding, which is another one for strided kernels.) An axis
    with smaller strides than others may have no more than `output_stride` anyway and keeps them.

    Args:
        row: the network.
        rank: number of spatial axes.
        output_stride: pixels of the input per pixel of the last feature map.

    Raises:
        ValueError: for strides, kernels or an `output_stride` that the network cannot have.
    """
    so_far, *strides = _strides(row, rank)
    kernels = _kernels(row, rank)
    target = _target(row, [so_far, *strides], output_stride)
    plans: list[BlockPlan] = []
    dilation = (1,) * rank
    count = sum(row.depths)
    for stage, depth in enumerate(row.depths, start=1):
        for block in range(1, depth + 1):
            stride = (1,) * rank
            if row.stride_in_last_block:
                if block == depth and stage < len(row.depths):
                    stride = strides[stage]
            elif block == 1:
                stride = strides[stage - 1]
            first_dilation = dilation
            beyond = [before * s > target for before, s in zip(so_far, stride, strict=True)]
            dilation = tuple(
                d * s if b else d for d, s, b in zip(dilation, stride, beyond, strict=True)
            )
            stride = tuple(1 if b else s for s, b in zip(stride, beyond, strict=True))
            so_far = tuple(before * s for before, s in zip(so_far, stride, strict=True))
            plans.append(
                BlockPlan(
                    stage,
                    block,
                    compact(stride),
                    compact(first_dilation),
                    compact(dilation),
                    kernels[stage - 1],
                    len(plans) / max(count - 1, 1),
                )
            )
    return plans


def _strides(row: Architecture, rank: int) -> list[tuple[int, ...]]:
    """Of the whole stem and of each stage."""
    first, later = stem_strides(row.stem, row.stem_stride, row.stem_pool_stride, rank)
    stages = per_stage(row.stage_stride, rank, len(row.depths), "stage_stride")
    if not is_per_stage(row.stage_stride):
        stages[0] = (1,) * rank
    if row.stride_in_last_block and max(stages[0]) > 1:
        raise ValueError(
            f"`stage_stride` is {row.stage_stride!r}, but {row.name} has its strides in the last "
            "block of the stage before (`stride_in_last_block`): the first stage has none."
        )
    return [tuple(a * b for a, b in zip(first, later, strict=True)), *stages]


def _kernels(row: Architecture, rank: int) -> list[PerAxis | None]:
    if row.block_kernel_size is None:
        return [None] * len(row.depths)
    stages = per_stage(row.block_kernel_size, rank, len(row.depths), "block_kernel_size")
    return [compact(kernel) for kernel in stages]


def _target(row: Architecture, strides: list[tuple[int, ...]], output_stride: int | None) -> float:
    """The largest stride so far that a block may have before it."""
    if output_stride is None:
        return math.inf
    # Of the axis with the largest stride: the last three resolutions.
    axis = max(zip(*strides, strict=True), key=math.prod)
    allowed = sorted(set(itertools.accumulate(axis, int.__mul__)), reverse=True)[:3]
    if type(output_stride) is not int or output_stride not in allowed:
        choice = " or ".join(filter(None, (", ".join(map(str, allowed[:-1])), str(allowed[-1]))))
        raise ValueError(f"`output_stride` of {row.name} is {choice}, received {output_stride!r}.")
    return output_stride
