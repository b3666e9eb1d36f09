"""Kernels and strides that may differ along the spatial axes, and from stage to stage."""

from collections.abc import Sequence
from typing import Any

PerAxis = int | Sequence[int]
PerStage = int | Sequence[int] | Sequence[Sequence[int]]


def per_axis(value: Any, rank: int, argument: str) -> tuple[int, ...]:
    """One positive integer for each spatial axis.

    Args:
        value: an integer for all axes, or a sequence with one for each (or one for all).
        rank: number of spatial axes.
        argument: its name, for the message.

    Raises:
        ValueError: for anything else, quoting it.
    """
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if len(values) == 1:
        values *= rank
    if len(values) != rank or not all(type(number) is int and number > 0 for number in values):
        axes = f", or {rank} of them, one for each spatial axis" if rank > 1 else ""
        raise ValueError(f"`{argument}` must be a positive integer{axes}, received {value!r}.")
    return values


def per_stage(value: Any, rank: int, stages: int, argument: str) -> list[tuple[int, ...]]:
    """What `per_axis` gives, for each stage.

    Args:
        value: what `per_axis` takes, for all stages; or a sequence of such sequences, one for each.
        rank: number of spatial axes.
        stages: number of stages.
        argument: its name, for the message.

    Raises:
        ValueError: for anything else, quoting it.
    """
    if not is_per_stage(value):
        return [per_axis(value, rank, argument)] * stages
    if len(value) != stages:
        raise ValueError(
            f"`{argument}` needs one entry for each of the {stages} stages, received {value!r}."
        )
    return [per_axis(entry, rank, argument) for entry in value]


def is_per_stage(value: Any) -> bool:
    """Whether it is a sequence with sequences in it."""
    return isinstance(value, (tuple, list)) and any(isinstance(v, (tuple, list)) for v in value)


def compact(values: Sequence[int]) -> int | tuple[int, ...]:
    """One integer where all axes have the same."""
    return values[0] if len(set(values)) == 1 else tuple(values)


def frozen(value: Any) -> Any:
    """Lists as tuples, as far down as they go."""
    return tuple(map(frozen, value)) if isinstance(value, (tuple, list)) else value
