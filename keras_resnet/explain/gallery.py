"""Where a network is right and wrong: its surest mistakes, and the extremes of each class."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.explain.heatmaps import heatmaps
from keras_resnet.explain.label_set_gallery import LabelSetGallery, label_set_gallery
from keras_resnet.explain.label_set_predictions import LabelSetPredictions
from keras_resnet.explain.neighbors import TRAINING_IMAGES, Neighbor
from keras_resnet.explain.predictions import Predictions, predict_photos, predict_source
from keras_resnet.explain.seen import see_again
from keras_resnet.explain.selection import (
    CLASSES,
    classes_to_show,
    counts,
    extremes,
    surest_mistakes,
)

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source

MISTAKES = 24
PER_CLASS = 3
NEIGHBORS = 4


@dataclasses.dataclass(frozen=True)
class Shot:
    """An image, what the network says of it and why.

    Attributes:
        path: of it.
        label: number of its class; None if it is not known.
        prediction: number of the most probable class.
        probabilities: float32 [classes].
        photo: uint8 [size, size, 3], as the network sees it.
        heat_of_prediction: float32 [*cells], what speaks for the prediction.
        heat_of_label: the same for the label; None where that is the prediction, or not known.
        neighbors: the training images most like it, the most similar first.
    """

    path: str
    label: int | None
    prediction: int
    probabilities: np.ndarray
    photo: np.ndarray
    heat_of_prediction: np.ndarray
    heat_of_label: np.ndarray | None
    neighbors: tuple[Neighbor, ...]


@dataclasses.dataclass(frozen=True)
class ClassShots:
    """The extremes of a class.

    Attributes:
        name: of the class.
        examples: number of its images; without labels, of those predicted to be of it.
        correct: how many of them are predicted to be of it; None without labels.
        best: those with the greatest probability of the class.
        worst: those with the smallest; none without labels.
        doubtful: those of which the two most probable classes are closest.
    """

    name: str
    examples: int
    correct: int | None
    best: tuple[Shot, ...]
    worst: tuple[Shot, ...]
    doubtful: tuple[Shot, ...]


@dataclasses.dataclass(frozen=True)
class Gallery:
    """What is worth looking at of a network on a set of images.

    Attributes:
        predictions: of all images.
        mistakes: the surest first.
        classes: the least accurate first; without labels, the most frequent.
        notes: sentences on what is left out.
    """

    predictions: Predictions
    mistakes: tuple[Shot, ...]
    classes: tuple[ClassShots, ...]
    notes: tuple[str, ...]


def gallery(
    model: keras.Model,
    photos: str | os.PathLike | Iterable[str | os.PathLike] | None = None,
    *,
    data: "Source | None" = None,
    training: "Source | None" = None,
    layer: str | None = None,
    method: Literal["gradcam", "occlusion"] = "gradcam",
    mistakes: int = MISTAKES,
    per_class: int = PER_CLASS,
    neighbors: int = NEIGHBORS,
    progress: Callable[[int], Any] = lambda count: None,
) -> Gallery | LabelSetGallery:
    """Predicts all images, and explains those that show most.

    Args:
        model: a classifier of photos with its `preprocessing`. Of one that gives each class a
            probability of its own (sigmoid) the gallery is of answers, one for each class.
        photos: image files and folders, without labels; or
        data: an open split, see `keras_resnet.input_pipeline.open_source`.
        training: an open split among which to look for images like those that are shown.
        layer: as of `heatmaps`.
        method: as of `heatmaps`.
        mistakes: how many.
        per_class: how many of each kind.
        neighbors: how many for each mistake, and for each photo without a label.
        progress: told the number of images of each batch that is done, in predicting and, of
            `training`, embedding.

    Raises:
        UserError: there are neither photos nor data, or the model cannot be explained.
        input_pipeline.DataError: the data cannot be used.
    """
    if (photos is None) == (data is None):
        raise UserError("gallery takes photos or data, one of them")
    if data is not None:
        predictions = predict_source(model, data, progress)
    else:
        assert photos is not None
        photos = [photos] if isinstance(photos, (str, os.PathLike)) else photos
        predictions = predict_photos(model, photos, progress)
    options: dict[str, Any] = {
        "mistakes": mistakes,
        "per_class": per_class,
        "neighbors": neighbors,
        "notes": _notes(predictions, training),
        "progress": progress,
        "layer": layer,
        "method": method,
    }
    if isinstance(predictions, LabelSetPredictions):
        return label_set_gallery(model, predictions, data, training, **options)
    return _gallery(model, predictions, data, training, **options)


def _gallery(
    model: keras.Model,
    predictions: Predictions,
    data: "Source | None",
    training: "Source | None",
    *,
    mistakes: int,
    per_class: int,
    neighbors: int,
    notes: tuple[str, ...],
    progress: Callable[[int], Any],
    **options: Any,
) -> Gallery:
    """The gallery of one label an image; `options` are `layer` and `method` of `heatmaps`."""
    wrong = surest_mistakes(predictions, mistakes)
    chosen = classes_to_show(predictions)
    kinds_of = {number: extremes(predictions, number, per_class) for number in chosen}
    shown = sorted({*wrong, *(i for kinds in kinds_of.values() for kind in kinds for i in kind)})
    alike = shown if data is None else wrong
    shots: dict[int, Shot] = {}
    if shown:
        seen = see_again(
            model, data, predictions.paths, shown, training, alike, neighbors, progress
        )
        shots = make_shots(
            model,
            predictions,
            shown,
            pixels=seen.pixels,
            inputs=seen.inputs,
            neighbors=seen.neighbors,
            **options,
        )
    classes = [
        _class_shots(predictions, number, [[shots[i] for i in kind] for kind in kinds])
        for number, kinds in kinds_of.items()
    ]
    return Gallery(predictions, tuple(shots[i] for i in wrong), tuple(classes), notes)


def _class_shots(predictions: Predictions, number: int, kinds: list[list[Shot]]) -> ClassShots:
    best, worst, doubtful = map(tuple, kinds)
    name = predictions.class_names[number]
    return ClassShots(name, *counts(predictions, number), best, worst, doubtful)


def open_data(
    path: str | os.PathLike,
    split: str | None = None,
    on_error: str = "stop",
    multi_label: bool = False,
) -> "Source":
    """Opens labelled images for `gallery`, laid out as `keras_resnet.evaluate` takes them.

    Args:
        path: a folder, or a table of paths and labels.
        split: of it; by default the test images, else the validation images, else all.
        on_error: "stop" at an image that cannot be read, or "skip" it.
        multi_label: whether an image may have several labels or none: as the model says.

    Raises:
        input_pipeline.DataError: the data cannot be used.
    """
    from keras_resnet.evaluation import MAX_BROKEN_SHARE, open_labelled

    return open_labelled(path, split, on_error, MAX_BROKEN_SHARE, multi_label)


def _notes(
    predictions: Predictions | LabelSetPredictions, training: "Source | None"
) -> tuple[str, ...]:
    notes = []
    if (left := len(predictions.class_names) - CLASSES) > 0:
        which = "most frequent" if predictions.labels is None else "least accurate"
        notes.append(f"The {CLASSES} {which} classes are shown; {left:,} others are not.")
    if training is not None and training.num_examples > TRAINING_IMAGES:
        step = -(-training.num_examples // TRAINING_IMAGES)
        notes.append(
            f"Similar images are looked for among {training.num_examples // step:,} of the "
            f"{training.num_examples:,} training images, evenly spread."
        )
    if predictions.problems:
        notes.append(f"{len(predictions.problems):,} images cannot be read and are not counted.")
    return tuple(notes)


def make_shots(
    model: keras.Model,
    predictions: Predictions,
    places: list[int],
    *,
    pixels: np.ndarray,
    inputs: np.ndarray,
    neighbors: Mapping[int, tuple[Neighbor, ...]] | None = None,
    **options: Any,
) -> dict[int, Shot]:
    """Shots of some images by their place in `predictions`.

    Args:
        model: what made the predictions.
        predictions: of all images.
        places: of those to show.
        pixels: uint8 [places, size, size, 3], what the model sees of those.
        inputs: [places, ...], what the model takes of those.
        neighbors: of some of the places.
        **options: `layer` and `method` of `heatmaps`.
    """
    if not places:
        return {}
    labels = predictions.classes if predictions.labels is None else predictions.labels
    classes = np.stack([predictions.classes[places], labels[places]], axis=1).astype("int32")
    maps = heatmaps(model, inputs, classes, prepared=True, **options).values
    return {
        place: Shot(
            path=predictions.paths[place],
            label=None if predictions.labels is None else int(predictions.labels[place]),
            prediction=int(classes[row, 0]),
            probabilities=predictions.probabilities[place],
            photo=pixels[row],
            heat_of_prediction=maps[row, 0],
            heat_of_label=maps[row, 1] if classes[row, 0] != classes[row, 1] else None,
            neighbors=(neighbors or {}).get(place, ()),
        )
        for row, place in enumerate(places)
    }
