"""What steps count: sums over examples, their averages, and the confusion matrix, in NumPy."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# The order of the sums that steps return, so that one tensor crosses replicas instead of several.
SUMS = ("loss", "top1", "top5", "examples")
# The same of several labels an image: labels that are rightly predicted, and those that are missed
# or wrongly predicted.
LABEL_SET_SUMS = ("loss", "true_positives", "errors", "examples")
# What the steps of a distilled run count after those: the teacher's part of the loss.
DISTILLATION = "distillation_loss"
# What an evaluation gives, the one by which the best is chosen first.
FIGURES = ("top1", "top5", "loss", "examples")
LABEL_SET_FIGURES = ("map", "f1", "macro_f1", "loss", "examples")


def averages(sums, names: Sequence[str] = SUMS) -> dict[str, float]:
    """Turns sums, float[steps, 4] or float[4], into means over all examples.

    Added up in float64, so that counts are exact. The number of examples is "examples". Of
    LABEL_SET_SUMS "f1" is 2 · true positives / (2 · true positives + errors) over all classes, in
    the place of both.
    """
    totals = np.asarray(sums, "float64").reshape(-1, len(names)).sum(axis=0)
    values = dict(zip(names, totals.tolist(), strict=True))
    examples = round(values.pop("examples"))
    if not examples:
        return {"examples": examples}
    shares: dict[str, float] = {}
    if "true_positives" in values:
        twice = 2 * values.pop("true_positives")
        errors = values.pop("errors")
        shares["f1"] = twice / (twice + errors) if twice else 0.0
    means = {name: value / examples for name, value in values.items()}
    return {**means, **shares, "examples": examples}


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


def is_figure(value: Any) -> bool:
    """Whether a value of JSON is a number that fits into a float; JSON has integers of any size."""
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def figures_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of an evaluation in a row or a result; None unless it has all of them."""
    for names in (FIGURES, LABEL_SET_FIGURES):
        found = {name: row.get(name) for name in names}
        if None not in found.values():
            return found
    return None


def score_of(means: Mapping[str, Any]) -> tuple[str, float]:
    """What the best evaluation is chosen by: its name as people read it, and its value."""
    return ("mAP", means["map"]) if "map" in means else ("top1", means["top1"])


def describe_accuracy(means: Mapping[str, Any], classes: int) -> str:
    """Returns "top1 0.9000  top5 0.9900"; top-5 is left out where it is 1 by nature.

    Of several labels an image "mAP 0.9000  F1 0.8500".
    """
    if "map" in means:
        return f"mAP {means['map']:.4f}  F1 {means['f1']:.4f}"
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
        names: of the sums.
        seconds: that they took.
    """

    first: int
    names: tuple[str, ...] = SUMS
    seconds: float = 0.0
    _rows: list[np.ndarray] = dataclasses.field(default_factory=list)

    @property
    def step(self) -> int:
        """Steps that are done now."""
        return self.first + sum(map(len, self._rows))

    def add(self, sums: np.ndarray, seconds: float) -> None:
        """Adds the sums of further steps, float[steps, 4], and the time they took."""
        self._rows.append(sums)
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Returns loss, examples, seconds, top1 and top5, or f1, and perhaps DISTILLATION."""
        return {**averages(np.concatenate(self._rows), self.names), "seconds": self.seconds}

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
