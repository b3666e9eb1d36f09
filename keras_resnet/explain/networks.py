"""The network to explain or to embed with, from whatever holds one. Loads TensorFlow."""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.explain.embedding import BATCH, Embeddings, embed
from keras_resnet.export import file_predictors
from keras_resnet.export.loading import load_network
from keras_resnet.export.predictor import UNDECODABLE
from keras_resnet.export.versions import newest_version, openvino_file
from keras_resnet.input_pipeline.corrupt_images import describe
from keras_resnet.input_pipeline.places import read_image
from keras_resnet.training.evaluation import Which

# Paths of image files, progress=... -> Embeddings
Embedder = Callable[..., Embeddings]


def load_classifier(path: str | os.PathLike, checkpoint: Which | None = None) -> keras.Model:
    """The Keras model in a `.keras` file, a work directory or weights that name their network.

    Raises:
        UserError: there is none; of an export says that its layers cannot be looked into.
    """
    model = load_network(path, checkpoint)
    if model is not None:
        return model
    if not os.path.exists(os.path.expanduser(path)):
        raise UserError(f"{path}: no such file or folder")
    raise UserError(
        f"{path}: holds no Keras model, whose layers could be looked into; name the .keras file, "
        "the work directory, or the weights that it was exported from"
    )


def load_embedder(path: str | os.PathLike) -> Embedder:
    """What `embed` does, with the model in `path`: also in a SavedModel of this package.

    Args:
        path: what `load_classifier` takes, a SavedModel, or a folder of exported versions.

    Raises:
        UserError: there is nothing at `path` that gives vectors.
    """
    model = load_network(path)
    if model is not None:
        return functools.partial(embed, model)
    file = openvino_file(Path(path).expanduser())
    if file.suffix in file_predictors.SUFFIXES:
        raise UserError(
            f"{path}: gives probabilities and no vectors; name the .keras file, the work directory "
            "or the SavedModel of the same network"
        )
    folder = newest_version(file)
    try:
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: cannot be loaded as a SavedModel ({reason})") from error
    if "features" not in loaded.signatures:
        raise UserError(
            f"{folder}: has no signature `features`, which exports of keras-resnet have"
        )
    return functools.partial(_embed_served, loaded)


def _embed_served(
    loaded: Any, files: Sequence[Path], progress: Callable[[int], Any] = lambda count: None
) -> Embeddings:
    names: list[str] = []
    rows: list[np.ndarray] = []
    problems: dict[str, str] = {}
    remaining = iter(files)
    while chunk := list(itertools.islice(remaining, BATCH)):
        contents = {}
        for file in chunk:
            try:
                contents[str(file)] = read_image(file)
            except OSError as error:
                problems[str(file)] = f"cannot be read: {error.strerror or error}"
        for name, vector in _served(loaded, contents).items():
            if vector is None:
                problems[name] = describe(contents[name], ValueError(UNDECODABLE))
            else:
                names.append(name)
                rows.append(vector)
        progress(len(chunk))
    vectors = np.stack(rows) if rows else np.zeros((0, 0), "float32")
    return Embeddings(tuple(names), vectors, problems)


def _served(loaded: Any, contents: dict[str, bytes]) -> dict[str, np.ndarray | None]:
    """The vector of each encoded image, None of one that cannot be decoded."""
    if not contents:
        return {}
    try:
        outputs = loaded.signatures["features"](image_bytes=tf.constant(list(contents.values())))
    except tf.errors.InvalidArgumentError:
        if len(contents) == 1:
            return dict.fromkeys(contents)
        # The SavedModel refuses the whole batch for one image: find out which.
        return {
            k: v for name in contents for k, v in _served(loaded, {name: contents[name]}).items()
        }
    vectors = outputs["features"].numpy()
    valid = outputs["valid"].numpy() if "valid" in outputs else np.ones(len(contents), bool)
    pairs = zip(contents, vectors, valid, strict=True)
    return {name: vector if ok else None for name, vector, ok in pairs}
