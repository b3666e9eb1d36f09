"""The images that a report shows: read once more, decoded as the network sees them, made small."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import input_pipeline
from keras_resnet.explain.gallery import Shot, make_shots
from keras_resnet.explain.photos import as_inputs
from keras_resnet.explain.pictures import as_jpeg, sized
from keras_resnet.explain.predictions import Predictions
from keras_resnet.explain.selection import surest_mistakes
from keras_resnet.images import preprocessing_of
from keras_resnet.input_pipeline import Source
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.reports.contents import Cell, Thumbnail
from keras_resnet.reports.selection import behind_cells, largest_cell
from keras_resnet.training.broken_images import explain_broken_images

SIDE = 96
SHOTS = 24  # mistakes with heat maps
# Of all pictures behind cells, as files; a page holds them at four thirds of that.
BYTES = 2_400_000
# From so many images on, a compiled decoder has paid for the seconds that it takes to build.
_COMPILED_FROM = 160


@dataclasses.dataclass(frozen=True)
class Shown:
    """What of the evaluated images is shown.

    Attributes:
        predictions: with the names of the images.
        mistakes: with heat maps, the surest first.
        cells: pictures behind the cells of the confusion matrix.
        others: pictures of further images that were asked for, by place.
    """

    predictions: Predictions
    mistakes: tuple[Shot, ...]
    cells: dict[Cell, tuple[Thumbnail, ...]]
    others: dict[int, Thumbnail]


def show(
    model: keras.Model, source: Source, predictions: Predictions, others: Sequence[int] = ()
) -> Shown:
    """Reads the images that are worth showing.

    Args:
        model: a classifier with its `preprocessing`.
        source: the split that was evaluated.
        predictions: of its images in their order, those that cannot be read left out; names may be
            missing, `problems` has those of the ones that are left out.
        others: places of further images to show.
    """
    shots = surest_mistakes(predictions, SHOTS)
    cells = behind_cells(predictions, largest_cell(_mean_bytes(source)))
    wanted = {*shots, *others, *(place for places in cells.values() for place in places)}
    decode = decoder(preprocessing_of(model), len(wanted))
    names: dict[int, str] = {}
    pixels: dict[int, np.ndarray] = {}
    small: dict[int, bytes] = {}
    with explain_broken_images(source):
        for place, name, read in _records(source, predictions):
            names[place] = name
            photo = decode(read()) if place in wanted else None
            if photo is None:
                continue
            small[place] = as_jpeg(sized(photo, SIDE))
            if place in shots:
                pixels[place] = photo
    predictions = dataclasses.replace(predictions, paths=tuple(names.values()))

    def thumbnail(place: int) -> Thumbnail:
        sure = float(predictions.confidence[place])
        return Thumbnail(place, predictions.paths[place], sure, small[place])

    return Shown(
        predictions,
        _shots(model, predictions, [place for place in shots if place in pixels], pixels),
        {
            cell: tuple(map(thumbnail, places))
            for cell, places in _that_fit(cells, small).items()
            if places
        },
        {place: thumbnail(place) for place in others if place in small},
    )


def _mean_bytes(source: Source) -> float:
    try:
        return source.encoded_bytes() / source.num_examples
    except (NotImplementedError, input_pipeline.DataError):
        return 0.0


def _records(
    source: Source, predictions: Predictions
) -> Iterator[tuple[int, str, Callable[[], bytes]]]:
    """Of each image that was counted its place, its name and how it is read, in order."""
    counted = set(predictions.paths)  # without names it is all that can be read
    place = 0
    for name, read in source.records():
        if name not in predictions.problems and (not counted or name in counted):
            yield place, name, read
            place += 1


def decoder(preprocessing: Preprocessing, images: int) -> Callable[[bytes], np.ndarray | None]:
    """Decodes one image file to uint8 [size, size, 3], as evaluation does; None if that fails.

    Args:
        preprocessing: of the model.
        images: how many there will be: an operation after the other for a few, compiled for many.
    """

    def evaluation_image(file: tf.Tensor) -> tf.Tensor:
        return input_pipeline.evaluation_image(file, preprocessing)

    if images >= _COMPILED_FROM:
        spec = [tf.TensorSpec([], tf.string)]
        evaluation_image = tf.function(evaluation_image, input_signature=spec, autograph=False)

    def decode(content: bytes) -> np.ndarray | None:
        try:
            with tf.device("CPU:0"):
                return evaluation_image(tf.constant(content)).numpy()
        except tf.errors.OpError:  # it has changed since it was evaluated
            return None

    return decode


def _shots(
    model: keras.Model, predictions: Predictions, places: list[int], pixels: dict[int, np.ndarray]
) -> tuple[Shot, ...]:
    if not places:
        return ()
    seen = np.stack([pixels[place] for place in places])
    inputs = as_inputs(seen, model)
    made = make_shots(model, predictions, places, pixels=seen, inputs=inputs)
    return tuple(made[place] for place in places)


def _that_fit(cells: dict[Cell, list[int]], small: dict[int, bytes]) -> dict[Cell, list[int]]:
    """Of each cell's images the first, until there is no more room: a row of all, then the next."""
    kept: dict[Cell, list[int]] = {cell: [] for cell in cells}
    room = BYTES
    for row in range(max(map(len, cells.values()), default=0)):
        for cell, places in cells.items():
            if row < len(places) and places[row] in small:
                room -= len(small[places[row]])
                if room < 0:
                    return kept
                kept[cell].append(places[row])
    return kept
