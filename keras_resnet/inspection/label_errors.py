"""Labels that are probably wrong: confident learning (Northcutt et al. 2021). NumPy only.

From predictions for images that the model was not trained on, the joint distribution of the labels
as given and as they should be is counted (section 3.1, equations 1 and 2), and for each pair of
classes as many images are picked as it says, those of the largest margin first ("prune by noise
rate", section 3.2, method 4).
"""

import dataclasses

import numpy as np

# A class with fewer images than this is not judged: a threshold of so few says nothing.
_FEWEST = 2
_LOWEST_THRESHOLD = 2 * np.finfo(np.float64).eps
_SLACK = 1e-6  # a probability that is the threshold but for rounding counts


@dataclasses.dataclass(frozen=True)
class LabelErrors:
    """Which labels are suspected, the most doubtful first.

    Attributes:
        places: int64 [k], numbers of the examples.
        suggestions: int64 [k], the class that each should probably have.
        margins: float64 [k], probability of that class minus that of the label; at most 1.
        noise: the estimated share of wrong labels in all.
    """

    places: np.ndarray
    suggestions: np.ndarray
    margins: np.ndarray
    noise: float


def find_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> LabelErrors:
    """Finds labels that are probably wrong.

    Args:
        labels: int [n], the class that each example is said to have.
        probabilities: float [n, classes], of a model that was not trained on these examples.

    Raises:
        ValueError: the shapes do not belong together, or a label is no class.
    """
    labels = np.asarray(labels)
    probabilities = np.asarray(probabilities, np.float64)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            "`labels` and `probabilities` need the shapes (n,) and (n, classes); received "
            f"{labels.shape} and {probabilities.shape}."
        )
    classes = probabilities.shape[1]
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"`labels` are numbers of {classes} classes; received {labels.min()} to {labels.max()}."
        )
    joint = confident_joint(labels, probabilities)
    suspected = np.zeros(len(labels), bool)
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        if len(own) < _FEWEST:
            continue
        wrong = _spare_one(joint[label], label)
        for other in np.flatnonzero(wrong):
            margins = probabilities[own, other] - probabilities[own, label]
            suspected[own[np.argsort(-margins, kind="stable")[: wrong[other]]]] = True
    # Where the label is the most probable class nothing speaks against it.
    suggestions = probabilities.argmax(axis=1)
    of_label = probabilities[np.arange(len(labels)), labels]
    margins = probabilities.max(axis=1, initial=0) - of_label
    places = np.flatnonzero(suspected & (margins > _SLACK))
    places = places[np.argsort(-margins[places], kind="stable")]
    noise = 1 - np.trace(joint) / max(joint.sum(), 1)
    return LabelErrors(places, suggestions[places], margins[places], float(noise))


def find_label_set_errors(labels: np.ndarray, probabilities: np.ndarray) -> list[LabelErrors]:
    """The same where an example has several labels or none: of each class, yes against no.

    Args:
        labels: bool [n, classes], which classes each example is said to have.
        probabilities: float [n, classes] of each class, of a model that was not trained on these
            examples.

    Returns:
        Errors of each class; their suggestions are 1 for yes and 0 for no.

    Raises:
        ValueError: the shapes do not belong together.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    if labels.shape != probabilities.shape or labels.ndim != 2:
        raise ValueError(
            "`labels` and `probabilities` need one shape, (n, classes); received "
            f"{labels.shape} and {probabilities.shape}."
        )
    return [
        find_label_errors((column > 0).astype(int), np.stack([1 - yes, yes], axis=1))
        for column, yes in zip(labels.T, probabilities.T, strict=True)
    ]


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """int64 [classes, classes]: about how many images labelled i (row) are of class j (column).

    An example counts for the most probable of the classes whose probability is at least the mean
    that images of this label have of it. Rows are scaled to the numbers of the labels.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=classes)
    thresholds = np.where(counts, sums / np.maximum(counts, 1), 2.0)  # 2: nothing counts for it
    thresholds = np.maximum(thresholds, _LOWEST_THRESHOLD)
    confident = probabilities >= thresholds - _SLACK
    number = confident.sum(axis=1)
    guesses = np.where(number > 1, probabilities.argmax(axis=1), confident.argmax(axis=1))
    joint = np.zeros((classes, classes), np.int64)
    np.add.at(joint, (labels[number > 0], guesses[number > 0]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    scaled = joint / joint.sum(axis=1)[:, None] * counts[:, None]
    scaled = scaled / max(scaled.sum(), 1e-100) * len(labels)
    return np.stack([_rounded(row) for row in scaled])


def _rounded(row: np.ndarray) -> np.ndarray:
    """The nearest whole numbers, but for those that must differ to keep the sum of the row."""
    whole = np.round(row).astype(np.int64)
    lacking = round(row.sum()) - int(whole.sum())
    order = np.argsort(row - whole)
    if lacking > 0:
        whole[order[-lacking:]] += 1
    elif lacking < 0:
        whole[order[:-lacking]] -= 1
    return whole


def _spare_one(row: np.ndarray, label: int) -> np.ndarray:
    """The numbers of wrong labels in a row of the joint, such that one right one is left."""
    wrong = row.copy()
    wrong[label] = 0
    if row[label] < 1 and wrong.any():
        wrong = np.maximum(wrong - 1 / max(int(np.count_nonzero(row)) - 1, 1), 0).astype(np.int64)
    return wrong
