"""What an evaluation tells of the data itself: labels in doubt, images that training has seen."""

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from keras_resnet.explain.predictions import Predictions
from keras_resnet.inspection.label_errors import LabelErrors, find_label_errors
from keras_resnet.reports.contents import Findings, Suspect, Thumbnail

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source

SUSPECTS = 24
_COPIES = 20
# Read to find images that are in both splits; `keras-resnet inspect` has no such limits.
MOST_IMAGES, MOST_BYTES = 60_000, 300_000_000


def find_suspects(predictions: Predictions) -> LabelErrors | None:
    """Labels that are probably wrong by confident learning; None without labels."""
    if predictions.labels is None or not len(predictions.labels):
        return None
    return find_label_errors(predictions.labels, predictions.probabilities)


def findings_of(
    predictions: Predictions,
    errors: LabelErrors | None,
    thumbnails: dict[int, Thumbnail],
    source: "Source",
    training: "Source | None",
) -> Findings:
    """What was found.

    Args:
        predictions: of the evaluated images, with their names.
        errors: of `find_suspects`.
        thumbnails: of the first suspects, by place.
        source: the split that was evaluated.
        training: the split that was trained on; None where it is not to be had.
    """
    copies, notes = _copies(predictions, source, training)
    assert predictions.labels is not None
    suspects = []
    if errors is not None:
        pairs = zip(errors.places.tolist(), errors.suggestions.tolist(), strict=True)
        suspects = [
            Suspect(
                path=predictions.paths[place],
                label=int(predictions.labels[place]),
                suggestion=suggestion,
                probability=float(predictions.probabilities[place, suggestion]),
                thumbnail=thumbnails.get(place),
            )
            for place, suggestion in list(pairs)[:SUSPECTS]
        ]
    return Findings(
        suspects=tuple(suspects),
        suspected=0 if errors is None else len(errors.places),
        noise=0.0 if errors is None else errors.noise,
        copies=tuple((copies or [])[:_COPIES]),
        copied=None if copies is None else len(copies),
        notes=tuple(notes),
    )


def _copies(
    predictions: Predictions, source: "Source", training: "Source | None"
) -> tuple[list[tuple[str, str]] | None, list[str]]:
    """(name in evaluation, name in training) of equal files; None if not looked for, and why."""
    if training is None:
        return None, ["The training images were not at hand to look for copies of these."]
    try:
        total = source.encoded_bytes() + training.encoded_bytes()
        images = source.num_examples + training.num_examples
        if images > MOST_IMAGES or total > MOST_BYTES:
            return None, [
                f"Copies of these images among the training images were not looked for, as both "
                f"are {images:,} files of {total / 1e6:,.0f} MB."
            ]
        known = {digest: place for place, digest in reversed([*enumerate(_digests(training))])}
        found = [
            (place, known[digest])
            for place, digest in enumerate(_digests(source))
            if digest in known
        ]
    except NotImplementedError:
        return None, ["This kind of data cannot be searched for copies of training images."]
    if not found:
        return [], []
    names = _names(source, [place for place, _ in found])
    originals = _names(training, [original for _, original in found])
    counted = set(predictions.paths)
    pairs = [(names[place], originals[original]) for place, original in found]
    return [pair for pair in pairs if pair[0] in counted], []


def _digests(source: "Source") -> Iterable[bytes]:
    for encoded, _ in source.chunks():
        for content in encoded.numpy():
            yield hashlib.sha256(content).digest()


def _names(source: "Source", places: Iterable[int]) -> dict[int, str]:
    wanted = set(places)
    return {place: name for place, (name, _) in enumerate(source.records()) if place in wanted}
