"""What an `.onnx` file says of itself: names of its axes, and its metadata.

The keys are ours but for those of `Image.`, which say what the pixels are
(https://onnx.ai/onnx/repo-docs/MetadataProps.html, TypeDenotation.html).
"""

import importlib
import json
from typing import Any

import keras
import tensorflow as tf

from keras_resnet.export.description import KEY, Description
from keras_resnet.installation import VERSION

# Name and denotation of each axis.
_AXES = (
    ("batch", "DATA_BATCH"),
    ("height", "DATA_FEATURE"),
    ("width", "DATA_FEATURE"),
    ("channels", "DATA_CHANNEL"),
)
_IMAGE = {
    "Image.BitmapPixelFormat": "Rgb8",
    "Image.ColorSpaceGamma": "SRGB",
    "Image.NominalPixelRange": "NominalRange_0_255",
}


def describe(model: Any, description: Description, name: str) -> None:
    """Names the open axes of a ModelProto and puts a description into it.

    Its metadata are `classes`, a JSON list of names; `preprocessing`, JSON of what was done to the
    images it was evaluated on before they came to be its input; `versions`, JSON of what wrote it;
    and `keras_resnet`, from which this package reads all that it knows (`Description`).
    """
    onnx = importlib.import_module("onnx")
    for entry in model.graph.input:
        entry.type.denotation = "IMAGE"
        _name_axes(entry, _AXES)
    for entry in model.graph.output:
        _name_axes(entry, _AXES[:1])
    del model.graph.value_info[:]  # it would have other names for the same axes
    model.graph.name = name
    model.graph.doc_string = ""
    model.producer_name, model.producer_version = "keras-resnet", VERSION
    onnx.helper.set_model_props(
        model,
        {
            KEY: description.to_json(),
            "classes": json.dumps(list(description.class_names)),
            "preprocessing": json.dumps(description.preprocessing.to_dict()),
            "versions": json.dumps(_versions()),
            **_IMAGE,
        },
    )


def _name_axes(entry: Any, names: tuple[tuple[str, str], ...]) -> None:
    for axis, (name, denotation) in zip(entry.type.tensor_type.shape.dim, names, strict=False):
        axis.denotation = denotation
        if not axis.dim_value:
            axis.dim_param = name


def _versions() -> dict[str, str]:
    return {
        "keras-resnet": VERSION,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        **{name: importlib.import_module(name).__version__ for name in ("tf2onnx", "onnx")},
    }
