"""The message for weights that do not fit: what is missing beside what is there."""

from collections.abc import Mapping, Sequence

import numpy as np

from keras_resnet.weights.checkpoint import LISTED


def side_by_side(
    left: Sequence[tuple[str, tuple[int, ...]]],
    right: Sequence[tuple[str, tuple[int, ...]]],
    titles: tuple[str, str],
) -> str:
    """A table of two lists of names with shapes, cut after LISTED rows."""
    columns = [
        [title, *(f"{name} {shape_text(shape)}" for name, shape in rows[:LISTED])]
        for title, rows in zip(titles, (left, right), strict=True)
    ]
    for column, rows in zip(columns, (left, right), strict=True):
        if len(rows) > LISTED:
            column.append(f"and {len(rows) - LISTED} more")
    height = max(map(len, columns))
    filled = [column + [""] * (height - len(column)) for column in columns]
    width = max(map(len, filled[0]))
    return "\n".join(
        f"  {one:<{width}}  {other}".rstrip() for one, other in zip(*filled, strict=True)
    )


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as "64×3×7×7"; "scalar" without axes."""
    return "×".join(map(str, shape)) or "scalar"


def shapes_of(arrays: Mapping[str, np.ndarray]) -> list[tuple[str, tuple[int, ...]]]:
    """Names with shapes."""
    return [(name, array.shape) for name, array in arrays.items()]


def shapes_in(
    layers: Mapping[str, Mapping[str, tuple[int, ...]]], separator: str
) -> list[tuple[str, tuple[int, ...]]]:
    """Names with shapes of the variables of layers."""
    return [
        (f"{layer}{separator}{variable}", shape)
        for layer, variables in layers.items()
        for variable, shape in variables.items()
    ]
