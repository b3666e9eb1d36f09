"""Trained weights: from files and from the hub, under the names of the libraries that have them."""

import dataclasses
import os
from collections.abc import Collection, Mapping

import keras

from keras_resnet.errors import did_you_mean
from keras_resnet.weights.assign import (
    classes_of,
    load_into,
    preprocessing_of,
    without_classifier,
)
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError, WeightsNote
from keras_resnet.weights.defaults import HUB, default_weights
from keras_resnet.weights.files import read_file
from keras_resnet.weights.hub import read_hub, read_keras_default
from keras_resnet.weights.keras_settings import check_padding
from keras_resnet.weights.naming import renamed
from keras_resnet.weights.network import (
    check_antialias,
    check_architecture,
    check_zero_channels,
    network_for,
    row_of,
)
from keras_resnet.weights.row_shapes import likely_networks

__all__ = [
    "Checkpoint",
    "WeightsError",
    "WeightsNote",
    "apply_weights",
    "classes_of",
    "default_weights",
    "likely_networks",
    "network_for",
    "preprocessing_of",
    "read_weights",
    "row_of",
    "without_classifier",
]

MATCHES = ("names", "order")


def apply_weights(
    model: keras.Model,
    weights: str | os.PathLike | Checkpoint | None,
    *,
    variant: str,
    include_top: bool = True,
    given: Collection[str] = (),
    names: Mapping[str, str] | None = None,
    match: str = "names",
) -> None:
    """Loads weights into a model of `create_model`, with the preprocessing that goes with them.

    If they are for another number of classes, or without a classifier, the body gets its weights,
    the classifier keeps its random ones and a warning says so.

    Args:
        model: the model; its layer names say what is wanted.
        weights: None (nothing happens), what `read_weights` takes, or what it returned.
        variant: the model's name in the table.
        include_top: whether the model has its classifier.
        given: arguments of `create_model` that the model was built with on purpose. With
            "shortcut" among them, option A's zero channels are taken to be where they should be;
            "padding", "stem_pool_padding" and "antialias" likewise.
        names, match: as for `read_weights`, if `weights` are read here.

    Raises:
        WeightsError: if the weights cannot be had or do not fit, listing the names that are
            missing, unexpected or of another shape. The model is unchanged then.
        ImportError: naming the extra to install, if a package for this kind of weights is missing.
    """
    if weights is None:
        return
    if not isinstance(weights, Checkpoint):
        weights = read_weights(
            weights, variant=variant, include_top=include_top, names=names, match=match
        )
    check_architecture(weights, variant)
    check_zero_channels(model, weights, given, variant)
    check_padding(model, weights, given, variant)
    check_antialias(model, weights, given, variant)
    load_into(model, weights, variant)


def read_weights(
    weights: str | os.PathLike,
    *,
    variant: str | None = None,
    include_top: bool = True,
    names: Mapping[str, str] | None = None,
    match: str = "names",
) -> Checkpoint:
    """Reads weights without a model; what it returns can be given as `weights=`.

    Args:
        weights: a path to a `.keras`, `.weights.h5`, `.h5` (keras.applications), `.safetensors`,
            `.npz`, `.pth`, `.pt`, `.th`, `.ckpt` or `.bin` file, or to a folder that transformers
            saved; an address `hf://OWNER/REPOSITORY[@REVISION][/FILE]`; or "imagenet" for the
            variant's default (`default_weights`).
        variant: the name in the table for which "imagenet" is looked up.
        include_top: False takes the smaller file without classifier where there is one.
        names: regular expressions and replacements for the names in the file, one after the
            other, to make them those of a library known here; an empty name leaves an array out.
        match: "order" puts the arrays of a PyTorch or Keras file into the model by order and
            shape, whatever they are called, if that is unique; "names" goes by their names.

    Raises:
        WeightsError, ImportError: as `apply_weights`.
    """
    if match not in MATCHES:
        raise WeightsError(f"`match` is 'names' or 'order', received {match!r}.")
    checkpoint = _read(weights, variant, include_top)
    if names:
        arrays = renamed(checkpoint.arrays, names, checkpoint.origin)
        checkpoint = dataclasses.replace(checkpoint, arrays=arrays)
    return dataclasses.replace(checkpoint, match=match)


def _read(weights: str | os.PathLike, variant: str | None, include_top: bool) -> Checkpoint:
    if weights == "imagenet":
        if variant is None:
            raise WeightsError("weights='imagenet' need the name of a network, such as 'ResNet50'.")
        address = default_weights(variant)
        if variant in HUB:
            return read_hub(address)
        return read_keras_default(variant, include_top)
    if isinstance(weights, str) and weights.startswith("hf://"):
        return read_hub(weights)
    if not isinstance(weights, (str, os.PathLike)):
        raise WeightsError(
            "`weights` is None, 'imagenet', a path or an address hf://OWNER/REPOSITORY; received "
            f"{weights!r}."
        )
    name = os.fspath(weights)
    if "." not in name and not os.path.isdir(name) and (hint := did_you_mean(name, ["imagenet"])):
        raise WeightsError(f"There are no weights {weights!r}.{hint}")
    return read_file(weights)
