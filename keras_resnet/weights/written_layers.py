"""The layers of a file and of a model, in the order in which their network was written down."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

import keras

from keras_resnet.weights import schemes
from keras_resnet.weights.checkpoint import Checkpoint
from keras_resnet.weights.schemes import NameScheme
from keras_resnet.weights.slots import slots

_BLOCK = re.compile(r"(stage\d+_block\d+)_")
_NUMBERED = re.compile(r"(.+?)(?:_(\d{1,9}))?")
KINDS = ("convolution", "normalization", "dense")

Shape = tuple[int, ...]
Layers = dict[str, dict[str, Shape]]  # shapes by variable by layer, in an order that matters


def layers_of_file(checkpoint: Checkpoint) -> Layers:
    """The layers in a file, in the order in which the network was written down.

    Those of Keras are sorted by kind, as they are counted.
    """
    scheme = schemes.by_order(checkpoint.arrays)
    layers: Layers = {}
    for name, array in checkpoint.arrays.items():
        if not scheme.ignores(name):
            layer, _, variable = name.rpartition(scheme.separator)
            layers.setdefault(layer, {})[variable] = array.shape
    if scheme.torch_layout:
        return layers
    # Layers of one name and different numbers change their places with each other only.
    numbers: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for layer in layers:
        match = _NUMBERED.fullmatch(layer)
        numbers[match[1] if match else layer].append((int(match[2] or 0) if match else 0, layer))
    queues = {stem: iter(sorted(named)) for stem, named in numbers.items()}
    stems = {layer: stem for stem, named in numbers.items() for _, layer in named}
    ordered = [next(queues[stems[layer]])[1] for layer in layers]
    return _bykind_of({layer: layers[layer] for layer in ordered})


def layers_of_model(model: keras.Model, scheme: NameScheme) -> Layers:
    """The layers of a model as `layers_of_file` has those of a file; shortcuts after the branch."""
    layers = written_layers(model, scheme)
    return layers if scheme.torch_layout else _bykind_of(layers)


def written_layers(model: keras.Model, scheme: NameScheme) -> Layers:
    """The layers of a model, not sorted by kind."""
    layers: Layers = {}
    for slot in slots(model, scheme):
        layer, _, variable = str(slot.name).rpartition(scheme.separator)
        layers.setdefault(layer, {})[variable] = slot.shape
    *_, last = orders(layers)
    return {layer: layers[layer] for layer in last}


def classes_by_shape(checkpoint: Checkpoint) -> int | None:
    """Outputs of the classifier that shapes and order tell; None without one."""
    kernels = [checkpoint.arrays[name].shape for name in classifier_by_shape(checkpoint)]
    kernel = max(kernels, key=len, default=None)
    if kernel is None:
        return None
    return kernel[0] if schemes.by_order(checkpoint.arrays).torch_layout else kernel[-1]


def classifier_by_shape(checkpoint: Checkpoint) -> set[str]:
    """Names of the arrays of the last dense layer; gates have two each, and then there is none."""
    layers, scheme = layers_of_file(checkpoint), schemes.by_order(checkpoint.arrays)
    dense = [layer for layer, variables in layers.items() if kind_of(variables) == "dense"]
    if len(dense) % 2 == 0:
        return set()
    return {f"{dense[-1]}{scheme.separator}{variable}" for variable in layers[dense[-1]]}


def _bykind_of(layers: Layers) -> Layers:
    return dict(sorted(layers.items(), key=lambda item: KINDS.index(kind_of(item[1]))))


def kind_of(variables: Mapping[str, Shape]) -> str:
    """One of `KINDS`, by the axes of its variables; those of gates may be either of two."""
    axes = max(map(len, variables.values()))
    return "normalization" if axes < 2 else "dense" if axes == 2 else "convolution"


def orders(layers: Layers) -> Iterator[list[str]]:
    """The orders in which the network may have been written down, by the shortcut's place."""
    matches = {layer: _BLOCK.match(layer) for layer in layers}
    blocks: dict[str, list[str]] = defaultdict(list)
    for layer, match in matches.items():
        if match:
            blocks[match[1]].append(layer)
    rest = [layer for layer, match in matches.items() if not match]
    before = [layer for layer in rest if layer.startswith("stem_")]
    after = [layer for layer in rest if layer not in before]
    in_order = [blocks[name] for name in sorted(blocks, key=_numbers_in)]
    most = max((len([*_branch(block)]) for block in in_order), default=0)
    for position in range(most + 1):
        order = list(before)
        for block in in_order:
            branch, shortcut = [*_branch(block)], [n for n in block if "_shortcut_" in n]
            # A convolution and its normalization stay together.
            pairs = len(shortcut) > 1 and position < len(branch)
            if shortcut and pairs and kind_of(layers[branch[position]]) == "normalization":
                break
            order += [*branch[:position], *shortcut, *branch[position:]]
        else:
            yield [*order, *after]


def _branch(block: list[str]) -> Iterator[str]:
    return (layer for layer in block if "_shortcut_" not in layer)


def _numbers_in(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
