"""What a model makes of labelled images of which each may have several labels or none."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.training import label_sets


@dataclasses.dataclass(frozen=True)
class LabelSetDataEvaluation:
    """What a model makes of such images, each counted once; made by `keras_resnet.evaluate`.

    Attributes:
        layout: one line on how the images were found to lie, or "".
        source: what was evaluated, as in "photos test: 360 images, 10 classes".
        notes: lines on classes and images that a person should know of.
        class_names: the classes of the model that the data has, in the model's order. Of others
            nothing can be said.
        files: name of each image that counts.
        labels: bool [examples, classes].
        probabilities: float32 [examples, classes].
        thresholds: of the model, above which it predicts each class.
        unreadable: a sentence on each image that cannot be read and does not count.
    """

    layout: str
    source: str
    notes: tuple[str, ...]
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    thresholds: tuple[float, ...]
    unreadable: tuple[str, ...]

    @property
    def examples(self) -> int:
        """Number of images that count."""
        return len(self.labels)

    @property
    def map(self) -> float:
        """Mean of the average precisions of all classes that some image has."""
        return self._figures["map"]

    @property
    def loss(self) -> float:
        """Mean binary cross-entropy, over images and classes."""
        right = np.where(self.labels, self.probabilities, 1 - self.probabilities)
        tiny = np.finfo("float32").eps  # a float32 is no nearer to 1
        return float(-np.log(np.maximum(right.astype("float64"), tiny)).mean())

    @property
    def _figures(self) -> dict[str, float]:
        return label_sets.figures(self.labels, self.probabilities)

    def per_class(self) -> list[dict[str, Any]]:
        """A dict for each class, at the thresholds of the model: see `label_sets.class_rows`."""
        return label_sets.class_rows(
            self.labels, self.probabilities, self.class_names, self.thresholds
        )

    def class_table(self) -> str:
        """`per_class` as CSV."""
        return label_sets.table_text(self.per_class())

    def figures(self) -> dict[str, float]:
        """map, f1 and macro_f1; those F1 at the model's thresholds as well; loss."""
        tuned = label_sets.figures(self.labels, self.probabilities, self.thresholds)
        return {
            **self._figures,
            **{f"{name}_at_thresholds": tuned[name] for name in ("f1", "macro_f1")},
            "loss": self.loss,
        }

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: the figures, the notes and the classes."""
        return {
            "data": self.source,
            "layout": self.layout,
            "examples": self.examples,
            **self.figures(),
            "notes": list(self.notes),
            "unreadable": list(self.unreadable),
            "classes": self.per_class(),
        }


def scores_by_class(class_ids: np.ndarray, probabilities: np.ndarray, classes: int) -> np.ndarray:
    """Returns float32 [images, classes] from the answers of a predictor, most probable first.

    Raises:
        UserError: the answers are of a few classes only, as of an export with a smaller `top`.
    """
    if class_ids.shape[1] < classes:
        raise UserError(
            f"the export answers with {class_ids.shape[1]} of its {classes} classes, and the mean "
            "average precision takes the probabilities of all; export it again without --top"
        )
    scores = np.zeros((len(class_ids), classes), "float32")
    np.put_along_axis(scores, class_ids, probabilities, axis=1)
    return scores


def columns_of(
    names: Sequence[str], numbers: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> tuple[tuple[str, ...], list[int], np.ndarray, np.ndarray]:
    """Returns names, numbers, labels and scores of the classes that data and model share.

    Args:
        names: of the model's classes.
        numbers: for each class of the data its number in the model.
        labels: [images, classes of the data].
        scores: [images, classes of the model].
    """
    order = np.argsort(numbers)
    kept = numbers[order].tolist()
    return tuple(names[i] for i in kept), kept, labels[:, order] > 0, scores[:, kept]
