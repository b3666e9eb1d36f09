"""SavedModels whose weights are written straight into the file.

TensorFlow copies a graph, and with it its constants, over and over while it is traced, put together
and saved: 4 GB for the 0.1 GB of a ResNet-50 (TensorFlow 2.21, measured). So the graph that is
saved has zeros for weights, each of which a single number stands for, and the file gets the weights
afterwards. Field numbers are those of tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
tensorflow/core/framework/{graph,function,node_def,attr_value,tensor}.proto.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.export import wire
from keras_resnet.export.signatures import Network

_NAME = "keras_resnet_weight_"
# meta_graphs, graph_def, library, function, node_def
_NODES = (2, 2, 2, 1, 3)
# attr, value of its map, tensor
_TENSOR = (5, 2, 8)
_TENSOR_CONTENT = 4

# What stands in the new file: bytes as they were, or the values of a variable.
Piece = Any


def without_weights(network: Network) -> tuple[Callable, dict[str, keras.Variable]]:
    """A network with constants for variables, which are zero until `fill` comes.

    Returns:
        Pixels -> (features, logits), and the variable of each constant by name.
    """
    variables = {f"{_NAME}{i}": variable for i, variable in enumerate(network.model.variables)}

    def call(pixels):
        constants = [
            (variable, tf.constant(0, variable.dtype, variable.shape, name=name))
            for name, variable in variables.items()
        ]
        with keras.StatelessScope(state_mapping=constants):
            return network(pixels)

    spec = tf.TensorSpec([None, *network.image_shape], tf.float32, name="pixels")
    return tf.function(call, autograph=False).get_concrete_function(spec), variables


def fill(saved_model: Path, variables: Mapping[str, keras.Variable]) -> None:
    """Writes the values of variables into the constants that stand for them.

    Args:
        saved_model: the file; it is written anew, in place.
        variables: of `without_weights`, whose function is a part of the graph.
    """
    left = dict(variables)
    pieces = _filled(saved_model.read_bytes(), _NODES, left)
    if left or pieces is None:
        raise RuntimeError(f"{saved_model}: the graph has no constants {', '.join(left)}")
    with saved_model.open("wb") as file:
        for piece in pieces:
            file.write(_bytes_of(piece) if isinstance(piece, keras.Variable) else piece)


def _filled(
    message: wire.Message, path: tuple[int, ...], left: dict[str, keras.Variable]
) -> list[Piece] | None:
    """The pieces of a message whose messages at `path` are nodes; None where nothing changes.

    Takes each variable that it finds a constant for out of `left`.
    """
    pieces: list[Piece] = []
    has_changed = False
    for number, value, whole in wire.whole_fields(message):
        inner = None
        if number == path[0]:
            part = wire.as_bytes(value)
            inner = _filled(part, path[1:], left) if path[1:] else _filled_node(part, left)
        pieces += [whole] if inner is None else _field(number, inner)
        has_changed |= inner is not None
    return pieces if has_changed else None


def _filled_node(node: memoryview, left: dict[str, keras.Variable]) -> list[Piece] | None:
    name = next((wire.as_text(value) for number, value in wire.fields(node) if number == 1), "")
    variable = left.pop(name, None)
    return None if variable is None else list(_with_values(node, _TENSOR, variable))


def _with_values(
    message: memoryview, path: tuple[int, ...], variable: keras.Variable
) -> Iterator[Piece]:
    for number, value, whole in wire.whole_fields(message):
        if not path and number not in (1, 2):  # of a tensor type and shape stay
            continue
        if path and number == path[0]:
            inner = list(_with_values(wire.as_bytes(value), path[1:], variable))
            yield from _field(number, inner)
        else:
            yield whole
    if not path:
        yield from _field(_TENSOR_CONTENT, [variable])


def _field(number: int, inner: list[Piece]) -> list[Piece]:
    size = sum(_size(piece) for piece in inner)
    return [wire.head(number, size), *inner]


def _size(piece: Piece) -> int:
    if isinstance(piece, keras.Variable):
        return int(np.prod(piece.shape)) * tf.as_dtype(piece.dtype).size
    return len(piece)


def _bytes_of(variable: keras.Variable) -> bytes:
    return np.ascontiguousarray(variable.value.numpy()).tobytes()
