"""Occlusion: how far a score falls where a part of the input is gray.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section 4.2. They
draw the probability; here it is the score before softmax, which does not saturate.
"""

import itertools
from collections.abc import Iterator

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.explain.running import Runner

# A window of a quarter of the image, as theirs of 50 of 224 pixels, that moves by half of itself.
CELLS = 8
_WINDOW = 2  # cells along each axis


def maps(
    runner: Runner,
    inputs: np.ndarray,
    classes: np.ndarray,
    scores: np.ndarray,
    cells: int = CELLS,
    fill: float | None = 0.0,
) -> np.ndarray:
    """Of each cell the mean fall of the score over the windows that cover it.

    Args:
        runner: of a classifier.
        inputs: float [n, ...], what it takes.
        classes: int [n, k].
        scores: float [n, units], of the inputs.
        cells: along the longest axis; along the others of the same size, as far as that goes.
        fill: what stands for gray; None takes the mean of each channel of each input.

    Returns:
        float32 [n, k, *cells].

    Raises:
        UserError: `cells` is no positive integer.
    """
    if isinstance(cells, bool) or not isinstance(cells, int) or cells < 1:
        raise UserError(f"cells is {cells!r}; it must be a positive integer")
    channels = 1 if runner.anatomy.channels_first else inputs.ndim - 1
    axes = [axis for axis in range(1, inputs.ndim) if axis != channels]
    edges = [_edges(inputs.shape[axis], max(inputs.shape[a] for a in axes), cells) for axis in axes]
    shape = tuple(len(edge) - 1 for edge in edges)
    before = np.take_along_axis(scores, classes, axis=1)
    falls = np.zeros((*classes.shape, *shape), "float64")
    counts = np.zeros(shape)
    gray = inputs.mean(axis=tuple(axes), keepdims=True) if fill is None else np.float32(fill)
    for window in _windows(shape):
        hidden = inputs.copy()
        place: list[slice] = [slice(None)] * inputs.ndim
        for axis, edge, (first, last) in zip(axes, edges, window, strict=True):
            place[axis] = slice(edge[first], edge[last])
        hidden[tuple(place)] = gray
        after = np.take_along_axis(runner(hidden).scores, classes, axis=1)
        covered = tuple(slice(first, last) for first, last in window)
        falls[(slice(None), slice(None), *covered)] += (before - after).reshape(
            *classes.shape, *[1] * len(shape)
        )
        counts[covered] += 1
    return (falls / counts).astype("float32")


def _edges(size: int, longest: int, cells: int) -> np.ndarray:
    """Where the cells of an axis begin, and the last ends."""
    count = min(size, max(1, round(cells * size / longest)))
    return np.round(np.linspace(0, size, count + 1)).astype(int)


def _windows(shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    """(first, last) along each axis; over the borders, so that each cell is covered as often."""
    along = [
        [(max(0, start), min(size, start + _WINDOW)) for start in range(1 - _WINDOW, size)]
        for size in shape
    ]
    return itertools.product(*along)
