"""Small networks and weights for the tests of `keras_resnet.weights`."""

import json

import keras
import numpy as np
import pytest
from references import generator

from keras_resnet.models import create_model
from keras_resnet.weights import Checkpoint, apply_weights, schemes
from keras_resnet.weights.assign import slots

TINY = {"depths": (1, 1), "widths": (8, 16), "stem_width": 8, "input_shape": (32, 32, 3)}


def tiny(variant: str = "ResNet18", *, classes: int = 5, **arguments):
    """A network of two blocks."""
    return create_model(variant, **{**TINY, "classes": classes, **arguments})


def arrays_for(model, scheme: schemes.NameScheme) -> dict[str, np.ndarray]:
    """The generator's weights for a model, named and laid out as a library does."""
    return {slot.name: generator.weight(slot.name, slot.shape) for slot in slots(model, scheme)}


def values(model) -> dict[str, np.ndarray]:
    """Copies of all weights by "layer/variable"."""
    return {
        f"{layer.name}/{variable.name}": keras.ops.convert_to_numpy(variable).copy()
        for layer in model.layers
        for variable in layer.weights
    }


def assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def save_safetensors(arrays, path):
    """Writes the file and returns its path."""
    numpy_files = pytest.importorskip("safetensors.numpy", reason="needs the extra `safetensors`")
    numpy_files.save_file({name: np.ascontiguousarray(a) for name, a in arrays.items()}, path)
    return path


def filled(variant="ResNet18", scheme=schemes.TORCHVISION, **arguments):
    """A model with the generator's weights, and those weights under a library's names."""
    model = tiny(variant, **arguments)
    arrays = arrays_for(model, scheme)
    checkpoint = Checkpoint("generator", arrays)
    apply_weights(model, checkpoint, variant=variant)
    return model, arrays


def write_legacy_layers(root, arrays, classifier):
    """Writes weights as the HDF5 files of keras.applications hold them."""
    layers = dict.fromkeys(name.split("/")[0] for name in arrays)
    renamed = {layer: classifier if layer == "predictions" else layer for layer in layers}
    root.attrs["layer_names"] = [name.encode() for name in ["input_1", *renamed.values()]]
    root.create_group("input_1").attrs["weight_names"] = np.zeros(0, "S1")
    for layer, written in renamed.items():
        group = root.create_group(written)
        names = [name for name in arrays if name.split("/")[0] == layer]
        stored = [f"{written}/{name.split('/')[1]}:0" for name in names]
        group.attrs["weight_names"] = [name.encode() for name in stored]
        for name, place in zip(names, stored, strict=True):
            group[place] = arrays[name]


def config_beside(path, **config):
    """Writes a `config.json` like timm's next to a weight file."""
    pretrained = {
        "input_size": [3, 160, 160],
        "crop_pct": config.pop("crop_pct", 0.91),
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        **config.pop("pretrained", {}),
    }
    text = json.dumps({**config, "pretrained_cfg": pretrained})
    path.with_name("config.json").write_text(text)
