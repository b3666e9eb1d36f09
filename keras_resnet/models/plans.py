"""Where each block of a network stands: strides and dilations."""

import dataclasses

from keras_resnet.architectures import Architecture


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """Where a block stands: its stage and number (from 1), stride and dilations."""

    stage: int
    block: int
    stride: int
    first_dilation: int
    dilation: int
    depth_fraction: float  # 0 for the first block of the network, 1 for the last


def plan_blocks(row: Architecture, output_stride: int | None = None) -> list[BlockPlan]:
    """Strides and dilations of all blocks.

    Strides beyond `output_stride` become dilations: the convolution that loses its stride keeps
    the dilation of what came before, everything after it has twice as much (torchvision's
    `replace_stride_with_dilation`), so the outputs of the strided network are a subset of those
    of the dilated one.

    Raises:
        ValueError: for an `output_stride` that the network cannot have.
    """
    allowed = [row.stride // d for d in (1, 2, 4) if row.stride // d >= row.stem_stride]
    if output_stride is not None and output_stride not in allowed:
        raise ValueError(
            f"`output_stride` of {row.name} is {', '.join(map(str, allowed[:-1]))} or "
            f"{allowed[-1]}, received {output_stride!r}."
        )
    target = output_stride or row.stride
    plans: list[BlockPlan] = []
    stride_so_far, dilation = row.stem_stride, 1
    count = sum(row.depths)
    for stage, depth in enumerate(row.depths, start=1):
        last_stage = stage == len(row.depths)
        for block in range(1, depth + 1):
            if row.stride_in_last_block:
                stride = 2 if block == depth and not last_stage else 1
            else:
                stride = 2 if block == 1 and stage > 1 else 1
            first_dilation = dilation
            if stride > 1 and stride_so_far >= target:
                dilation *= stride
                stride = 1
            stride_so_far *= stride
            fraction = len(plans) / max(count - 1, 1)
            plans.append(BlockPlan(stage, block, stride, first_dilation, dilation, fraction))
    return plans
