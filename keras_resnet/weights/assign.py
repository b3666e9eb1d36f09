"""Putting named arrays into a model: all of them, or none."""

import dataclasses
import re
import warnings

import keras
import numpy as np

from keras_resnet.architectures import get_architecture
from keras_resnet.layers import PadChannels
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.weights import schemes
from keras_resnet.weights.channels import adapt_channels
from keras_resnet.weights.checkpoint import LISTED, Checkpoint, WeightsError
from keras_resnet.weights.mismatch import shapes_in, shapes_of, side_by_side
from keras_resnet.weights.naming import Naming, naming_of, require_naming
from keras_resnet.weights.order import naming_by_order
from keras_resnet.weights.slots import Slot, flatten, slots
from keras_resnet.weights.written_layers import (
    classes_by_shape,
    classifier_by_shape,
    layers_of_file,
    layers_of_model,
)


def classes_of(checkpoint: Checkpoint) -> int | None:
    """Number of classes of the checkpoint's classifier; None if it has none.

    Where its names follow no scheme known here, shapes say it.
    """
    naming = naming_of(checkpoint) if checkpoint.match == "names" else None
    if naming is None:
        return classes_by_shape(checkpoint)
    bias = naming.arrays.get(naming.scheme.classifier + "bias")
    return None if bias is None or bias.ndim != 1 else bias.shape[0]


def without_classifier(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without the arrays of its classifier, whatever they are called there."""
    naming = naming_of(checkpoint) if checkpoint.match == "names" else None
    if naming is None:
        classifier = classifier_by_shape(checkpoint)
    else:
        start = naming.scheme.classifier
        classifier = {name for new, name in naming.original.items() if new.startswith(start)}
    arrays = {n: a for n, a in checkpoint.arrays.items() if n not in classifier}
    return dataclasses.replace(checkpoint, arrays=arrays)


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
    naming = _naming(model, checkpoint)
    scheme, arrays = naming.scheme, dict(naming.arrays)
    wanted = slots(model, scheme)
    fresh = _reason_for_fresh_classifier(wanted, arrays)
    if fresh or not any(slot.in_classifier for slot in wanted):
        wanted = [slot for slot in wanted if not slot.in_classifier]
        arrays = {n: a for n, a in arrays.items() if not n.startswith(scheme.classifier)}
    arrays = adapt_channels(wanted, arrays, checkpoint.origin)
    _check(wanted, arrays, checkpoint, naming, label)
    for slot in wanted:
        slot.variable.assign(slot.value(arrays[str(slot.name)]))
    _take_over_metadata(model, checkpoint, with_classes=not fresh)
    if fresh:
        warnings.warn(
            f"{checkpoint.origin} {fresh}: the body of {label} has its weights, the classifier "
            "'predictions' starts from random ones.",
            stacklevel=4,
        )


def _naming(model: keras.Model, checkpoint: Checkpoint) -> Naming:
    if checkpoint.match == "order":
        return naming_by_order(model, checkpoint)
    naming = naming_of(checkpoint)
    if naming is not None:
        return naming
    try:
        require_naming(checkpoint)
    except WeightsError as error:
        raise WeightsError(str(error.args[0]), _proposal(model, checkpoint)) from error
    raise AssertionError


def _proposal(model: keras.Model, checkpoint: Checkpoint) -> str:
    """What order and shape would do with names that say nothing, or both lists of names."""
    try:
        naming = naming_by_order(model, checkpoint)
    except WeightsError as error:
        scheme = schemes.by_order(checkpoint.arrays)
        wanted = shapes_in(layers_of_model(model, scheme), scheme.separator)
        found = shapes_in(layers_of_file(checkpoint), scheme.separator)
        table = side_by_side(wanted, found, ("the model", "the file"))
        return f"{table}\n{error.args[0]}"
    ours = [(name, array.shape) for name, array in naming.arrays.items()]
    theirs = [(name, checkpoint.arrays[name].shape) for name in naming.original.values()]
    table = side_by_side(ours, theirs, ("the model", "the file"))
    also = ""
    if any(isinstance(layer, PadChannels) for layer in flatten(model)):
        also = (
            ", with shortcut= or --shortcut= to say which of 'A', 'A-centered' and 'A-pooled' the "
            "network has"
        )
    return (
        f"{table}\nBy order and shape, all {len(ours)} arrays have one place each, as above: "
        f"match='order' or --match=order loads them so{also}."
    )


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
    naming: Naming,
    label: str,
) -> None:
    absent = [slot for slot in wanted if slot.name not in arrays]
    known = {slot.name for slot in wanted}
    surplus = {naming.original[name]: a for name, a in arrays.items() if name not in known}
    missing = [slot.name or slot.ours for slot in absent]
    misshapen = [
        f"{naming.original[slot.name]} is {arrays[slot.name].shape}, should be {slot.shape}"
        for slot in wanted
        if slot.name is not None and slot.name in arrays and arrays[slot.name].shape != slot.shape
    ]
    if not (missing or surplus or misshapen):
        return
    lists = ((missing, "missing"), (list(surplus), "unexpected"), (misshapen, "of another shape"))
    message = "; ".join(_listing(names, kind) for names, kind in lists if names)
    details = ""
    if missing and surplus:
        rows = [(slot.name or slot.ours, slot.shape) for slot in absent]
        details = side_by_side(rows, shapes_of(surplus), ("missing", "unexpected"))
    hint = _stem_hint(wanted, arrays) or _shortcut_hint(absent, surplus, naming)
    if not (hint or missing or misshapen):
        hint = _outside_hint(list(surplus), naming)
    raise WeightsError(
        f"The weights in {checkpoint.origin} (names of {naming.scheme.title}) are not those of "
        f"{label}: {message}.{hint} The model is unchanged.",
        details,
    )


def _stem_hint(wanted: list[Slot], arrays: dict[str, np.ndarray]) -> str:
    """What to try where a network for small images meets one for large ones."""
    for slot in wanted:
        kernel = arrays.get(str(slot.name))
        if slot.takes_images and kernel is not None and kernel.ndim == len(slot.shape):
            there, here = (
                shape[2 if slot.from_torch else 0] for shape in (kernel.shape, slot.shape)
            )
            if (there, here) == (3, 7):
                return (
                    " The first kernel is 3×3, as in networks for small images: stem='cifar' or "
                    "--stem=cifar makes it so."
                )
    return ""


def _outside_hint(surplus: list[str], naming: Naming) -> str:
    """How to leave out what lies beside a network that is whole, such as the weights of a loss."""
    if not naming.prefix or any(name.startswith(naming.prefix) for name in surplus):
        return ""
    pattern = "^(" + "|".join(sorted({re.escape(re.split(r"[./]", n)[0]) for n in surplus})) + ").*"
    return (
        f" The network is under {naming.prefix} and has all of its parameters; names="
        f"{{{pattern!r}: ''}} or --rename='{pattern}=' leaves the rest out."
    )


def _shortcut_hint(absent: list[Slot], surplus: dict[str, np.ndarray], naming: Naming) -> str:
    """What to try where model and file agree but for some layers of shortcuts."""
    spelled = [name for name, original in naming.original.items() if original in surplus]
    if not all(re.search(naming.scheme.shortcut, name) for name in spelled):
        return ""
    if spelled and not absent:
        return (
            " The file has projections where the model has none: projection='first' or "
            "--projection=first makes them in the first block of each stage."
        )
    if absent and not spelled and all("_shortcut_norm/" in slot.ours for slot in absent):
        return (
            " The file has no normalizations after its projections: shortcut_norm=False or "
            "--shortcut_norm=false leaves them out."
        )
    return ""


def _listing(names: list[str], kind: str) -> str:
    more = ", ..." if len(names) > LISTED else ""
    return f"{len(names)} {kind}: {', '.join(names[:LISTED])}{more}"


def _take_over_metadata(model: keras.Model, checkpoint: Checkpoint, with_classes: bool) -> None:
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
        if checkpoint.match == "names":
            scheme = require_naming(checkpoint).scheme
            if scheme is schemes.KERAS_APPLICATIONS:
                return _keras_applications_preprocessing(checkpoint)
        return None
    larger = checkpoint.test_preprocessing
    if larger is not None and larger.image_size == image_size:
        return larger
    return checkpoint.preprocessing


def fixed_image_size(model: keras.Model) -> int | None:
    """Pixels along each side of the square image that a model takes; None if it takes any."""
    convolution = next(layer for layer in flatten(model) if layer.name.startswith("stem_conv"))
    shape = model.input_shape
    space = shape[1:-1] if convolution.data_format == "channels_last" else shape[2:]
    return space[0] if len(set(space)) == 1 else None


def _keras_applications_preprocessing(checkpoint: Checkpoint) -> Preprocessing:
    preactivation = any(name.startswith("post_bn/") for name in checkpoint.arrays)
    return get_architecture("ResNet50V2" if preactivation else "ResNet50V1").preprocessing
