"""Trained weights: from files and from the hub, under the names of the libraries that have them."""

import os

import keras

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.errors import did_you_mean
from keras_resnet.weights.assign import classes_of, load_into, preprocessing_of
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError
from keras_resnet.weights.defaults import HUB, default_weights
from keras_resnet.weights.files import read_file
from keras_resnet.weights.hub import read_hub, read_keras_default

__all__ = [
    "Checkpoint",
    "WeightsError",
    "apply_weights",
    "classes_of",
    "default_weights",
    "preprocessing_of",
    "read_weights",
]


def apply_weights(
    model: keras.Model,
    weights: str | os.PathLike | Checkpoint | None,
    *,
    variant: str,
    include_top: bool = True,
) -> None:
    """Loads weights into a model of `create_model`, with the preprocessing that goes with them.

    If they are for another number of classes, or without a classifier, the body gets its weights,
    the classifier keeps its random ones and a warning says so.

    Args:
        model: the model; its layer names say what is wanted.
        weights: None (nothing happens), what `read_weights` takes, or what it returned.
        variant: the model's name in the table.
        include_top: whether the model has its classifier.

    Raises:
        WeightsError: if the weights cannot be had or do not fit, listing the names that are
            missing, unexpected or of another shape. The model is unchanged then.
        ImportError: naming the extra to install, if a package for this kind of weights is missing.
    """
    if weights is None:
        return
    if not isinstance(weights, Checkpoint):
        weights = read_weights(weights, variant=variant, include_top=include_top)
    _check_architecture(weights, variant)
    load_into(model, weights, variant)


def read_weights(
    weights: str | os.PathLike, *, variant: str, include_top: bool = True
) -> Checkpoint:
    """Reads weights without a model.

    Args:
        weights: a path to a `.keras`, `.weights.h5`, `.h5` (keras.applications), `.safetensors`,
            `.pth` or `.pt` file; an address `hf://OWNER/REPOSITORY[@REVISION][/FILE]`; or
            "imagenet" for the variant's default (`default_weights`).
        variant: the name in the table for which "imagenet" is looked up.
        include_top: False takes the smaller file without classifier where there is one.

    Raises:
        WeightsError, ImportError: as `apply_weights`.
    """
    if weights == "imagenet":
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
    if "." not in name and (hint := did_you_mean(name, ["imagenet"])):
        raise WeightsError(f"There are no weights {weights!r}.{hint}")
    return read_file(weights)


def _check_architecture(checkpoint: Checkpoint, variant: str) -> None:
    """Networks that differ in what has no parameters (a blur pool, say) have the same names."""
    if checkpoint.architecture is None:
        return
    known = {
        row.reference: name
        for name, row in ARCHITECTURES.items()
        if row.library in ("timm", "torchvision")
    }
    expected = next((theirs for theirs, ours in known.items() if ours == variant), None)
    if expected is None or checkpoint.architecture == expected:
        return
    theirs = known.get(checkpoint.architecture)
    advice = f"create_model({theirs!r}) takes them" if theirs else "no variant here is that"
    raise WeightsError(
        f"The weights in {checkpoint.origin} are of {checkpoint.architecture!r}, {variant} is "
        f"{expected!r}: {advice}."
    )
