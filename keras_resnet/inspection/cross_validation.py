"""Predictions for every image of a set from the others: folds over a network's vectors.

A network of its own for each fold would take k trainings. A linear classifier on the vectors of one
network takes seconds, and is what cleanlab's tutorials do for images. Needs scikit-learn.
"""

import warnings
from collections.abc import Iterable, Sequence

import numpy as np

from keras_resnet.errors import UserError


def predict_from_others(
    vectors: np.ndarray,
    labels: np.ndarray,
    folds: int,
    together: Iterable[Sequence[int]] = (),
    seed: int = 0,
) -> np.ndarray:
    """The probabilities of each image by classifiers that have not seen it or a copy of it.

    Args:
        vectors: float [n, features].
        labels: int [n]; each number from 0 to the largest is a class.
        folds: into how many parts the images go, with like shares of each class.
        together: places of images that go into one part, such as near duplicates: a copy with the
            same wrong label would confirm it.
        seed: of the parts.

    Returns:
        float [n, classes].

    Raises:
        UserError: scikit-learn is not installed, or the images are too few for so many parts.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedGroupKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise UserError("--folds needs scikit-learn: pip install scikit-learn") from error
    most = np.bincount(labels).max(initial=0)
    if most < folds or np.count_nonzero(np.bincount(labels)) < 2:
        raise UserError(
            f"--folds={folds}: the largest class has {most:,} images, and there must be two "
            f"classes and one of {folds:,} images; take fewer folds"
        )
    groups = np.arange(len(labels))
    for places in together:
        groups[list(places)] = groups[places[0]]
    probabilities = np.zeros((len(labels), labels.max() + 1))
    parts = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Classes that are too small for a part in each, which the findings name anyway.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.filterwarnings("ignore", category=ConvergenceWarning)
        for others, part in parts.split(vectors, labels, groups):
            if len(part) == 0:
                continue
            # Vectors have hundreds of numbers that are alike: hence more than the usual shrinkage.
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
            classifier.fit(vectors[others], labels[others])
            known = classifier[-1].classes_
            probabilities[np.ix_(part, known)] = classifier.predict_proba(vectors[part])
    return probabilities


def predict_sets_from_others(
    vectors: np.ndarray,
    labels: np.ndarray,
    folds: int,
    together: Iterable[Sequence[int]] = (),
    seed: int = 0,
) -> np.ndarray:
    """The same where an image has several labels or none: a classifier of yes or no for each class.

    Args:
        vectors, folds, together, seed: as above.
        labels: bool [n, classes].

    Returns:
        float [n, classes]; of a class that all images have or none has, their share.

    Raises:
        UserError: as above.
    """
    together = [list(places) for places in together]
    probabilities = labels.astype("float64")
    for number in np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0)):
        column = labels[:, number].astype(int)
        found = predict_from_others(vectors, column, folds, together, seed)
        probabilities[:, number] = found[:, 1]
    return probabilities
