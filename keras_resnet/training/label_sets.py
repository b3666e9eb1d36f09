"""How right a network is where an image has several labels or none: precision, recall, thresholds.

All scores of all images are kept, so that every figure is exact; that is 8 bytes for each image and
class (26 MB for COCO's 40,000 validation images with 80 classes). NumPy only.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.printing import csv_table, printable
from keras_resnet.storage import write_text

THRESHOLD = 0.5
# Images of a class from which a threshold of its own is chosen: fewer say too little.
ENOUGH = 5
_WORST = 5  # classes on the terminal


def average_precisions(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Returns the average precision of each class, float64[classes]; NaN where no image has it.

    The sum over the distinct scores, falling, of the precision at each times the recall that it
    adds: what scikit-learn's `average_precision_score` computes, without interpolation.

    Args:
        labels: bool[images, classes].
        scores: float[images, classes]; equal ones are one step.
    """
    values = [_average_precision(*columns) for columns in zip(labels.T, scores.T, strict=True)]
    return np.array(values, "float64")


def _average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    positives = int(labels.sum())
    if not positives:
        return np.nan
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of equal scores
    right = labels[order].cumsum()[last]
    return float((np.diff(right, prepend=0) * (right / (last + 1))).sum() / positives)


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> list[float]:
    """Returns for each class the threshold with the highest F1 on these images.

    It lies halfway between two neighboring probabilities; of equally good ones it is the one
    nearest to a half. Classes of fewer than `ENOUGH` images keep a half.

    Args:
        labels: bool[images, classes].
        probabilities: float[images, classes].
    """
    columns = zip(labels.T, probabilities.T.astype("float32"), strict=True)
    return [_best_threshold(*column) for column in columns]


def _best_threshold(labels: np.ndarray, values: np.ndarray) -> float:
    positives = int(labels.sum())
    if positives < ENOUGH:
        return THRESHOLD
    order = np.argsort(-values, kind="stable")
    ordered = np.append(values[order], np.float32(0))
    right = labels[order].cumsum()
    f1 = 2 * right / (np.arange(1, len(labels) + 1) + positives)
    # Of neighboring floats the middle is one of both; above the threshold is what is above it.
    middles = np.minimum(
        (ordered[:-1] + ordered[1:]) / 2, np.nextafter(ordered[:-1], np.float32(0))
    )
    f1[ordered[:-1] == ordered[1:]] = -1  # nothing lies between equal ones
    best = np.flatnonzero(f1 == f1.max())
    return float(middles[best][np.abs(middles[best] - THRESHOLD).argmin()])


@dataclasses.dataclass(frozen=True)
class LabelSetEvaluation:
    """What a network makes of a split with several labels an image, every image counted once.

    Attributes:
        means: map, f1, macro_f1, loss and examples: see `figures`.
        labels: bool[images, classes].
        probabilities: float32[images, classes].
        class_names: of the network.
    """

    means: dict[str, float]
    labels: np.ndarray
    probabilities: np.ndarray
    class_names: list[str]

    def average_precisions(self) -> np.ndarray:
        """Returns `average_precisions` of the classes."""
        return average_precisions(self.labels, self.probabilities)

    def best_thresholds(self) -> list[float]:
        """Returns `best_thresholds` on these images."""
        return best_thresholds(self.labels, self.probabilities)

    def at_thresholds(self, thresholds: Sequence[float]) -> dict[str, float]:
        """Returns f1 and macro_f1 at these thresholds, as f1_at_thresholds and so on."""
        found = figures(self.labels, self.probabilities, thresholds)
        return {f"{name}_at_thresholds": found[name] for name in ("f1", "macro_f1")}

    def per_class(self, thresholds: Sequence[float] | None = None) -> list[dict[str, Any]]:
        """Returns `class_rows`."""
        return class_rows(self.labels, self.probabilities, self.class_names, thresholds)


def figures(
    labels: np.ndarray, probabilities: np.ndarray, thresholds: Sequence[float] | None = None
) -> dict[str, float]:
    """Returns map, f1 and macro_f1.

    `map` is the mean of the average precisions of all classes that some image has, 0 if there is no
    such class; `f1` is of all labels of all images together, `macro_f1` the mean over the same
    classes as `map`.

    Args:
        labels: bool[images, classes].
        probabilities: float[images, classes].
        thresholds: above which a class is predicted, a half without.
    """
    present = labels.any(axis=0)
    precisions = average_precisions(labels[:, present], probabilities[:, present])
    right, predicted, there = _counts(labels, probabilities, thresholds)
    return {
        "map": float(precisions.mean()) if present.any() else 0.0,
        "f1": float(_f1(right.sum(), predicted.sum(), there.sum())),
        "macro_f1": float(_f1(right, predicted, there)[present].mean()) if present.any() else 0.0,
    }


def class_rows(
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    thresholds: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Returns a dict for each class.

    Returns:
        class, examples (images that have it), average_precision, threshold, precision, recall, f1,
        predicted and correct: images of which it is predicted, and those that have it. What is not
        defined is None.
    """
    precisions = average_precisions(labels, probabilities)
    right, predicted, there = _counts(labels, probabilities, thresholds)
    limits = [THRESHOLD] * len(names) if thresholds is None else thresholds
    return [
        {
            "class": name,
            "examples": int(there[i]),
            "average_precision": float(precisions[i]) if there[i] else None,
            "threshold": limits[i],
            "precision": right[i] / predicted[i] if predicted[i] else None,
            "recall": right[i] / there[i] if there[i] else None,
            "f1": float(_f1(right[i], predicted[i], there[i])) if there[i] else None,
            "predicted": int(predicted[i]),
            "correct": int(right[i]),
        }
        for i, name in enumerate(names)
    ]


def table_text(rows: Sequence[dict[str, Any]]) -> str:
    """Returns `class_rows` as CSV, with an empty cell for None; names as `csv_cell` has them."""
    return csv_table(rows)


def write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes `table_text` to a CSV file."""
    write_text(path, table_text(rows))


def worst_classes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns lines on the classes with the lowest average precision, the worst first, to print."""
    known = [row for row in rows if row["examples"] and row["average_precision"] < 1]
    worst = sorted(known, key=lambda row: row["average_precision"])[:_WORST]
    width = max((len(printable(row["class"])) for row in worst), default=0)
    return [
        f"  {printable(row['class']):<{width}}  AP {row['average_precision']:.4f}  F1 "
        f"{row['f1']:.4f} of {row['examples']:,}"
        for row in worst
    ]


def exceeds(probabilities: np.ndarray, thresholds: Sequence[float] | None) -> np.ndarray:
    """Returns bool[images, classes]: which classes are predicted, those above their thresholds."""
    limits = THRESHOLD if thresholds is None else np.asarray(thresholds, probabilities.dtype)
    return probabilities > limits


def _counts(
    labels: np.ndarray, probabilities: np.ndarray, thresholds: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each class the images that are rightly predicted, predicted, and have it."""
    predicted = exceeds(probabilities, thresholds)
    return (predicted & labels).sum(axis=0), predicted.sum(axis=0), labels.sum(axis=0)


def _f1(right, predicted, there) -> np.ndarray:
    """Returns 2 · right / (predicted + there), 0 where nothing is predicted or there."""
    both = np.asarray(predicted + there)
    return np.where(both > 0, 2 * np.asarray(right) / np.maximum(both, 1), 0.0)
