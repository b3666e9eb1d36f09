"""Names found by order and shape, for files whose own follow no scheme known here."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

import keras

from keras_resnet.weights import schemes
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError
from keras_resnet.weights.mismatch import shape_text
from keras_resnet.weights.naming import Naming
from keras_resnet.weights.schemes import NameScheme
from keras_resnet.weights.wiring import Wiring
from keras_resnet.weights.written_layers import (
    KINDS,
    Layers,
    Shape,
    classes_by_shape,
    classifier_by_shape,
    kind_of,
    layers_of_file,
    layers_of_model,
    orders,
    written_layers,
)

# Words by which files tell the shortcut's layers from others of the same shape.
_SHORTCUT_WORDS = re.compile(r"short|skip|down|proj|identity|residual", re.IGNORECASE)

Signature = tuple[str, frozenset[tuple[str, Shape]]]


def naming_by_order(model: keras.Model, checkpoint: Checkpoint) -> Naming:
    """Gives every layer of a file the place in a model that order and shapes leave it.

    The order is that in which the network was written down: that of a PyTorch file, and of the
    numbers in Keras' own names (`conv2d`, `conv2d_1`, ..., `conv2d_10`), which count each kind of
    layer for itself; there a convolution and its normalization are taken to come together. The
    shortcut's layers are at one place in all blocks, before, between or after those of the branch;
    the shapes tell which.

    If no place fits, layers of the same shapes go to theirs one after the other. Where a shortcut's
    is among those of its own block, a word such as "shortcut" or "downsample" in the names has to
    tell it.

    The classifier may be for another number of classes, or there may be none.

    Where a Keras file has the configuration of its model, connections and strides have to agree.

    Args:
        model: made by `create_model`.
        checkpoint: arrays in PyTorch's layout, in that order, or in Keras'.

    Raises:
        WeightsError: if there is no such mapping or more than one.
    """
    if not checkpoint.ordered:
        raise WeightsError(
            f"{checkpoint.origin} holds its arrays in the order of their names, not of the "
            "network: order cannot match them."
        )
    scheme = schemes.by_order(checkpoint.arrays)
    theirs = layers_of_file(checkpoint)
    ours, written = layers_of_model(model, scheme), written_layers(model, scheme)
    head = scheme.classifier.removesuffix(scheme.separator)
    if head in ours:
        classes = classes_by_shape(checkpoint)
        ours, written = (_of_classes(one, head, classes, scheme) for one in (ours, written))
    else:
        heads = classifier_by_shape(checkpoint)
        theirs = {
            layer: variables
            for layer, variables in theirs.items()
            if not heads & {f"{layer}{scheme.separator}{variable}" for variable in variables}
        }
    search = _Search(written, theirs, scheme, checkpoint.origin)
    search.check_counts()
    places = search.places(Wiring(model, checkpoint, theirs))
    original = {
        f"{layer}{scheme.separator}{variable}": f"{places[layer]}{scheme.separator}{variable}"
        for layer, variables in ours.items()
        for variable in variables
    }
    # Gates are dense layers in many networks: the same numbers as those of 1×1 convolutions.
    shapes = {
        f"{layer}{scheme.separator}{variable}": shape
        for layer, variables in ours.items()
        for variable, shape in variables.items()
    }
    arrays = {new: checkpoint.arrays[name].reshape(shapes[new]) for new, name in original.items()}
    return Naming(scheme, arrays, original, "")


def _of_classes(layers: Layers, head: str, classes: int | None, scheme: NameScheme) -> Layers:
    """The layers of a model with a classifier of so many classes; without one for None."""
    if classes is None:
        return {layer: variables for layer, variables in layers.items() if layer != head}
    variables = {
        name: (classes, *shape[1:]) if scheme.torch_layout else (*shape[:-1], classes)
        for name, shape in layers[head].items()
    }
    return {**layers, head: variables}


class _Search:
    """The places in a model for the layers of a file."""

    def __init__(self, ours: Layers, theirs: Layers, scheme: NameScheme, origin: str):
        self._ours, self._theirs, self._origin = ours, theirs, origin
        self._torch = scheme.torch_layout
        # With more dense layers than a classifier, gates are made of them.
        gates = sum(kind_of(variables) == "dense" for variables in theirs.values()) > 1
        self._signatures = {
            layer: self._signature(variables, dense=gates and "_se_" in layer)
            for layer, variables in ours.items()
        }
        self._found = {layer: self._signature(variables) for layer, variables in theirs.items()}

    def _signature(self, variables: Mapping[str, Shape], dense: bool = False) -> Signature:
        def squeezed(shape: Shape) -> Shape:
            space = shape[2:] if self._torch else shape[:-2]
            if len(shape) < 3 or set(space) != {1}:
                return shape
            return shape[:2] if self._torch else shape[-2:]

        shapes = frozenset((name, squeezed(shape)) for name, shape in variables.items())
        return "dense" if dense else kind_of(variables), shapes

    def check_counts(self) -> None:
        """Raises WeightsError if the file has other layers than the model."""
        wanted, there = Counter(self._signatures.values()), Counter(self._found.values())
        if wanted == there:
            return
        missing, unexpected = wanted - there, there - wanted
        parts = [
            f"only {what} has {self._describe(signature, count)}"
            for what, counts in (("the model", missing), ("the file", unexpected))
            for signature, count in list(counts.items())[:3]
        ]
        raise WeightsError(
            f"{self._origin} does not fit by order and shape: {'; '.join(parts)}."
            + _bias_hint(missing, unexpected)
            + self._shortcut_hint(missing, unexpected)
        )

    def _shortcut_hint(self, missing: Counter, unexpected: Counter) -> str:
        """What to try where the file alone has 1×1 convolutions, and the model no projections."""
        kernels = {len(shape) for (_, shapes) in unexpected for name, shape in shapes}
        if missing or any("_shortcut_" in layer for layer in self._ours) or kernels != {1, 2}:
            return ""
        return " Those may be projections: shortcut='B' or --shortcut=B makes them."

    def _describe(self, signature: Signature, count: int = 0) -> str:
        known = [(self._signatures, self._ours), (self._found, self._theirs)]
        variables = next(
            layers[layer]
            for signatures, layers in known
            for layer, other in signatures.items()
            if other == signature
        )
        shapes = ", ".join(f"{name} {shape_text(variables[name])}" for name in sorted(variables))
        return (f"{count} layers of " if count > 1 else "a layer of " if count else "") + shapes

    def places(self, wiring: Wiring) -> dict[str, str]:
        """For each of our layers the one in the file.

        Raises:
            WeightsError: if there is no such mapping or more than one.
        """
        ways = [self._one_by_one(order) for order in orders(self._ours)]
        unique = list({tuple(way.items()): way for way in ways if way}.values())
        unique = unique or [self._group_by_group()]
        differences = [wiring.difference(way) for way in unique]
        fitting = [way for way, other in zip(unique, differences, strict=True) if other is None]
        if not fitting:
            raise WeightsError(
                f"{self._origin} fits by order and shape, but its network is another one: "
                f"{differences[0]}."
            )
        if len(fitting) > 1:
            one, other = fitting[:2]
            layer = next(layer for layer in one if one[layer] != other[layer])
            raise WeightsError(
                f"The order in {self._origin} leaves a choice: {layer!r} may be {one[layer]!r} or "
                f"{other[layer]!r}, which both have {self._describe(self._signatures[layer])}. "
                "Rename the file's arrays instead."
            )
        return fitting[0]

    def _one_by_one(self, order: list[str]) -> dict[str, str] | None:
        """If the model's layers in an order have the shapes of the file's."""
        places: dict[str, str] = {}
        for kind in [KINDS] if self._torch else [(kind,) for kind in KINDS]:
            layers = [layer for layer in order if self._signatures[layer][0] in kind]
            found = [layer for layer, signature in self._found.items() if signature[0] in kind]
            if kind == ("dense",):  # `Dense(w)(Dense(w // 4)(x))` makes the outer one first
                layers.sort(key=lambda layer: sorted(self._signatures[layer][1]))
                found.sort(key=lambda layer: sorted(self._found[layer][1]))
            pairs = list(zip(layers, found, strict=True))
            if any(self._signatures[layer] != self._found[there] for layer, there in pairs):
                return None
            places.update(pairs)
        return {layer: places[layer] for layer in self._ours}

    def _group_by_group(self) -> dict[str, str]:
        """Layers of the same shapes, one after the other."""
        groups: dict[Signature, list[str]] = defaultdict(list)
        candidates: dict[Signature, list[str]] = defaultdict(list)
        for known, by_signature in ((self._signatures, groups), (self._found, candidates)):
            for layer, signature in known.items():
                by_signature[signature].append(layer)
        places: dict[str, str] = {}
        for signature, layers in groups.items():
            found = candidates[signature]
            if not _ambiguous(layers):
                places.update(zip(layers, found, strict=True))
                continue
            shortcuts = [layer for layer in layers if "_shortcut_" in layer]
            theirs = [layer for layer in found if _SHORTCUT_WORDS.search(layer)]
            if len(shortcuts) != len(theirs):
                raise WeightsError(
                    f"The order in {self._origin} leaves a choice: {shortcuts[0]!r} and another "
                    f"layer of its block both have {self._describe(signature)}. Rename the file's "
                    "arrays instead."
                )
            branch = [layer for layer in layers if layer not in shortcuts]
            rest = [layer for layer in found if layer not in theirs]
            places.update(zip(shortcuts, theirs, strict=True))
            places.update(zip(branch, rest, strict=True))
        return places


def _bias_hint(missing: Counter, unexpected: Counter) -> str:
    """What to try where the layers agree but for biases of convolutions."""

    def biases(signatures: Counter) -> set[bool]:
        convolutions = [shapes for kind, shapes in signatures if kind == "convolution"]
        return {any(name == "bias" for name, _ in shapes) for shapes in convolutions}

    here, there = biases(missing), biases(unexpected)
    if (here, there) == ({False}, {True}):
        return " The file's convolutions have biases: use_bias=True or --use_bias=true."
    if (here, there) == ({True}, {False}):
        return " The file's convolutions have no biases: use_bias=False or --use_bias=false."
    return ""


def _ambiguous(layers: list[str]) -> bool:
    """Whether a shortcut's layer is among those of its own block's branch."""
    blocks = {layer.partition("_shortcut_")[0] for layer in layers if "_shortcut_" in layer}
    return any(
        layer.startswith(f"{block}_") and "_shortcut_" not in layer
        for block in blocks
        for layer in layers
    )
