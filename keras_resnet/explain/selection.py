"""Which images of a set are worth looking at."""

import numpy as np

from keras_resnet.explain.predictions import Predictions

# Classes with pictures of their own: what a person looks through, in a few MB.
CLASSES = 30


def surest_mistakes(predictions: Predictions, count: int) -> list[int]:
    """Places of the wrong predictions, the most confident first; none without labels."""
    if predictions.labels is None:
        return []
    wrong = np.flatnonzero(predictions.classes != predictions.labels)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return wrong[order][:count].tolist()


def classes_to_show(predictions: Predictions) -> list[int]:
    """Classes with images, the least accurate first; without labels the most frequent."""
    rows = []
    for number in range(len(predictions.class_names)):
        examples, correct = counts(predictions, number)
        if examples:
            rows.append((-examples if correct is None else correct / examples, number))
    return [number for _, number in sorted(rows)[:CLASSES]]


def _members(predictions: Predictions, number: int) -> np.ndarray:
    of = predictions.classes if predictions.labels is None else predictions.labels
    return np.flatnonzero(of == number)


def counts(predictions: Predictions, number: int) -> tuple[int, int | None]:
    """Of a class the images, and those that are predicted right, None without labels."""
    members = _members(predictions, number)
    if predictions.labels is None:
        return len(members), None
    return len(members), int((predictions.classes[members] == number).sum())


def extremes(
    predictions: Predictions, number: int, count: int
) -> tuple[list[int], list[int], list[int]]:
    """Places of the best, the worst and the most doubtful images of a class, each once."""
    members = _members(predictions, number)
    rising = members[np.argsort(predictions.probabilities[members, number], kind="stable")]
    best = rising[::-1][:count].tolist()
    worst: list[int] = []
    if predictions.labels is not None:
        worst = [i for i in rising.tolist() if i not in best][:count]
    doubt = members[np.argsort(predictions.margin[members], kind="stable")].tolist()
    return best, worst, [i for i in doubt if i not in {*best, *worst}][:count]
