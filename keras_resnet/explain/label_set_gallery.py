"""Where a network of several labels an image is right and wrong: an answer for each class."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_resnet.explain.heatmaps import heatmaps
from keras_resnet.explain.label_set_predictions import LabelSetPredictions
from keras_resnet.explain.neighbors import Neighbor
from keras_resnet.explain.seen import Seen, see_again
from keras_resnet.explain.selection import CLASSES
from keras_resnet.training.label_sets import average_precisions

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source

# An image, and the place of a class: what one answer is of.
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a network says of one class of an image, and why.

    Attributes:
        path: of the image.
        class_name: of the class.
        probability: of the class.
        predicted: whether that is above the threshold.
        is_there: whether the image has the class; None if that is not known.
        labels: all classes that the image has.
        photo: uint8 [size, size, 3], as the network sees it.
        heat: float32 [*cells], what speaks for the class.
        neighbors: the training images most like it, the most similar first.
    """

    path: str
    class_name: str
    probability: float
    predicted: bool
    is_there: bool | None
    labels: tuple[str, ...]
    photo: np.ndarray
    heat: np.ndarray
    neighbors: tuple[Neighbor, ...]

    @property
    def sentence(self) -> str:
        """What it is, in a few words: "false cat", "missed cat", "cat"."""
        if self.is_there is None or self.is_there == self.predicted:
            return self.class_name if self.predicted else f"no {self.class_name}"
        return f"{'false' if self.predicted else 'missed'} {self.class_name}"


@dataclasses.dataclass(frozen=True)
class ClassAnswers:
    """The extremes of a class.

    Attributes:
        name: of the class.
        threshold: above which it is predicted.
        examples: number of images that have it; None without labels.
        predicted: number of images of which it is predicted.
        correct: number of those that have it; None without labels.
        average_precision: None without labels, or where no image has it.
        surest: those that have it with the greatest probability; without labels those of which it
            is predicted.
        false_positives: those of which it is predicted and that do not have it, the surest first.
        false_negatives: those that have it and of which it is not predicted, the surest first.
        doubtful: others, nearest to the threshold.
    """

    name: str
    threshold: float
    examples: int | None
    predicted: int
    correct: int | None
    average_precision: float | None
    surest: tuple[Answer, ...]
    false_positives: tuple[Answer, ...]
    false_negatives: tuple[Answer, ...]
    doubtful: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class LabelSetGallery:
    """What is worth looking at of a network of several labels an image.

    Attributes:
        predictions: of all images.
        mistakes: the surest first, of all classes; an image may be among them more than once.
        classes: those with the lowest average precision first; without labels, the most frequent.
        notes: sentences on what is left out.
    """

    predictions: LabelSetPredictions
    mistakes: tuple[Answer, ...]
    classes: tuple[ClassAnswers, ...]
    notes: tuple[str, ...]


def label_set_gallery(
    model: keras.Model,
    predictions: LabelSetPredictions,
    data: "Source | None",
    training: "Source | None",
    *,
    mistakes: int,
    per_class: int,
    neighbors: int,
    notes: tuple[str, ...],
    progress: Callable[[int], Any],
    **options: Any,
) -> LabelSetGallery:
    """Explains those answers that show most; the arguments are those of `gallery`.

    Args:
        notes: sentences on what is left out.
        **options: `layer` and `method` of `heatmaps`.
    """
    wrong = _surest_mistakes(predictions, mistakes)
    precisions = _precisions(predictions)
    kinds_of = {
        number: _extremes(predictions, number, per_class)
        for number in _classes_to_show(predictions, precisions)
    }
    pairs = [
        *wrong,
        *((i, n) for n, kinds in kinds_of.items() for kind in kinds for i in kind),
    ]
    shown = sorted({image for image, _ in pairs})
    alike = shown if data is None else sorted({image for image, _ in wrong})
    answers: dict[Pair, Answer] = {}
    if shown:
        seen = see_again(
            model, data, predictions.paths, shown, training, alike, neighbors, progress
        )
        answers = _answers(model, predictions, seen, pairs, options)
    classes = [
        _class_answers(
            predictions,
            number,
            precisions[number],
            [tuple(answers[image, number] for image in kind) for kind in kinds],
        )
        for number, kinds in kinds_of.items()
    ]
    return LabelSetGallery(predictions, tuple(answers[p] for p in wrong), tuple(classes), notes)


def explain_mistakes(
    model: keras.Model, predictions: LabelSetPredictions, data: "Source | None", count: int
) -> tuple[Answer, ...]:
    """The surest mistakes alone: see `LabelSetGallery.mistakes`."""
    wrong = _surest_mistakes(predictions, count)
    if not wrong:
        return ()
    shown = sorted({image for image, _ in wrong})
    seen = see_again(model, data, predictions.paths, shown)
    answers = _answers(model, predictions, seen, wrong, {})
    return tuple(answers[pair] for pair in wrong)


def _surest_mistakes(predictions: LabelSetPredictions, count: int) -> list[Pair]:
    """The wrong answers, the surest first; none without labels."""
    if predictions.labels is None:
        return []
    images, classes = np.nonzero(predictions.predicted != predictions.labels)
    order = np.argsort(-predictions.sureness[images, classes], kind="stable")[:count]
    return [(int(images[i]), int(classes[i])) for i in order]


def _precisions(predictions: LabelSetPredictions) -> np.ndarray:
    """float64 [classes]: average precisions, NaN where there are none."""
    if predictions.labels is None:
        return np.full(len(predictions.class_names), np.nan)
    return average_precisions(predictions.labels, predictions.probabilities)


def _classes_to_show(predictions: LabelSetPredictions, precisions: np.ndarray) -> list[int]:
    """Classes that some image has or that are predicted: see `LabelSetGallery.classes`."""
    predicted = predictions.predicted.sum(axis=0)
    there = predicted if predictions.labels is None else predictions.labels.sum(axis=0) + predicted
    precisions = np.nan_to_num(precisions, nan=0.0)
    order = sorted(np.flatnonzero(there).tolist(), key=lambda n: (precisions[n], -predicted[n], n))
    return order[:CLASSES]


def _extremes(predictions: LabelSetPredictions, number: int, count: int) -> tuple[list[int], ...]:
    """Places of the surest, the falsely predicted, the missed and the doubtful images."""
    probabilities, yes = predictions.probabilities[:, number], predictions.predicted[:, number]
    falling = np.argsort(-probabilities, kind="stable")
    if predictions.labels is None:
        surest, false, missed = falling[yes[falling]][:count].tolist(), [], []
    else:
        there = predictions.labels[:, number]
        surest = falling[there[falling]][:count].tolist()
        false = falling[(yes & ~there)[falling]][:count].tolist()
        missed = falling[::-1][(there & ~yes)[falling[::-1]]][:count].tolist()
    taken = {*surest, *false, *missed}
    nearest = np.argsort(-predictions.doubt[:, number], kind="stable")[: len(taken) + count]
    missed = [i for i in missed if i not in surest]
    return surest, false, missed, [i for i in nearest.tolist() if i not in taken][:count]


def _answers(
    model: keras.Model,
    predictions: LabelSetPredictions,
    seen: Seen,
    pairs: list[Pair],
    options: dict[str, Any],
) -> dict[Pair, Answer]:
    """An answer of each pair, with as many heat maps of an image as it is asked for most."""
    row_of = {place: row for row, place in enumerate(seen.places)}
    asked: dict[int, list[int]] = {place: [] for place in seen.places}
    for image, number in dict.fromkeys(pairs):
        asked[image].append(number)
    most = max(map(len, asked.values()))
    classes = np.array([(numbers + numbers[:1] * most)[:most] for numbers in asked.values()])
    of_model = np.array(predictions.numbers, "int32")[classes]
    maps = heatmaps(model, seen.inputs, of_model, prepared=True, **options).values
    return {
        (image, number): Answer(
            path=predictions.paths[image],
            class_name=predictions.class_names[number],
            probability=float(predictions.probabilities[image, number]),
            predicted=bool(predictions.predicted[image, number]),
            is_there=None
            if predictions.labels is None
            else bool(predictions.labels[image, number]),
            labels=predictions.labels_of(image),
            photo=seen.pixels[row_of[image]],
            heat=maps[row_of[image], column],
            neighbors=seen.neighbors.get(image, ()),
        )
        for image, numbers in asked.items()
        for column, number in enumerate(numbers)
    }


def _class_answers(
    predictions: LabelSetPredictions,
    number: int,
    precision: float,
    kinds: list[tuple[Answer, ...]],
) -> ClassAnswers:
    predicted = predictions.predicted[:, number]
    examples = correct = None
    if predictions.labels is not None:
        there = predictions.labels[:, number]
        examples, correct = int(there.sum()), int((there & predicted).sum())
    surest, false_positives, false_negatives, doubtful = kinds
    return ClassAnswers(
        name=predictions.class_names[number],
        threshold=predictions.thresholds[number],
        examples=examples,
        predicted=int(predicted.sum()),
        correct=correct,
        average_precision=None if np.isnan(precision) else float(precision),
        surest=surest,
        false_positives=false_positives,
        false_negatives=false_negatives,
        doubtful=doubtful,
    )
