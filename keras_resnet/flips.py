"""Test-time flips: each image is answered together with its mirror image.

"flip" takes the mean of both logits, as FFCV's, airbench's and timm's evaluations do, and
"flip_probabilities" the mean of both probabilities. What comes out is logits either way, of which
softmax or sigmoid makes those probabilities, so losses, temperatures and thresholds apply as ever.
Keras is loaded by what computes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from keras_resnet.errors import UserError, nearest

# The first is what is meant where nothing is said.
TTA = ("none", "flip", "flip_probabilities")
_WORDS = {
    "none": "",
    "flip": "each image together with its mirror image, mean of the logits",
    "flip_probabilities": "each image together with its mirror image, mean of the probabilities",
}


def in_words(tta: str) -> str:
    """Returns what `tta` does, "" for none."""
    return _WORDS[tta]


def with_flips(what: str, tta: str) -> str:
    """Returns what was answered in words, and how where mirror images had a say."""
    return f"{what}, {_WORDS[tta]}" if _WORDS[tta] else what


def tta_note(tta: str) -> dict[str, str]:
    """Returns what records hold of it: nothing where there is none."""
    return {} if tta == "none" else {"tta": tta}


def check_tta(tta: Any, shape: Sequence[int | None] | None = None, name: str = "the model") -> str:
    """Returns `tta` if it is one of TTA and inputs of a shape have a width.

    Args:
        tta: what was asked for.
        shape: of the model's input, the batch first; None where there is none yet.
        name: of the model, for messages.

    Raises:
        UserError: it is none, or the input is 1-D.
    """
    if tta not in TTA:
        raise UserError(f"tta={tta!r} is not one of {', '.join(TTA)}{nearest(tta, TTA)}")
    if tta != "none" and shape is not None and len(shape) < 4:
        raise UserError(
            f"tta={tta!r}: {name} takes {tuple(shape)}, which has no width to mirror; take tta=none"
        )
    return tta


def answer_with_flips(
    run: Callable[[Any], Any], images: Any, tta: str, independent: bool = False
) -> Any:
    """Returns the logits of a batch, float32 [n, classes] where `tta` is not "none".

    Args:
        run: images -> logits; it is called once, with every image followed by its mirror image.
        images: [n, ..., height, width, channels], 2-D or 3-D: the last axis but one is mirrored.
        tta: one of TTA.
        independent: whether each class has a probability of its own (sigmoid).

    Raises:
        UserError: as `check_tta`.
    """
    check_tta(tta, images.shape, "the network")
    if tta == "none":
        return run(images)
    return merge(run(beside_its_flip(images)), tta, independent)


def beside_its_flip(images: Any) -> Any:
    """Returns [2 n, ..., width, channels]: each image followed by its mirror image."""
    from keras import ops

    pairs = ops.stack([images, ops.flip(images, axis=-2)], axis=1)
    return ops.reshape(pairs, (-1, *images.shape[1:]))


def merge(logits: Any, tta: str, independent: bool = False) -> Any:
    """Returns float32 [n, classes] for [2 n, classes], those of an image in two rows.

    For "flip_probabilities" they are ln p, and of independent classes ln p - ln(1 - p), of the mean
    p, by way of logarithms: no probability becomes 0 or 1 on the way.

    Args:
        logits: of what `beside_its_flip` gave.
        tta: one of TTA but "none".
        independent: whether each class has a probability of its own (sigmoid).
    """
    from keras import ops

    rows = ops.reshape(ops.cast(logits, "float32"), (-1, 2, logits.shape[-1]))
    if tta == "flip":
        return ops.mean(rows, axis=1)
    if independent:
        return _log_of_sum(ops.log_sigmoid(rows)) - _log_of_sum(ops.log_sigmoid(-rows))
    return _log_of_sum(ops.log_softmax(rows, axis=-1)) - math.log(2)


def _log_of_sum(logarithms: Any) -> Any:
    from keras import ops

    return ops.logsumexp(logarithms, axis=1)
