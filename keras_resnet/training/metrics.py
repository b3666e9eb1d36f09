"""What steps count: sums over examples, their averages, and the confusion matrix, in NumPy."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# The order of the sums that steps return, so that one tensor crosses replicas instead of several.
SUMS = ("loss", "top1", "top5", "examples")


def averages(sums) -> dict[str, float]:
    """Turns SUMS, float[steps, 4] or float[4], into means over all examples.

    Added up in float64, so that counts are exact. The number of examples is "examples".
    """
    totals = np.asarray(sums, "float64").reshape(-1, len(SUMS)).sum(axis=0)
    values = dict(zip(SUMS, totals.tolist(), strict=True))
    examples = round(values.pop("examples"))
    means = {name: value / examples for name, value in values.items()} if examples else {}
    return {**means, "examples": examples}


def images_per_second(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """Returns training images/s over a run, without evaluation and compilation.

    Args:
        rows: of metrics.jsonl.

    Returns:
        None if the rows, of a damaged file, cannot tell.
    """
    train = [row for row in rows if row["kind"] == "train"]
    train = [row for row in train if row.get("examples") and row.get("images_per_second")]
    train = [row for row in train if not row.get("compiles")] or train
    seconds = sum(row["examples"] / row["images_per_second"] for row in train)
    return sum(row["examples"] for row in train) / seconds if train else None


def describe_accuracy(means: dict[str, float], classes: int) -> str:
    """Returns "top1 0.9000  top5 0.9900"; top-5 is left out where it is 1 by nature."""
    top1 = f"top1 {means['top1']:.4f}"
    return f"{top1}  top5 {means['top5']:.4f}" if classes > 5 else top1


def first_non_finite(sums) -> int | None:
    """Returns the first row of SUMS, float[steps, 4], whose loss is no finite number, or None."""
    failed = ~np.isfinite(np.asarray(sums)[:, SUMS.index("loss")])
    return int(failed.argmax()) if failed.any() else None


@dataclasses.dataclass
class Window:
    """What the steps since the last report have counted.

    Attributes:
        first: steps that were done before.
        seconds: that they took.
    """

    first: int
    seconds: float = 0.0
    _rows: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps that are done now."""
        return self.first + sum(map(len, self._rows))

    def add(self, sums: np.ndarray, seconds: float) -> None:
        """Adds SUMS of further steps, float[steps, 4], and the time they took."""
        self._rows.append(sums)
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Returns loss, top1, top5, examples and seconds."""
        return {**averages(np.concatenate(self._rows)), "seconds": self.seconds}

    def non_finite_step(self) -> int | None:
        """Returns the first step (counted from 0) whose loss was no finite number, or None."""
        index = first_non_finite(np.concatenate(self._rows))
        return None if index is None else self.first + index


def confusion_matrix(pairs: np.ndarray, classes: int) -> np.ndarray:
    """Counts how often each class was taken for which.

    Args:
        pairs: int[n, 2], label and prediction of each example, as `Evaluation` has them.
        classes: number of classes.

    Returns:
        int64[classes, classes]: row the label, column the prediction. 8 MB for 1,000 classes.
    """
    flat = pairs[:, 0].astype("int64") * classes + pairs[:, 1]
    return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def per_class_accuracy(pairs: np.ndarray, classes: int) -> np.ndarray:
    """Returns the top-1 accuracy of each class, float64[classes]; NaN where it has no examples."""
    examples = np.bincount(pairs[:, 0], minlength=classes)
    right = np.bincount(pairs[pairs[:, 0] == pairs[:, 1], 0], minlength=classes)
    return np.where(examples > 0, right / np.maximum(examples, 1), np.nan)
