"""Run a functional model block by block, recomputing each block in the backward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016), section 3: of a block only
its input is kept. The graph stays flat: layers, names and weights are those of the same model
without it.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_resnet.fused import operations_of, run_nodes

BLOCK = re.compile(r"(stage\d+_block\d+)_")


@dataclasses.dataclass
class Segment:
    """Nodes of the graph that run together; `inputs` and `outputs` are ids of Keras tensors."""

    is_block: bool
    nodes: list
    inputs: list[int] = dataclasses.field(default_factory=list)
    outputs: list[int] = dataclasses.field(default_factory=list)


def plan_segments(nodes: Iterable[Any], outputs: Sequence[Any]) -> list[Segment]:
    """Nodes in an order they can run in, those of a residual block together.

    Args:
        nodes: of a functional model, in running order, some of them perhaps fused.
        outputs: of the model.
    """
    blocks: dict[str | None, Segment] = {}
    segments: list[Segment] = []
    for node in nodes:
        match = BLOCK.match(operations_of(node)[-1].name)
        key = match.group(1) if match else None
        if key is None or key not in blocks:
            segments.append(Segment(key is not None, []))
            blocks[key] = segments[-1]
        segment = segments[-1] if key is None else blocks[key]
        segment.nodes.append(node)
    read_outside = {id(t) for t in outputs}
    for segment in segments:
        made = {id(t) for node in segment.nodes for t in node.outputs}
        read = {id(t) for node in segment.nodes for t in node.input_tensors}
        segment.inputs = sorted(read - made)
        read_outside.update(segment.inputs)
    for segment in segments:
        made = {id(t) for node in segment.nodes for t in node.outputs}
        segment.outputs = sorted(made & read_outside)
    return segments


def run_segments(segments: list[Segment], values: dict[int, object], training: bool) -> None:
    """Fill `values`, a dict from the ids of Keras tensors to tensors, segment by segment."""
    for segment in segments:
        if segment.is_block:
            _run_and_forget(segment, values, training)
        else:
            run_nodes(segment.nodes, values, training)


def _run_and_forget(segment: Segment, values, training) -> None:
    """Run a block as a pure function of its input and variables, under `keras.remat`.

    Moving statistics and the seeds of random layers come out of it as results, so that the
    second run in the backward pass draws the same numbers and updates nothing.
    """
    layers = {id(layer): layer for node in segment.nodes for layer in operations_of(node)}.values()
    variables = [v for layer in layers for v in getattr(layer, "variables", [])]
    learned = [v for v in variables if v.trainable]
    state = [v for v in variables if not v.trainable]
    # Copied: on TensorFlow a variable's value is the variable itself, read wherever it is used.
    state_values = [keras.ops.copy(v) for v in state]
    learned_values = [keras.ops.copy(v) for v in learned]

    def block(inputs, learned_values):
        mapping = [
            *zip(learned, learned_values, strict=True),
            *zip(state, state_values, strict=True),
        ]
        local = dict(zip(segment.inputs, inputs, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            run_nodes(segment.nodes, local, training)
        updates = [keras.ops.stop_gradient(scope.get_current_value(v)) for v in state]
        return [local[key] for key in segment.outputs], updates

    inputs = [values[key] for key in segment.inputs]
    outputs, updates = _rematerialized(block)(inputs, learned_values)
    values.update(zip(segment.outputs, outputs, strict=True))
    for variable, update in zip(state, updates, strict=True):
        variable.assign(update)


def _rematerialized(block):
    """`keras.remat`, or our own form of it on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        return keras.remat(block)
    from keras_resnet.layers import tensorflow_remat

    return tensorflow_remat.recomputed(block)
