"""Putting named arrays into a model: all of them, or none."""

import dataclasses
import re
import warnings
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_resnet.architectures import get_architecture
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.weights import schemes
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError
from keras_resnet.weights.schemes import NameScheme

LISTED = 10  # names per kind of mismatch in a message


@dataclasses.dataclass
class Slot:
    """A variable of the model and the array it wants.

    Attributes:
        variable: the model's variable.
        name: the array's name in the file; None if its scheme has none for it.
        shape: the array's shape in the file's layout.
        ours: "layer/variable", for messages.
        in_classifier: whether it belongs to the layer `predictions`.
        from_torch: whether the array has PyTorch's layout of a kernel.
    """

    variable: Any
    name: str | None
    shape: tuple[int, ...]
    ours: str
    in_classifier: bool
    from_torch: bool

    def value(self, array: np.ndarray) -> np.ndarray:
        """The array in our layout."""
        if self.from_torch:
            array = np.moveaxis(array, (0, 1), (-1, -2))
        return array.reshape(tuple(self.variable.shape))


def slots(model: keras.Model, scheme: NameScheme) -> list[Slot]:
    """What every variable of the network is called in a naming scheme, and its shape there.

    Layers of other names than `create_model` gives, as before an `input_tensor`, are left out.
    """
    layers = [layer for layer in _flatten(model) if schemes.is_ours(layer.name)]
    pooled = any(
        layer.name.endswith("_shortcut_pool") and "AveragePooling" in type(layer).__name__
        for layer in layers
    )
    found = []
    for layer in layers:
        in_classifier = layer.name == "predictions"
        for variable in layer.weights:  # without the seeds of random layers
            from_torch = scheme.torch_layout and variable.name == "kernel"
            shape = tuple(variable.shape)
            if from_torch:
                if in_classifier and scheme.classifier_is_conv:
                    shape = (1,) * (len(model.input_shape) - 2) + shape
                shape = (*shape[:-3:-1], *shape[:-2])
            name = scheme.variable(layer.name, variable.name, pooled)
            ours = f"{layer.name}/{variable.name}"
            found.append(Slot(variable, name, shape, ours, in_classifier, from_torch))
    return found


def classes_of(checkpoint: Checkpoint) -> int | None:
    """Number of classes of the checkpoint's classifier; None if it has none.

    Raises:
        WeightsError: if its names follow no scheme known here.
    """
    bias = checkpoint.arrays.get(_scheme_of(checkpoint).classifier + "bias")
    return None if bias is None or bias.ndim != 1 else bias.shape[0]


def load_into(model: keras.Model, checkpoint: Checkpoint, label: str) -> None:
    """Assigns a checkpoint's arrays to a model's variables and takes over its preprocessing.

    A checkpoint whose classifier is for another number of classes, or that has none, leaves the
    model's classifier as it is and warns.

    Args:
        model: made by `create_model`.
        checkpoint: what a file held.
        label: the variant's name, for messages.

    Raises:
        WeightsError: if names or shapes do not fit; the model is unchanged then.
    """
    scheme = _scheme_of(checkpoint)
    arrays = {
        name: array
        for name, array in checkpoint.arrays.items()
        if not (scheme.ignored and re.search(scheme.ignored, name))
    }
    wanted = slots(model, scheme)
    fresh = _reason_for_fresh_classifier(wanted, arrays)
    if fresh or not any(slot.in_classifier for slot in wanted):
        wanted = [slot for slot in wanted if not slot.in_classifier]
        arrays = {n: a for n, a in arrays.items() if not n.startswith(scheme.classifier)}
    _check(wanted, arrays, checkpoint, scheme, label)
    for slot in wanted:
        slot.variable.assign(slot.value(arrays[str(slot.name)]))
    _take_over_metadata(model, checkpoint, scheme, with_classes=not fresh)
    if fresh:
        warnings.warn(
            f"{checkpoint.origin} {fresh}: the body of {label} has its weights, the classifier "
            "'predictions' starts from random ones.",
            stacklevel=4,
        )


def _scheme_of(checkpoint: Checkpoint) -> NameScheme:
    scheme = schemes.detect(checkpoint.arrays)
    if scheme is None:
        first = ", ".join(list(checkpoint.arrays)[:5]) or "none at all"
        titles = ", ".join(known.title for known in schemes.SCHEMES)
        raise WeightsError(
            f"{checkpoint.origin} follows no naming scheme known here ({titles}); its first names: "
            f"{first}."
        )
    return scheme


def _flatten(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flatten(layer)
        else:
            yield layer


def _reason_for_fresh_classifier(wanted: list[Slot], arrays: dict[str, np.ndarray]) -> str | None:
    classifier = [slot for slot in wanted if slot.in_classifier]
    if not classifier:
        return None
    if all(slot.name not in arrays for slot in classifier):
        return "has no classifier"
    bias = classifier[-1]
    if bias.name not in arrays or arrays[bias.name].shape == bias.shape:
        return None
    classes = arrays[bias.name].shape[0] if arrays[bias.name].ndim == 1 else None
    for slot in classifier:
        axis = 0 if slot.from_torch else len(slot.shape) - 1
        shape = (*slot.shape[:axis], classes, *slot.shape[axis + 1 :])
        if slot.name not in arrays or arrays[slot.name].shape != shape:
            return None
    return f"is for {classes} classes, the model for {bias.shape[0]}"


def _check(
    wanted: list[Slot],
    arrays: dict[str, np.ndarray],
    checkpoint: Checkpoint,
    scheme: NameScheme,
    label: str,
) -> None:
    missing = [slot.name or slot.ours for slot in wanted if slot.name not in arrays]
    unexpected = sorted(arrays.keys() - {slot.name for slot in wanted})
    misshapen = [
        f"{slot.name} is {arrays[slot.name].shape}, should be {slot.shape}"
        for slot in wanted
        if slot.name in arrays and arrays[slot.name].shape != slot.shape
    ]
    lists = ((missing, "missing"), (unexpected, "unexpected"), (misshapen, "of another shape"))
    if not (missing or unexpected or misshapen):
        return
    message = "; ".join(_listing(names, kind) for names, kind in lists if names)
    raise WeightsError(
        f"The weights in {checkpoint.origin} (names of {scheme.title}) are not those of {label}: "
        f"{message}. The model is unchanged."
    )


def _listing(names: list[str], kind: str) -> str:
    more = ", ..." if len(names) > LISTED else ""
    return f"{len(names)} {kind}: {', '.join(names[:LISTED])}{more}"


def _take_over_metadata(
    model: keras.Model, checkpoint: Checkpoint, scheme: NameScheme, with_classes: bool
) -> None:
    size = fixed_image_size(model)
    preprocessing = preprocessing_of(checkpoint, size)
    if preprocessing is not None and len(model.input_shape) == 4:  # images, no 1-D or 3-D data
        model.preprocessing = (
            preprocessing if size is None else preprocessing.replace(image_size=size)
        )
    if checkpoint.class_names and with_classes:
        outputs = model.output_shape[-1]
        if len(checkpoint.class_names) == outputs:
            model.class_names = checkpoint.class_names


def preprocessing_of(checkpoint: Checkpoint, image_size: int | None) -> Preprocessing | None:
    """The preprocessing that goes with the weights, for images of this size if it says more.

    Raises:
        WeightsError: if the names of the arrays follow no scheme known here.
    """
    if checkpoint.preprocessing is None:
        if _scheme_of(checkpoint) is schemes.KERAS_APPLICATIONS:
            return _keras_applications_preprocessing(checkpoint)
        return None
    larger = checkpoint.test_preprocessing
    if larger is not None and larger.image_size == image_size:
        return larger
    return checkpoint.preprocessing


def fixed_image_size(model: keras.Model) -> int | None:
    """Pixels along each side of the square image that a model takes; None if it takes any."""
    convolution = next(layer for layer in _flatten(model) if layer.name.startswith("stem_conv"))
    shape = model.input_shape
    space = shape[1:-1] if convolution.data_format == "channels_last" else shape[2:]
    return space[0] if len(set(space)) == 1 else None


def _keras_applications_preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    preactivation = any(name.startswith("post_bn/") for name in checkpoint.arrays)
    return get_architecture("ResNet50V2" if preactivation else "ResNet50V1").preprocessing
