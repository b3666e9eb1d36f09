"""Which images a report shows: a share of each cell of the confusion matrix. NumPy only."""

import numpy as np

from keras_resnet.explain.predictions import Predictions
from keras_resnet.reports.contents import Cell

# Pictures behind one cell; of right answers fewer, they teach less.
PER_CELL, PER_RIGHT_CELL = 20, 6
# Pictures in all: at some 4 KB each what leaves room for the rest in 5 MB.
MISTAKES, RIGHT = 400, 200
# To be read for them, so that photos of a phone take no minutes: fewer of large files.
READ_BYTES = 300_000_000


def behind_cells(predictions: Predictions, largest: int = PER_CELL) -> dict[Cell, list[int]]:
    """Places of the images to show of each cell, the mistakes first.

    Cells share what room there is evenly; of more cells than that the fullest have an image. In
    each the surest mistakes come first, of right answers the most doubtful.

    Args:
        predictions: with labels.
        largest: images of a cell.
    """
    if predictions.labels is None:
        return {}
    right = predictions.classes == predictions.labels
    surest = np.argsort(-predictions.confidence, kind="stable")
    wrong = _shared(predictions, surest[~right[surest]], MISTAKES, largest)
    doubtful = surest[::-1]
    answers = _shared(predictions, doubtful[right[doubtful]], RIGHT, min(largest, PER_RIGHT_CELL))
    return {**wrong, **answers}


def largest_cell(mean_bytes: float) -> int:
    """How many images of a cell may be read at most, of files of so many bytes."""
    images = READ_BYTES / max(mean_bytes, 1)
    return int(min(PER_CELL, max(2, PER_CELL * images / (MISTAKES + RIGHT))))


def _shared(
    predictions: Predictions, order: np.ndarray, room: int, largest: int
) -> dict[Cell, list[int]]:
    """The first of each cell in `order`, as many of each as there is room for."""
    assert predictions.labels is not None
    cells: dict[Cell, list[int]] = {}
    for place in order.tolist():
        cell = int(predictions.labels[place]), int(predictions.classes[place])
        cells.setdefault(cell, []).append(place)
    fullest = sorted(cells, key=lambda cell: (-len(cells[cell]), cell))[:room]
    each = largest
    while each > 1 and sum(min(len(cells[cell]), each) for cell in fullest) > room:
        each -= 1
    return {cell: cells[cell][:each] for cell in fullest}
