"""Photos on their way into a model, a batch at a time, with a word on each that cannot be read."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.images import as_list, data_format_of, encode, preprocessing_of
from keras_resnet.preprocessing import Preprocessing

UNDECODABLE = "it cannot be decoded"


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some photos, those that can be read.

    Attributes:
        names: of all, also of those that cannot be read: paths, or numbers of arrays.
        good: names of those that can be read, in order.
        pixels: uint8 [good, size, size, 3], what the network sees.
        inputs: float32 [good, ...], what the model takes.
        problems: name -> why a photo cannot be read.
    """

    names: list[str]
    good: list[str]
    pixels: np.ndarray
    inputs: np.ndarray
    problems: dict[str, str]


def read_batches(images: Any, model: keras.Model, batch_size: int) -> Iterator[Batch]:
    """Reads what `keras_resnet.preprocess` takes, in batches.

    Raises:
        ValueError: the model has no preprocessing, or an array holds no RGB pixels.
    """
    preprocessing_of(model)
    numbered = enumerate(as_list(images))
    while chunk := list(itertools.islice(numbered, batch_size)):
        names, contents, problems = [], [], {}
        for number, image in chunk:
            name = os.fspath(image) if isinstance(image, (str, os.PathLike)) else str(number)
            names.append(name)
            try:
                contents.append((name, encode(image)))
            except OSError as error:
                problems[name] = f"cannot be read: {error.strerror or error}"
        yield decode(names, contents, model, problems)


def decode(
    names: list[str],
    contents: Sequence[tuple[str, bytes]],
    model: keras.Model,
    problems: dict[str, str] | None = None,
) -> Batch:
    """A batch of encoded images.

    Args:
        names: of all.
        contents: the name and the bytes of each image file.
        model: for which they are prepared.
        problems: of those that have no bytes.
    """
    from keras_resnet.input_pipeline.corrupt_images import describe

    preprocessing: Preprocessing = preprocessing_of(model)
    problems = dict(problems or {})
    size = preprocessing.image_size
    if not contents:
        pixels = np.zeros((0, size, size, 3), np.uint8)
    else:
        pixels, fine = _decoder(preprocessing)([encoded for _, encoded in contents])
        for (name, encoded), ok in zip(contents, fine, strict=True):
            if not ok:
                problems[name] = describe(encoded, ValueError(UNDECODABLE))
        pixels = pixels[fine]
    good = [name for name, _ in contents if name not in problems]
    return Batch(names, good, pixels, as_inputs(pixels, model), problems)


def as_inputs(pixels: np.ndarray, model: keras.Model) -> np.ndarray:
    """What a model takes, float32 [n, ...], of what it sees, uint8 [n, size, size, 3]."""
    from keras_resnet import input_pipeline

    inputs = input_pipeline.normalize(pixels, preprocessing_of(model)).numpy()
    return np.moveaxis(inputs, -1, 1) if data_format_of(model) == "channels_first" else inputs


@functools.lru_cache(maxsize=8)
def _decoder(preprocessing: Preprocessing) -> Callable[[list[bytes]], list[np.ndarray]]:
    """`decode_batch` of exports, which takes longer to build than a batch to decode."""
    import tensorflow as tf

    from keras_resnet.export.signatures import decode_batch

    spec = tf.TensorSpec([None], tf.string)
    decode = tf.function(
        lambda files: decode_batch(files, preprocessing), input_signature=[spec], autograph=False
    )

    def run(files: list[bytes]) -> list[np.ndarray]:
        with tf.device("CPU:0"):
            return [tensor.numpy() for tensor in decode(tf.constant(files))]

    return run


def prepared_array(model: keras.Model, images: Any) -> np.ndarray:
    """What a model takes, [n, ...], as it was given.

    Raises:
        UserError: it is a path, or of another rank.
    """
    if isinstance(images, (str, os.PathLike)) or (
        isinstance(images, (list, tuple)) and any(isinstance(i, (str, os.PathLike)) for i in images)
    ):
        raise UserError(
            f"{model.name} does not say how its images are prepared, so it takes arrays and no "
            "paths; set model.preprocessing (see keras_resnet.preprocessing.Preprocessing)"
        )
    inputs = np.asarray(images)
    rank = len(keras.tree.flatten(model.inputs)[0].shape)
    if inputs.ndim != rank:
        wanted = tuple(keras.tree.flatten(model.inputs)[0].shape)
        raise UserError(f"{model.name} takes {wanted}; received an array of {inputs.shape}")
    return inputs
