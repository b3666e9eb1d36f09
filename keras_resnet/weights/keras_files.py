"""Reading Keras' three formats by the names of the layers, without building what they describe."""

import contextlib
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from keras_resnet.blocks.shortcuts import ZERO_SHORTCUTS
from keras_resnet.bounds import (
    Budget,
    RefusedError,
    dataset_bytes,
    opened_hdf5,
    opened_zip,
    parse_json,
)
from keras_resnet.layers.pad_channels import PLACEMENTS, STORED_PLACEMENT
from keras_resnet.models.weight_files import STORED_DESCRIPTION
from keras_resnet.preprocessing import NewerVersionError, Preprocessing
from keras_resnet.weights import keras_hub_config
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError
from keras_resnet.weights.keras_graph import graph_of
from keras_resnet.weights.keras_settings import settings_of_config
from keras_resnet.weights.own_config import network_of_config

# Variables are stored by number, in the order in which a layer makes them.
_VARIABLES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}
# Of group and layer normalization, as many as a convolution has.
_WITHOUT_STATISTICS = ("gamma", "beta")
# What the image's channels go into, of ours and KerasHub's networks.
_FIRST_KERNELS = ("stem_conv/kernel", "stem_conv1/kernel", "conv1_conv/kernel")
_SHORTCUTS = {placement: kind for kind, placement in ZERO_SHORTCUTS.items()}
# Layers, and those in layers of somebody's own; no states of random numbers.
_LAYER = re.compile(r"(?:.*/)?layers/(?!.*seed_generator/)(?:[^/]+/)+vars")
# The classifier's name in the weight files that keras.applications downloads.
_OLD_CLASSIFIER = "probs/"


def read_keras_archive(path: Path) -> Checkpoint:
    """Reads a `.keras` file; preprocessing and class names from its configuration, if ours."""
    budget = Budget(path)
    try:
        with opened_zip(budget) as archive:
            description = parse_json(archive.read("config.json"))
            config = description["config"]
            weights = io.BytesIO(archive.read("model.weights.h5"))
        if not isinstance(config, dict):
            raise TypeError(f"its config is {config!r:.20}")
    except RefusedError:
        raise
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, OSError, EOFError) as error:
        raise WeightsError(f"{path} is truncated or no .keras file ({error}).") from error
    checkpoint = _read_layers(weights, Budget(path))
    _add_description(checkpoint, config, keras_hub_config.network_of(description, str(path)))
    return checkpoint


def _add_description(
    checkpoint: Checkpoint, config: Mapping[str, Any], told: Mapping[str, Any] | None = None
) -> None:
    """Adds what the configuration of a model says: preprocessing and names of classes, if ours.

    Args:
        checkpoint: the arrays.
        config: of the model, as Keras stores it.
        told: fields of `Architecture`, if the configuration is of another library.

    Raises:
        WeightsError: a later version of this package wrote it.
    """
    path = checkpoint.origin
    try:
        checkpoint.preprocessing = Preprocessing.from_metadata(config.get("preprocessing"), path)
    except NewerVersionError as error:
        raise WeightsError(f"{path}: {error}") from error
    names = config.get("class_names")
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    checkpoint.class_names = names if is_list else None
    own = network_of_config(config)
    settings = {} if own else settings_of_config(config, path)
    network = own or told or {}
    checkpoint.network = {**settings, **network, **checkpoint.network}
    checkpoint.graph = graph_of(config)
    first = next((k for n, k in checkpoint.arrays.items() if n in _FIRST_KERNELS), None)
    if network and first is not None and first.ndim > 2:
        checkpoint.channels = first.shape[-2]


def read_keras_weights(path: Path) -> Checkpoint:
    """Reads a `.weights.h5` file, by the layer names that Keras stores in it.

    Those of this project describe their network, too.
    """
    return _read_layers(path, Budget(path))


def read_legacy_h5(path: Path) -> Checkpoint:
    """Reads an `.h5` file of keras.applications: a group per layer, variables by name."""
    budget = Budget(path)
    with _open(path, budget) as file:
        groups = file.get("model_weights", file)
        if "layer_names" not in groups.attrs:
            if "layers" in file:
                return _read_layers(path, budget)
            raise WeightsError(f"{path} is no weight file of Keras: it has no layer_names.")
        config = _config_in(file.attrs.get("model_config"))
        arrays = {}
        for layer in _texts(groups, "layer_names", path):
            if not isinstance(groups.get(layer), h5py.Group):
                raise WeightsError(f"{path} is broken: it has no layer {layer!r}.")
            names = _texts(groups[layer], "weight_names", path)
            for name, key in zip(names, _keys(layer, names), strict=True):
                arrays[key] = _array(groups[layer], name, budget)
    checkpoint = Checkpoint(str(path), _rename_classifier(arrays))
    _add_description(checkpoint, config)
    return checkpoint


def _config_in(text: Any) -> Mapping[str, Any]:
    """The model's configuration that old `.h5` files may have beside their weights, or nothing."""
    try:
        config = parse_json(text)["config"]
    except (ValueError, TypeError, KeyError):
        return {}
    return config if isinstance(config, Mapping) else {}


def _description_in(file: h5py.File, budget: Budget) -> Mapping[str, Any]:
    """What this project's `.weights.h5` files say of their network; nothing of others'."""
    if not isinstance(file.get(STORED_DESCRIPTION), h5py.Dataset):
        return {}
    content = _array(file, STORED_DESCRIPTION, budget)
    try:
        description = parse_json(content.tobytes())
    except ValueError as error:
        raise WeightsError(f"{budget.path} is broken at {STORED_DESCRIPTION} ({error}).") from error
    return description if isinstance(description, Mapping) else {}


def _keys(layer: str, names: list[str]) -> list[str]:
    """Layer and variable of each name; in a layer of somebody's own the layers are its parts."""
    parts = [name.partition(":")[0].split("/") for name in names]
    own = [f"{layer}/{part[-1]}" for part in parts]
    if len(set(own)) == len(own):
        return own
    return ["/".join(part if len(part) > 1 else [layer, *part]) for part in parts]


def _read_layers(file: Path | io.BytesIO, budget: Budget) -> Checkpoint:
    """The variables of all layers, and where option-A shortcuts have their zeros."""
    path = budget.path
    groups: list[h5py.Group] = []
    network = {}

    def visit(name, item):
        if isinstance(item, h5py.Group) and _LAYER.fullmatch(name) and len(item):
            groups.append(item)

    arrays = {}
    with _open(file, budget) as opened:
        description = _description_in(opened, budget)
        opened.visititems(visit)
        # Their names count the layers of each class as the model has them, but lie sorted as text.
        groups.sort(key=lambda group: _by_numbers(group.name))
        for group, layer in zip(groups, _layer_names(groups, path), strict=True):
            if STORED_PLACEMENT in group:
                placement = int(_array(group, STORED_PLACEMENT, budget))
                if not 0 <= placement < len(PLACEMENTS):
                    raise WeightsError(f"{path}: {layer} has the unknown placement {placement}.")
                network["shortcut"] = _SHORTCUTS[PLACEMENTS[placement]]
                continue
            variables = _VARIABLES.get(len(group), tuple(map(str, range(len(group)))))
            if len(group) == 2 and _array(group, "0", budget).ndim == 1:
                variables = _WITHOUT_STATISTICS
            for number, variable in enumerate(variables):
                arrays[f"{layer}/{variable}"] = _array(group, str(number), budget)
    checkpoint = Checkpoint(str(path), arrays, network=network)
    if description:
        _add_description(checkpoint, description)
    return checkpoint


def _by_numbers(name: str) -> list[str | int]:
    """A key to sort by: names as text, numbers as numbers."""
    parts = re.split(r"(\d{1,9})", name)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def _layer_names(groups: list[h5py.Group], path: Path) -> list[str]:
    """The names of layers; where several have one, as in layers of somebody's own, their places."""
    if not all("name" in group.attrs for group in groups):
        raise WeightsError(
            f"{path} does not hold the names of its layers (Keras older than 3.9 wrote it): load "
            "it with the old version and save it as .keras."
        )
    names = [_text(group.attrs["name"]) for group in groups]
    counts = Counter(names)
    places = [re.sub(r"^.*?layers/|/vars$", "", group.name) for group in groups]
    return [name if counts[name] == 1 else place for name, place in zip(names, places, strict=True)]


@contextlib.contextmanager
def _open(file: Path | io.BytesIO, budget: Budget) -> Iterator[h5py.File]:
    try:
        with opened_hdf5(file, budget) as opened:
            yield opened
    except OSError as error:
        raise WeightsError(f"{budget.path} is truncated or no HDF5 file ({error}).") from error


def _array(group: h5py.Group, name: str, budget: Budget) -> np.ndarray:
    dataset = group.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise WeightsError(f"{budget.path} is broken: {group.name} has no {name}.")
    budget.take(dataset_bytes(dataset), f"{group.name}/{name}")
    try:
        array = dataset[()]
    except OSError as error:
        raise WeightsError(f"{budget.path} is broken at {dataset.name} ({error}).") from error
    if dataset.attrs.get("dtype") == "bfloat16":
        array = array.view(ml_dtypes.bfloat16)
    return array


def _rename_classifier(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        f"predictions/{name.removeprefix(_OLD_CLASSIFIER)}"
        if name.startswith(_OLD_CLASSIFIER)
        else name: array
        for name, array in arrays.items()
    }


def _texts(group: h5py.Group, name: str, path: Path) -> list[str]:
    """The names in an attribute."""
    values = group.attrs.get(name)
    if not isinstance(values, (list, np.ndarray)):
        raise WeightsError(f"{path} is no weight file of Keras: {group.name} has no {name}.")
    return list(map(_text, values))


def _text(value: object) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)
