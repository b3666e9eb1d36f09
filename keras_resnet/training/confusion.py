"""What the last evaluation says of each class: classes.csv, confusion.png, and lines to print."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.printing import any_letters, csv_table, printable
from keras_resnet.storage import replacing, write_text

LABELED = 40  # classes up to which the picture names them; numbers in the cells up to half of it
WORST = 5  # classes on the terminal


def class_rows(matrix: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Returns for each class its class, examples, correct, accuracy, most_confused_with, times.

    Args:
        matrix: int[classes, classes], row the label, column the prediction.
        names: of the classes.

    Returns:
        A dict with these keys for each, and precision, recall, f1 and support as others name them:
        support is the number of examples and recall the accuracy. What would be divided by 0 is
        None: the recall of a class without examples, the precision of one that was never
        predicted, F1 where both are so. most_confused_with is None for a class that was never
        taken for another.
    """
    rows = []
    predicted = matrix.sum(axis=0)
    for index, name in enumerate(names):
        examples, correct = int(matrix[index].sum()), int(matrix[index, index])
        other, times = _most_confused(matrix, index)
        recall = _share(correct, examples)
        rows.append(
            {
                "class": name,
                "examples": examples,
                "correct": correct,
                "accuracy": recall,
                "most_confused_with": names[other] if times else None,
                "times": times,
                "precision": _share(correct, int(predicted[index])),
                "recall": recall,
                "f1": _share(2 * correct, examples + int(predicted[index])),
                "support": examples,
            }
        )
    return rows


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def table_text(matrix: np.ndarray, names: Sequence[str]) -> str:
    """Returns `class_rows` as CSV, with an empty cell for None; names as `csv_cell` has them."""
    return csv_table(class_rows(matrix, names))


def write_table(matrix: np.ndarray, names: list[str], path: Path) -> None:
    """Writes `table_text` to a CSV file."""
    write_text(path, table_text(matrix, names))


def worst_classes(matrix: np.ndarray, names: list[str]) -> list[str]:
    """Returns lines on the classes with the lowest accuracy, the worst first, to print."""
    examples = matrix.sum(axis=1)
    accuracy = np.where(examples > 0, matrix.diagonal() / np.maximum(examples, 1), 2.0)
    worst = [index for index in np.argsort(accuracy, kind="stable")[:WORST] if accuracy[index] < 1]
    names = [printable(name) for name in names]
    width = max((len(names[index]) for index in worst), default=0)
    lines = []
    for index in worst:
        other, times = _most_confused(matrix, index)
        lines.append(
            f"  {names[index]:<{width}}  {accuracy[index]:7.2%} of {examples[index]:,}, "
            f"{times:,} taken for {names[other]}"
        )
    return lines


@any_letters()
def draw(matrix: np.ndarray, names: list[str], path: Path, title: str) -> None:
    """Draws the matrix, each row in shares of its label, to a PNG.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [printable(name).replace("$", r"\$") for name in names]  # no formula of TeX
    labeled = len(names) <= LABELED
    size = 3.5 + 0.35 * len(names) if labeled else 9.0
    figure = Figure(figsize=(size + 1.0, size), layout="constrained")
    axes = figure.subplots()
    # The square root shows single confusions beside a strong diagonal.
    picture = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the label's examples")
    ticks = np.array([0, 0.01, 0.1, 0.25, 0.5, 0.75, 1.0])
    bar.set_ticks(np.sqrt(ticks), labels=[f"{tick:.0%}" for tick in ticks])
    axes.set(xlabel="prediction", ylabel="label", title=title)
    if labeled:
        axes.set_xticks(range(len(names)), labels=names, rotation=90)
        axes.set_yticks(range(len(names)), labels=names)
    if len(names) <= LABELED // 2:
        for row, column in np.argwhere(matrix):
            color = "white" if shares[row, column] > 0.3 else "black"
            axes.text(
                column,
                row,
                f"{matrix[row, column]}",
                ha="center",
                va="center",
                fontsize="small",
                color=color,
            )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _most_confused(matrix: np.ndarray, label: int) -> tuple[int, int]:
    """Returns the class that `label` was most often taken for, and how often."""
    wrong = matrix[label].copy()
    wrong[label] = 0
    other = int(wrong.argmax())
    return other, int(wrong[other])
