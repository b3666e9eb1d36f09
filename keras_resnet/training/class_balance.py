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

    Args:
        config: of the run.
        source: its training split, read through for "balanced" if its labels are not at hand.
    """
    weights = config.loss.class_weights
    return balanced_weights(source.class_counts()) if weights == "balanced" else weights


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
    yield f"classes    {len(names)}, of {few:,} ({names[least]}) to {many:,} ({names[most]}) images"
    balanced = "balanced" in (config.loss.class_weights, config.data.sampler)
    if few < FEW * many and not balanced:
        yield (
            f"warning: {names[least]!r} has {few:,} training images, less than a tenth of "
            f"{names[most]!r} ({many:,}): the network will seldom answer with it. More images "
            "help most; --config.data.sampler=balanced shows every class equally often, "
            "--config.loss.class_weights=balanced weighs the rare ones more"
        )
