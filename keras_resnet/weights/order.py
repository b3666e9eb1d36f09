"""Names found by order and shape, for files whose own follow no scheme known here."""

import re
from collections import Counter, defaultdict

import keras
import numpy as np

from keras_resnet.weights import schemes
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError
from keras_resnet.weights.naming import Naming
from keras_resnet.weights.slots import slots

# Words by which files tell the shortcut's layers from others of the same shape.
_SHORTCUT_WORDS = re.compile(r"short|skip|down|proj|identity|residual", re.IGNORECASE)

Signature = frozenset[tuple[str, tuple[int, ...]]]


def naming_by_order(model: keras.Model, checkpoint: Checkpoint) -> Naming:
    """Gives every layer of a PyTorch file the place in a model that order and shapes leave it.

    Layers whose arrays have the same shapes go to their places in the order of the file. Inside a
    block the shortcut's may look like one of the branch; only a word such as "shortcut" or
    "downsample" in the names tells them apart then.

    Args:
        model: made by `create_model`.
        checkpoint: arrays in PyTorch's layout, in the order in which the network was written down.

    Raises:
        WeightsError: if there is no such mapping or more than one.
    """
    if not checkpoint.ordered:
        raise WeightsError(
            f"{checkpoint.origin} holds its arrays in the order of their names, not of the "
            "network: order cannot match them."
        )
    scheme = schemes.BY_ORDER
    theirs = _layers({n: a for n, a in checkpoint.arrays.items() if not scheme.ignores(n)})
    ours: dict[str, dict[str, tuple[int, ...]]] = {}
    for slot in slots(model, scheme):
        layer, _, variable = str(slot.name).rpartition(".")
        ours.setdefault(layer, {})[variable] = slot.shape
    _check_counts(ours, theirs, checkpoint.origin)
    places = _places(ours, theirs, checkpoint.origin)
    original = {
        f"{layer}.{variable}": f"{places[layer]}.{variable}"
        for layer, variables in ours.items()
        for variable in variables
    }
    arrays = {new: checkpoint.arrays[name] for new, name in original.items()}
    return Naming(scheme, arrays, original, "")


def _layers(arrays: dict[str, np.ndarray]) -> dict[str, dict[str, tuple[int, ...]]]:
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, array in arrays.items():
        layer, _, variable = name.rpartition(".")
        layers.setdefault(layer, {})[variable] = array.shape
    return layers


def _signature(variables: dict[str, tuple[int, ...]]) -> Signature:
    return frozenset(variables.items())


def _check_counts(ours, theirs, origin: str) -> None:
    wanted = Counter(map(_signature, ours.values()))
    there = Counter(map(_signature, theirs.values()))
    if wanted == there:
        return
    missing, unexpected = wanted - there, there - wanted
    parts = [
        f"{what} {_describe(signature)} {count}×"
        for what, counts in (("the model alone has", missing), ("the file alone has", unexpected))
        for signature, count in list(counts.items())[:3]
    ]
    raise WeightsError(f"{origin} does not fit by order and shape: {'; '.join(parts)}.")


def _describe(signature: Signature) -> str:
    shapes = (f"{name} {'×'.join(map(str, shape))}" for name, shape in sorted(signature))
    return f"a layer with {', '.join(shapes)}"


def _places(ours, theirs, origin: str) -> dict[str, str]:
    """For each of our layers the one in the file."""
    groups: dict[Signature, list[str]] = defaultdict(list)
    for layer, variables in ours.items():
        groups[_signature(variables)].append(layer)
    candidates: dict[Signature, list[str]] = defaultdict(list)
    for layer, variables in theirs.items():
        candidates[_signature(variables)].append(layer)
    places: dict[str, str] = {}
    for signature, layers in groups.items():
        found = candidates[signature]
        if not _ambiguous(layers):
            places.update(zip(layers, found, strict=True))
            continue
        shortcuts = [layer for layer in layers if "_shortcut_" in layer]
        theirs_there = [layer for layer in found if _SHORTCUT_WORDS.search(layer)]
        if len(shortcuts) != len(theirs_there):
            raise WeightsError(
                f"The order in {origin} leaves a choice: {shortcuts[0]!r} and another layer of its "
                f"block both have {_describe(signature)}. Rename the file's arrays instead."
            )
        branch = [layer for layer in layers if layer not in shortcuts]
        rest = [layer for layer in found if layer not in theirs_there]
        places.update(zip(shortcuts, theirs_there, strict=True))
        places.update(zip(branch, rest, strict=True))
    return places


def _ambiguous(layers: list[str]) -> bool:
    """Whether a shortcut's layer is among those of its own block's branch."""
    blocks = {layer.partition("_shortcut_")[0] for layer in layers if "_shortcut_" in layer}
    return any(
        layer.startswith(f"{block}_") and "_shortcut_" not in layer
        for block in blocks
        for layer in layers
    )
