"""ONNX graphs without a copy of the weights for each step that makes them.

tf2onnx turns constants over and over: it needs 8 GB for the 0.1 GB of a ResNet-50 (tf2onnx 1.17,
measured). So it gets a graph whose weights are inputs, which is small, and the weights take the
places of those inputs in what comes out.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Smaller ones are constants for tf2onnx, which makes one operation of a convolution and its bias.
LARGE = 4096  # numbers
_INPUT = "weight_"


def convert(
    function: Callable[[tf.Tensor], Any],
    images: tf.TensorSpec,
    variables: Sequence[keras.Variable],
    opset: int,
) -> Any:
    """The ModelProto of a function, with a few copies of its weights in memory at most.

    Args:
        function: of images, reads `variables`.
        images: what it takes.
        variables: Keras variables.
        opset: of ONNX.
    """
    tf2onnx = importlib.import_module("tf2onnx.convert")
    large = [variable for variable in variables if np.prod(variable.shape) >= LARGE]
    specs = [
        tf.TensorSpec(variable.shape, variable.dtype, name=f"{_INPUT}{index}")
        for index, variable in enumerate(large)
    ]

    def without_weights(images, *weights):
        with keras.StatelessScope(state_mapping=list(zip(large, weights, strict=True))):
            return function(images)

    signature = [images, *specs]
    traced = tf.function(without_weights, input_signature=signature, autograph=False)
    model, _ = tf2onnx.from_function(traced, input_signature=signature, opset=opset)
    fill(model, {spec.name: variable for spec, variable in zip(specs, large, strict=True)})
    return model


def fill(model: Any, variables: dict[str, keras.Variable]) -> None:
    """Puts the values of variables where a graph has inputs of their names.

    What follows from weights alone, such as a kernel in ONNX' order of axes, is computed here, so
    that no runtime has to. Only what is then left is a part of the file.
    """
    onnx = importlib.import_module("onnx")
    reference = importlib.import_module("onnx.reference")
    graph = model.graph
    left = [entry for entry in graph.input if entry.name not in variables]
    del graph.input[:]
    graph.input.extend(left)
    small = {entry.name: entry for entry in graph.initializer}
    readers = _readers(graph)
    known: dict[str, np.ndarray] = {}

    def value(name: str) -> np.ndarray:
        if name in variables:
            return keras.ops.convert_to_numpy(variables[name].value)
        return known[name] if name in known else onnx.numpy_helper.to_array(small[name])

    nodes = []
    for node in graph.node:
        names = [name for name in node.input if name]
        from_weights = any(name in variables or name in known for name in names)
        constant = all(name in variables or name in known or name in small for name in names)
        if not (from_weights and constant):
            nodes.append(node)
            continue
        run = reference.ReferenceEvaluator(node, opsets={"": model.opset_import[0].version})
        outputs = run.run(None, {name: value(name) for name in names})
        for name in names:  # of which nothing else is computed
            readers[name] -= 1
            if not readers[name]:
                known.pop(name, None)
        known.update(zip(node.output, outputs, strict=True))
    del graph.node[:]
    graph.node.extend(nodes)
    _keep_used(onnx, graph, small, known, dict.fromkeys(variables, value))


def _readers(graph: Any) -> dict[str, int]:
    """How often each tensor is read."""
    readers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for output in graph.output:
        readers[output.name] = readers.get(output.name, 0) + 1
    return readers


def _keep_used(
    onnx: Any,
    graph: Any,
    small: dict[str, Any],
    known: dict[str, np.ndarray],
    variables: dict[str, Callable[[str], np.ndarray]],
) -> None:
    """The initializers that the nodes read, and no others."""
    used = _readers(graph)
    left = [entry for name, entry in small.items() if name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)
    for name in [name for name in known if name in used]:
        graph.initializer.append(onnx.numpy_helper.from_array(known.pop(name), name))
    for name in [name for name in variables if name in used]:
        graph.initializer.append(onnx.numpy_helper.from_array(variables[name](name), name))
