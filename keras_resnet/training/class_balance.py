"""How the training images are spread over the classes, and weights of the loss that make up for it.

NumPy only.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

# The rarest class is worth a warning if it has less than this part of the images of the commonest.
FEW = 0.1


def class_weights(config: ConfigDict, source: Any) -> tuple[float, ...]:
    """Returns `loss.class_weights` as numbers, one for each class, or () for none.

    Of several labels an image they are factors of the loss of a class's yes (`positive_weights`).

    Args:
        config: of the run.
        source: its training split, read through for "balanced" if its labels are not at hand.
    """
    weights = config.loss.class_weights
    if weights != "balanced":
        return weights
    if source.multi_label:
        return positive_weights(source.class_counts(), source.num_examples)
    return balanced_weights(source.class_counts())


def positive_weights(counts: Sequence[int] | np.ndarray, images: int) -> tuple[float, ...]:
    """Returns (n - n_c) / n_c for each class: its yes then weighs as much as its no, over all.

    That is what PyTorch's `BCEWithLogitsLoss` proposes for its `pos_weight`.

    Args:
        counts: n_c, the images that have each class; one that none has gets the weight 1.
        images: n, of all.
    """
    counts = np.asarray(counts, "float64")
    weights = (images - counts) / np.maximum(counts, 1)
    # Of a class that all images have only the yes is ever asked for.
    return tuple(np.where((counts > 0) & (counts < images), weights, 1.0).tolist())


def balanced_weights(counts: Sequence[int] | np.ndarray) -> tuple[float, ...]:
    """Returns n / (k · n_c) for each class (King and Zeng 2001): the mean over the images is 1.

    That is scikit-learn's `compute_class_weight("balanced")`.

    Args:
        counts: n_c, the images of each class. Their sum is n, and k the number of classes that have
            any; one that has none gets the weight 0, which no image asks for.
    """
    counts = np.asarray(counts, "float64")
    present = counts > 0
    weights = counts.sum() / (present.sum() * np.where(present, counts, 1.0))
    return tuple(np.where(present, weights, 0.0).tolist())


def describe_balance(config: ConfigDict, source: Any) -> Iterator[str]:
    """Yields a line on the images of each class, and a warning where they are far from equal.

    Nothing where the labels of the training split `source` are not at hand.
    """
    if not source.labels_at_hand or len(source.class_names) < 2:
        return
    counts, names = source.class_counts(), source.class_names
    least, most = int(counts.argmin()), int(counts.argmax())
    few, many = int(counts[least]), int(counts[most])
    between = f"{few:,} ({names[least]}) to {many:,} ({names[most]}) images"
    equal = f"{many:,} image{'' if many == 1 else 's'} each"
    yield f"classes    {len(names)}, of {equal if few == many else between}"
    if source.multi_label:
        yield from _describe_label_sets(source)
    balanced = "balanced" in (config.loss.class_weights, config.data.sampler)
    if few < FEW * many and not balanced:
        sampler = "--config.data.sampler=balanced shows every class equally often, "
        yield (
            f"warning: {names[least]!r} has {few:,} training images, less than a tenth of "
            f"{names[most]!r} ({many:,}): the network will seldom answer with it. More images "
            f"help most; {'' if source.multi_label else sampler}"
            "--config.loss.class_weights=balanced weighs the rare ones more"
        )


def _describe_label_sets(source: Any) -> Iterator[str]:
    """Yields how many labels the images have, and a warning where each has one."""
    labels = source.labels().sum(axis=1)
    yield (
        f"labels     {labels.mean():.2g} an image, at most {labels.max()}; "
        f"{int((labels == 0).sum()):,} images have none"
    )
    if (labels == 1).all():
        yield (
            "warning: every training image has exactly one label: --config.data.multi_label=false "
            "--config.loss.name=softmax is meant for such, and learns that one excludes the others"
        )
