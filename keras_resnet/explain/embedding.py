"""Embeddings: the vector that the classifier sees of each image, alike for images that are."""

import csv
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.explain.anatomy import dissect
from keras_resnet.explain.photos import Batch, prepared_array, read_batches
from keras_resnet.explain.running import Runner
from keras_resnet.printing import csv_cell

BATCH = 32


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Vectors of images.

    Attributes:
        names: of the images: paths, or numbers of arrays.
        vectors: float32 [images, features], a row for each name.
        problems: name -> why an image cannot be read; such have no row.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    problems: dict[str, str]

    def nearest(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows that are most alike to each of some vectors, by the cosine.

        Args:
            vectors: float [n, features].
            count: how many rows; all if there are fewer.

        Returns:
            Their places, int [n, count], and the cosines, float32 [n, count], the greatest first.
        """
        cosines = _unit(np.asarray(vectors, "float32")) @ _unit(self.vectors).T
        places = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        return places, np.take_along_axis(cosines, places, axis=1)

    def write_npz(self, file: IO[bytes] | str | os.PathLike) -> None:
        """Writes `paths`, unicode [n], and `vectors`, float32 [n, features]."""
        # With a fallback type: without images there are no names to take a type from.
        paths = np.array(self.names) if self.names else np.array([], dtype=str)
        np.savez(file, paths=paths, vectors=self.vectors)

    def write_csv(self, file: IO[str]) -> None:
        """Writes path, feature_0, feature_1, ..., and error; a file that cannot be read has one."""
        writer = csv.writer(file, lineterminator="\n")
        width = self.vectors.shape[1]
        writer.writerow(["path", *[f"feature_{i}" for i in range(width)], "error"])
        for name, vector in zip(self.names, self.vectors, strict=True):
            writer.writerow([csv_cell(name), *[f"{value:.9g}" for value in vector], ""])
        for name, problem in self.problems.items():
            writer.writerow([csv_cell(name), *[""] * width, csv_cell(problem)])


def embed(
    model: keras.Model,
    paths_or_images: Any,
    *,
    prepared: bool | None = None,
    batch_size: int = BATCH,
    progress: Callable[[int], Any] = lambda count: None,
) -> Embeddings:
    """The vector of each image that the model's classifier sees: its pooled last feature map.

        found = keras_resnet.embed(model, ["cat.jpg", "dog.jpg"])
        found.vectors  # float32 [2, 2048] for ResNet-50

    It runs on any of Keras' backends; reading photos needs TensorFlow.

    Args:
        model: a classifier; without one at its end, what it returns is taken, averaged over the
            places of a feature map.
        paths_or_images: what `keras_resnet.preprocess` takes, and, by path, folders, of which every
            image file is taken. With `prepared`, an array of what the model takes.
        prepared: whether the images are what the model takes; by default if it has no
            `preprocessing`.
        batch_size: images at a time.
        progress: told the number of images of each batch that is done.

    Raises:
        UserError: a path does not exist, or the model's layers cannot be followed.
        ValueError: an array holds no RGB pixels.
    """
    call = embedder(model)
    if prepared is None:
        prepared = getattr(model, "preprocessing", None) is None
    if prepared:
        inputs = prepared_array(model, paths_or_images)
        rows = []
        for start in range(0, len(inputs), batch_size):
            rows.append(call(inputs[start : start + batch_size]))
            progress(len(rows[-1]))
        return Embeddings(tuple(map(str, range(len(inputs)))), _stack(rows), {})
    return collect(call, model, read_batches(_found(paths_or_images), model, batch_size), progress)


def embedder(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function of what the model takes, [n, ...], that returns float32 [n, features]."""
    anatomy = dissect(model)
    runner = Runner(model, anatomy, None)
    step = anatomy.steps[anatomy.scores]

    def call(inputs: np.ndarray) -> np.ndarray:
        answer = runner(inputs)
        if anatomy.classifier is not None:
            return answer.embedding.reshape(len(inputs), -1)
        rank = answer.scores.ndim
        places = range(2, rank) if anatomy.channels_first else range(1, rank - 1)
        return answer.scores.mean(axis=tuple(places)) if rank > 2 else answer.scores

    if step.output.shape[-1] is None:
        raise UserError(
            f"{model.name} returns {tuple(step.output.shape)}: no vector of a fixed size"
        )
    return call


def collect(
    call: Callable[[np.ndarray], np.ndarray],
    model: keras.Model,
    batches: Iterator[Batch],
    progress: Callable[[int], Any] = lambda count: None,
) -> Embeddings:
    """The embeddings of photos in batches, by what `embedder` returns for the model."""
    names: list[str] = []
    rows: list[np.ndarray] = []
    problems: dict[str, str] = {}
    for batch in batches:
        if batch.good:
            rows.append(call(batch.inputs))
            names += batch.good
        problems |= batch.problems
        progress(len(batch.names))
    return Embeddings(tuple(names), _stack(rows), problems)


def _found(images: Any) -> Any:
    """Paths with the image files of the folders among them; what is no path as it is."""
    if isinstance(images, (str, os.PathLike)):
        images = [images]
    if not isinstance(images, (list, tuple)):
        return images
    from keras_resnet.input_pipeline.image_listing import list_images

    found: list[Any] = []
    for image in images:
        is_path = isinstance(image, (str, os.PathLike))
        found += list_images([Path(image)]) if is_path else [image]
    return found


def _stack(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.zeros((0, 0), "float32")


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
