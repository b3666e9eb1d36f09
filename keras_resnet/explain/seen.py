"""The images that a gallery shows: read once more, as the network sees them."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_resnet.explain.neighbors import Neighbor, find_neighbors
from keras_resnet.explain.photos import decode

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source

_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Seen:
    """Some images of a set.

    Attributes:
        places: of them in the set.
        pixels: uint8 [places, size, size, 3], what the model sees.
        inputs: [places, ...], what the model takes.
        neighbors: place -> the training images most like it, of those that were asked for.
    """

    places: tuple[int, ...]
    pixels: np.ndarray
    inputs: np.ndarray
    neighbors: dict[int, tuple[Neighbor, ...]]


def see_again(
    model: keras.Model,
    data: "Source | None",
    paths: Sequence[str],
    places: Sequence[int],
    training: "Source | None" = None,
    alike: Sequence[int] = (),
    neighbors: int = 0,
    progress: Callable[[int], Any] = lambda count: None,
) -> Seen:
    """Reads the images at some places.

    Args:
        model: for which they are prepared.
        data: the split of which they are; None of files.
        paths: of all images of the set.
        places: of those to read, at least one.
        training: the split among which images like some of them are looked for.
        alike: of which, among `places`.
        neighbors: how many for each.
        progress: told the number of images of each batch of `training`.
    """
    names = [paths[place] for place in places]
    if data is None:
        contents = {name: Path(name).read_bytes() for name in names}
    else:
        from keras_resnet.explain.labelled import encoded_images

        contents = encoded_images(data, names)
    batches = [
        decode(some, [(name, contents[name]) for name in some], model)
        for some in (names[i : i + _BATCH] for i in range(0, len(names), _BATCH))
    ]
    pixels = np.concatenate([batch.pixels for batch in batches])
    inputs = np.concatenate([batch.inputs for batch in batches])
    found: dict[int, tuple[Neighbor, ...]] = {}
    if alike and neighbors and training is not None:
        rows = inputs[[list(places).index(place) for place in alike]]
        wanted = [paths[place] for place in alike]
        like = find_neighbors(model, training, wanted, rows, neighbors, progress)
        found = dict(zip(alike, like, strict=True))
    return Seen(tuple(places), pixels, inputs, found)
