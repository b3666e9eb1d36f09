"""The training images most like others, by what the classifier sees of them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_resnet.explain.embedding import Embeddings, collect, embedder
from keras_resnet.explain.photos import Batch, decode

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source

# Of a larger training split, as many images, evenly spread, are looked at.
TRAINING_IMAGES = 20_000
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Neighbor:
    """A training image that is like another.

    Attributes:
        path: of it.
        label: its class, or its classes as `label_sets.join` writes them.
        similarity: cosine of the embeddings, up to 1.
        photo: uint8 [size, size, 3], as the network sees it.
    """

    path: str
    label: str
    similarity: float
    photo: np.ndarray


def find_neighbors(
    model: keras.Model,
    training: "Source",
    paths: Sequence[str],
    inputs: np.ndarray,
    count: int,
    progress: Callable[[int], Any] = lambda count: None,
) -> list[tuple[Neighbor, ...]]:
    """The images of a training split most like each of some others, the most similar first.

    Args:
        model: a classifier with its `preprocessing`.
        training: the split.
        paths: names of the images; an image is not its own neighbor.
        inputs: [paths, ...], what the model takes of them.
        count: how many for each.
        progress: told the number of images of each batch that is embedded.
    """
    from keras_resnet.explain.labelled import batches_of, encoded_images

    call = embedder(model)
    labels: dict[str, Any] = {}  # of one class, or 0 and 1 for each

    def batches() -> Iterator[Batch]:
        for batch, of_batch in batches_of(training, model, _BATCH, TRAINING_IMAGES):
            labels.update(zip(batch.good, of_batch, strict=True))
            yield batch

    known = collect(call, model, batches(), progress)
    vectors = np.concatenate([call(inputs[i : i + _BATCH]) for i in range(0, len(inputs), _BATCH)])
    rows = _others(known, vectors, paths, count)
    contents = list(encoded_images(training, {name for row in rows for name, _ in row}).items())
    seen = decode([name for name, _ in contents], contents, model)
    photos = dict(zip(seen.good, seen.pixels, strict=True))
    return [
        tuple(
            Neighbor(name, training.label_text(labels[name]), cosine, photos[name])
            for name, cosine in row
        )
        for row in rows
    ]


def _others(
    known: Embeddings, vectors: np.ndarray, paths: Sequence[str], count: int
) -> list[list[tuple[str, float]]]:
    """For each vector the names of its nearest with the cosines, without the image itself."""
    places, cosines = known.nearest(vectors, count + 1)
    rows = []
    for path, row, values in zip(paths, places, cosines, strict=True):
        pairs = [(known.names[i], float(c)) for i, c in zip(row, values, strict=True)]
        rows.append([pair for pair in pairs if pair[0] != path][:count])
    return rows
