"""Keras models that others made on our networks, as the classifiers that exports are made of."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_resnet.bounds import parse_json
from keras_resnet.errors import UserError, nearest
from keras_resnet.layers import NormalizeImages, keras_internals
from keras_resnet.models import ResNet
from keras_resnet.preprocessing import Preprocessing, PreprocessingError

IMAGENET = "imagenet"
# torchvision's and this package's, for whatever size the network has.
_IMAGENET = {
    "crop_ratio": 0.875,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "channel_order": "rgb",
}
# Of a network that takes pixels as they are.
_PIXELS = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "channel_order": "rgb"}
_PREPARE_IMAGES = (keras.layers.Rescaling, keras.layers.Normalization, NormalizeImages)
_OPEN_SIZE = 224


def read_preprocessing(given: str) -> Mapping[str, Any] | str:
    """What --preprocessing says: "imagenet", or the fields in a JSON file.

    Raises:
        UserError: there is no such file, or it holds no JSON object.
    """
    if given == IMAGENET:
        return given
    path = Path(given).expanduser()
    try:
        values = parse_json(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"--preprocessing={given}: cannot be read ({error.strerror}); name a JSON file with "
            f"the fields of a Preprocessing, or {IMAGENET}"
        ) from error
    except ValueError as error:
        raise UserError(f"--preprocessing={given}: is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"--preprocessing={given}: holds no JSON object such as {_example()}")
    return values


def as_classifier(
    model: keras.Model, preprocessing: Mapping[str, Any] | str | None = None
) -> ResNet:
    """A model as a flat graph in floating point that knows its preprocessing.

    It may be functional or Sequential, have our network as a layer or as a part of its graph, scale
    pixels itself, end in a `Dense` layer with or without an activation behind it, have any dtype
    policy, and be quantized to int8 by Keras (`quantize`), whose weights then become numbers again.

    Args:
        model: the model. It stays as it is; one that is such a classifier already is returned.
        preprocessing: instead of the model's own or its backbone's: a `Preprocessing`, some of its
            fields, with those of ImageNet for the others, or "imagenet". For the latter a network
            that begins with `Rescaling`, `Normalization` or `NormalizeImages` gets pixels as they
            are.

    Raises:
        UserError: the model is no graph of layers, or quantized in another way; or the
            preprocessing cannot be used.
    """
    network = _functional(model)
    if network is None:
        raise UserError(
            f"{model.name} is a {type(model).__name__}, no graph of layers; make it as "
            "keras.Model(inputs, outputs), or as keras.Sequential with an Input"
        )
    if not isinstance(model, ResNet) or _needs_flattening(network):
        flat = _flattened(network, model.name)
        _take_over(flat, model)
    elif preprocessing is None:
        return model
    else:
        flat = ResNet(model.inputs, model.outputs, name=model.name)
        _take_over(flat, model)
    if preprocessing is not None:
        flat.preprocessing = _completed(preprocessing, flat)
    return flat


def _functional(layer: Any) -> Any:
    """A layer that is a model as a functional one; None where it is no graph of layers."""
    if isinstance(layer, keras.Sequential):
        return keras.Model(layer.inputs, layer.outputs) if layer.built and layer.inputs else None
    is_graph = isinstance(layer, keras.Model) and keras_internals.is_functional(layer)
    return layer if is_graph else None


def _needs_flattening(network: Any) -> bool:
    return not isinstance(network.layers[-1], keras.layers.Dense) or any(
        isinstance(layer, keras.Model) or getattr(layer, "quantization_mode", None)
        for layer in network.layers
    )


def _flattened(network: Any, name: str) -> ResNet:
    """A copy without models inside of models, whose last layer is a classifier if there is one."""
    copies: dict[int, tuple[Any, Any]] = {}
    taken: set[str] = set()

    def operation(layer):
        def run(*args, **kwargs):
            inner = _functional(layer)
            if inner is not None:
                return keras_internals.run_through_graph(
                    inner, keras.tree.flatten(args[0]), operation
                )
            if id(layer) not in copies:
                copies[id(layer)] = (layer, _copy(layer, taken))
            return copies[id(layer)][1](*args, **kwargs)

        return run

    inputs = [
        keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
        for tensor in network.inputs
    ]
    outputs = keras_internals.run_through_graph(network, inputs, operation)
    for original, copy in copies.values():
        if copy.weights:
            copy.set_weights(_numbers(original))
    flat = keras.Model(inputs, outputs)
    head = _classifier_before_activation(flat)
    return ResNet(inputs, outputs if head is None else head.output, name=name)


def _copy(layer: Any, taken: set[str]) -> Any:
    config = layer.get_config()
    name, number = layer.name, 1
    while name in taken:
        name, number = f"{layer.name}_{number}", number + 1
    taken.add(name)
    config["name"] = name
    if isinstance(layer, keras.layers.Activation):
        config["activation"] = layer.activation  # a function that is not registered, too
    if getattr(layer, "quantization_mode", None):
        config["dtype"] = "float32"
        config.pop("quantization_config", None)
    return type(layer).from_config(config)


def _numbers(layer: Any) -> list[np.ndarray]:
    """The weights of a layer, in floating point where it is quantized."""
    mode = getattr(layer, "quantization_mode", None)
    if mode is None:
        return layer.get_weights()
    if mode != "int8" or not isinstance(layer, keras.layers.Dense):
        raise UserError(
            f"the {type(layer).__name__} {layer.name} is quantized to {mode}, which is not "
            "exported; export the model as it was before it was quantized"
        )
    # keras.quantizers.abs_max_quantize: a scale for each unit, by which numbers were multiplied.
    kernel, scale = (
        keras.ops.convert_to_numpy(keras.ops.cast(values, "float32"))
        for values in (layer.kernel, layer.kernel_scale)
    )
    weights = [kernel / scale]
    return [*weights, keras.ops.convert_to_numpy(layer.bias)] if layer.use_bias else weights


def _classifier_before_activation(flat: keras.Model) -> keras.layers.Dense | None:
    """The Dense layer before a last layer that only activates; it gets that activation."""
    nodes = list(keras_internals.nodes_in_running_order(flat))
    last = nodes[-1]
    softmax = isinstance(last.operation, keras.layers.Softmax) and last.operation.axis == -1
    if not (softmax or isinstance(last.operation, keras.layers.Activation)):
        return None
    producers = {id(output): node.operation for node in nodes for output in node.outputs}
    head = producers.get(id(last.input_tensors[0]))
    if not isinstance(head, keras.layers.Dense):
        return None
    if head.activation is not keras.activations.linear:
        return None
    head.activation = keras.activations.softmax if softmax else last.operation.activation
    return head


def _take_over(flat: ResNet, model: keras.Model) -> None:
    """What a model, or else the one network of ours inside of it, says of itself."""
    inside = [layer for layer in keras_internals.layers_within(model) if isinstance(layer, ResNet)]
    flat.preprocessing = getattr(model, "preprocessing", None)
    if flat.preprocessing is None and len(inside) == 1:
        flat.preprocessing = inside[0].preprocessing
        if flat.preprocessing is not None and _prepares_images(flat):
            flat.preprocessing = flat.preprocessing.replace(**_PIXELS)
    for name in ("class_names", "thresholds", "calibration"):
        if getattr(model, name, None) is not None:
            setattr(flat, name, getattr(model, name))
    flat.tta = getattr(model, "tta", "none")


def _prepares_images(flat: keras.Model) -> bool:
    """Whether the first thing that a network does with its images is to scale them."""
    first = next(keras_internals.nodes_in_running_order(flat), None)
    return first is not None and isinstance(first.operation, _PREPARE_IMAGES)


def _completed(given: Mapping[str, Any] | str, flat: ResNet) -> Preprocessing:
    if isinstance(given, Preprocessing):
        return given
    if given == IMAGENET:
        given = _PIXELS if _prepares_images(flat) else {}
    if isinstance(given, str):
        raise PreprocessingError(
            f"preprocessing={given!r}: {IMAGENET!r} is the only name; give a Preprocessing, or "
            f"some of its fields{nearest(given, [IMAGENET])}"
        )
    sides = {side for side in flat.inputs[0].shape[1:] if side not in (None, 3)}
    size = max(sides, default=_OPEN_SIZE)
    values = {"image_size": size, **_IMAGENET, **given}
    return Preprocessing.from_dict({"version": Preprocessing.VERSION, "exif": "apply", **values})


def _example() -> str:
    return json.dumps({"image_size": _OPEN_SIZE, "mean": [0, 0, 0], "std": [1, 1, 1]})
