"""What a model makes of labelled images: the results of `keras_resnet.evaluate`. NumPy only."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.flips import tta_note
from keras_resnet.printing import csv_table
from keras_resnet.training import confusion, label_sets, metrics

TOP = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledEvaluation(abc.ABC):
    """What evaluations of images with one label and with several have in common.

    Attributes:
        layout: one line on how the images were found to lie, or "".
        source: what was evaluated, as in "photos test: 360 images, 10 classes".
        notes: lines on classes and images that a person should know of.
        class_names: by number.
        files: name of each image that counts.
        labels: of each image.
        probabilities: that the model gives each image.
        unreadable: a sentence on each image that cannot be read and does not count.
        tta: whether mirror images had a say, one of `flips.TTA`.
    """

    layout: str
    source: str
    notes: tuple[str, ...]
    class_names: tuple[str, ...]
    files: tuple[str, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    unreadable: tuple[str, ...]
    tta: str = "none"

    @property
    def examples(self) -> int:
        """Number of images that count."""
        return len(self.labels)

    @abc.abstractmethod
    def figures(self) -> dict[str, float]:
        """The figures over all images by their names."""

    @abc.abstractmethod
    def per_class(self) -> list[dict[str, Any]]:
        """A dict for each class."""

    def class_table(self) -> str:
        """`per_class` as CSV."""
        return csv_table(self.per_class())

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold: the figures, the notes and the classes."""
        return {
            "data": self.source,
            "layout": self.layout,
            "examples": self.examples,
            **tta_note(self.tta),
            **self.figures(),
            "notes": list(self.notes),
            "unreadable": list(self.unreadable),
            "classes": self.per_class(),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataEvaluation(LabelledEvaluation):
    """What a model makes of images with one label each, each counted once.

    Attributes beside those of all evaluations:
        class_names: of the model, by number.
        labels: int32 [examples], numbers of classes of the model.
        predictions: int32 [examples, k], the most probable classes, the most probable first.
        probabilities: float32 [examples, k], of those.
    """

    predictions: np.ndarray

    @property
    def top1(self) -> float:
        """The share of the images of which the label is the most probable class."""
        return self._share_within(1)

    @property
    def top5(self) -> float | None:
        """The same for the five most probable; None for five classes or fewer, where it is 1.

        It is also None of an export that answers with fewer than five classes.
        """
        if len(self.class_names) <= TOP or self.predictions.shape[1] < TOP:
            return None
        return self._share_within(TOP)

    @property
    def loss(self) -> float | None:
        """Mean cross-entropy of the labels; None of an export that answers with a few classes."""
        if self.predictions.shape[1] < len(self.class_names):
            return None
        of_label = self.probabilities[self.predictions == self.labels[:, None]].astype("float64")
        return float(-np.log(np.maximum(of_label, np.finfo("float32").tiny)).mean())

    def confusion_matrix(self) -> np.ndarray:
        """int64 [classes, classes]: row the label, column the prediction."""
        pairs = np.stack([self.labels, self.predictions[:, 0]], axis=1)
        return metrics.confusion_matrix(pairs, len(self.class_names))

    def per_class(self) -> list[dict[str, Any]]:
        """A dict for each class: class, examples, correct, accuracy, most_confused_with, times.

        It also has precision, recall, f1 and support, see `confusion.class_rows`.
        """
        return confusion.class_rows(self.confusion_matrix(), self.class_names)

    def figures(self) -> dict[str, float]:
        """top1, top5 and loss, as far as they are known."""
        found = {"top1": self.top1, "top5": self.top5, "loss": self.loss}
        return {name: value for name, value in found.items() if value is not None}

    def all_probabilities(self) -> np.ndarray:
        """float32 [examples, classes], in the order of the classes.

        Raises:
            UserError: the model is an export that answers with a few classes only.
        """
        return scores_by_class(self.predictions, self.probabilities, len(self.class_names))

    def _share_within(self, top: int) -> float:
        hits = (self.predictions[:, :top] == self.labels[:, None]).any(axis=1)
        return float(hits.mean())


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSetDataEvaluation(LabelledEvaluation):
    """What a model makes of images with several labels or none, each counted once.

    Attributes beside those of all evaluations:
        class_names: the classes of the model that the data has, in the model's order. Of others
            nothing can be said.
        labels: bool [examples, classes].
        probabilities: float32 [examples, classes].
        thresholds: of the model, above which it predicts each class.
    """

    thresholds: tuple[float, ...]

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

    def figures(self) -> dict[str, float]:
        """map, f1 and macro_f1; those F1 at the model's thresholds as well; loss."""
        tuned = label_sets.figures(self.labels, self.probabilities, self.thresholds)
        return {
            **self._figures,
            **{f"{name}_at_thresholds": tuned[name] for name in ("f1", "macro_f1")},
            "loss": self.loss,
        }


def scores_by_class(class_ids: np.ndarray, probabilities: np.ndarray, classes: int) -> np.ndarray:
    """Returns float32 [images, classes] from the answers of a predictor, most probable first.

    Raises:
        UserError: the answers are of a few classes only, as of an export with a smaller `top`.
    """
    if class_ids.shape[1] < classes:
        raise UserError(
            f"the export answers with {class_ids.shape[1]} of its {classes} classes, and this "
            "takes the probabilities of all; export it again without --top, or take the .keras file"
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
