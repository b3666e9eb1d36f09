"""Fine-tuning: weights to start from, their preprocessing, and what stays frozen."""

import contextlib
import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
from ml_collections import ConfigDict

from keras_resnet import storage
from keras_resnet.architectures import get_architecture
from keras_resnet.blocks.normalization import is_normalization
from keras_resnet.config import evaluation_image_size, parse_renamings, preprocessing
from keras_resnet.errors import UserError
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.training.workdir import WorkDir
from keras_resnet.weights import (
    Checkpoint,
    WeightsError,
    apply_weights,
    preprocessing_of,
    read_weights,
    without_classifier,
)
from keras_resnet.weights.network import OF_TRAINING

# Of a network, what a config can say.
_NETWORK_KEYS = ("depths", "widths", "shortcut", "residual", "padding", "antialias")
_CLASSIFIER = "predictions"
# Flags that messages on weights name, and what they are of a run.
_OF_A_RUN = {
    "model": "model.name",
    "match": "model.weights_match",
    "rename": "model.weights_rename",
    **{key: f"model.{key}" for key in _NETWORK_KEYS},
}


def read_pretrained(config: ConfigDict) -> Checkpoint:
    """Reads `model.weights`: what `keras_resnet.weights` takes, or the work directory of a run.

    The work directory and Keras' own files may be in a bucket.

    Raises:
        UserError: there are no such weights, or they cannot be read.
    """
    weights = config.model.weights
    read = functools.partial(
        read_weights,
        variant=config.model.name,
        names=parse_renamings(config.model.weights_rename, "config.model.weights_rename"),
        match=config.model.weights_match,
    )
    with _as_a_run_says():
        return _read(weights, read)


def _read(weights: str, read: Callable[[str | Path], Checkpoint]) -> Checkpoint:
    if weights.startswith("hf://"):
        return read(weights)
    path = storage.as_path(weights)
    if path.is_dir():
        model = WorkDir(weights).model
        if not model.exists():
            raise UserError(
                f"config.model.weights={weights!r}: no {model.name} in this folder; a run writes "
                "it when it is finished"
            )
        path = model
    elif not storage.in_bucket(path):
        return read(weights)
    with storage.local_copy(path) as file:
        return dataclasses.replace(read(file), origin=str(path))


@contextlib.contextmanager
def _as_a_run_says() -> Iterator[None]:
    """Says of messages on weights how a run is told what they ask for."""
    try:
        yield
    except ImportError as error:  # names the extra to install
        raise WeightsError(str(error)) from error
    except WeightsError as error:
        flags = dict.fromkeys(re.findall(r"--(\w+)=", str(error.args[0])))
        keys = [f"--{flag}= is --config.{_OF_A_RUN[flag]}=" for flag in flags if flag in _OF_A_RUN]
        hint = f" Of a run {', '.join(keys)}." if keys else ""
        if lacking := [f"--{flag}=" for flag in flags if flag not in _OF_A_RUN]:
            hint += (
                f" `keras-resnet convert` takes {' and '.join(lacking)}, and makes a .keras file "
                "for config.model.weights."
            )
        raise WeightsError(f"{error.args[0]}{hint}", error.details) from error


def take_over_preprocessing(config: ConfigDict, workdir: WorkDir | None) -> ConfigDict:
    """Returns `config` with what `model.weights` say: `data.mean`, `std` and so on, the network.

    A run that is resumed has them in its config.json, so the weights need no longer be there. One
    that was begun when "bicubic" still meant "bicubic_float" keeps that.

    Raises:
        UserError: the weights cannot be read, or name a network that no config can say.
    """
    recorded = workdir.read_config() if workdir is not None and workdir.is_begun() else None
    config = config.copy_and_resolve_references()
    if recorded is not None:
        filters = (recorded.data.interpolation, config.data.interpolation)
        if filters == ("bicubic_float", "bicubic"):
            config.data.interpolation = "bicubic_float"
    if not config.model.weights:
        return config
    if recorded is not None and recorded.model.weights == config.model.weights:
        if _may_name_network(config.model.weights):
            for key in ("name", *_NETWORK_KEYS):
                config.model[key] = recorded.model[key]
        return _with_preprocessing(config, preprocessing(recorded))
    weights = read_pretrained(config)
    config = _with_network(config, weights)
    return _with_preprocessing(config, preprocessing_of(weights, evaluation_image_size(config)))


def _may_name_network(weights: str) -> bool:
    """Whether it is a file of Keras, a folder or of the hub, which may say the network."""
    from_hub = weights.startswith("hf://")
    return from_hub or weights.endswith((".keras", ".h5")) or not re.search(r"\.\w+$", weights)


def _with_network(config: ConfigDict, weights: Checkpoint) -> ConfigDict:
    """Takes the network that weights name, but for what the config says of it."""
    if "name" not in weights.network:  # one of Keras says how it is padded
        config.model.padding = config.model.padding or weights.network.get("padding")
        return config
    row = get_architecture(weights.network["name"])
    config.model.name = row.name
    for key, value in weights.network.items():
        if key in ("name", "classes", *OF_TRAINING) or value == getattr(row, key):
            continue
        if key not in _NETWORK_KEYS:
            raise UserError(
                f"config.model.weights={config.model.weights!r} are of {row.name} with "
                f"{key}={value!r}, which a config cannot say: a run cannot start from them"
            )
        if config.model[key] in (None, ()):
            config.model[key] = value
    return config


def _with_preprocessing(config: ConfigDict, values: Preprocessing | None) -> ConfigDict:
    if values is not None:
        # The image size is the run's own: networks take any. So is what its data set asks for.
        for key in set(values) - {"image_size", "exif", "max_pixels", "scaled_decoding"}:
            config.data[key] = getattr(values, key)
    return config


def load_pretrained(
    model: keras.Model, weights: Checkpoint, config: ConfigDict, say: Callable[[str], None]
) -> None:
    """Puts `weights` into the network of `config`; says so if the classifier stays random.

    It does unless the weights are for the very classes of `model`: as many others are as wrong.

    Raises:
        UserError: the weights are of another architecture.
    """
    preprocessing, class_names = model.preprocessing, model.class_names
    if weights.class_names is not None and weights.class_names != class_names:
        weights = without_classifier(weights)
    if "name" in weights.network:
        say(f"note: {weights.origin} names its network, {config.model.name}, which is trained.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = [key for key in ("shortcut", "padding", "antialias") if config.model[key]]
        with _as_a_run_says():
            apply_weights(model, weights, variant=config.model.name, given=given)
    for warning in caught:
        say(f"note: {warning.message}")
    # The config has taken over what the weights say; the image size and the classes are the run's.
    model.preprocessing, model.class_names = preprocessing, class_names


def freeze(model: keras.Model, what: str, frozen: bool = True) -> None:
    """Makes a part of the network untrainable, before the optimizer is built or steps are traced.

    Args:
        model: the network.
        what: "" nothing. "norm" all normalizations of any kind: their moving statistics, scales and
            shifts stay what they are and are used in training too, as for batches too small to take
            statistics of. "body" everything but the classifier, which is then a linear probe.
        frozen: False makes it trainable again.
    """
    if not what:
        return
    for layer in model.layers:
        if is_normalization(layer) if what == "norm" else layer.name != _CLASSIFIER:
            layer.trainable = not frozen
