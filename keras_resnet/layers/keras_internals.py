"""Every private name of Keras that the package uses, reached through this one module.

tests/test_keras_internals.py has a test for each of them.

Keras 3.10 to 3.15 have them all. What is only *called* is a function here. What is *overridden* has
to keep its name, so the names stand in `OVERRIDDEN_BY_MODELS` and `OVERRIDDEN_BY_OPTIMIZERS`: an
override that Keras stops calling would change a training in silence.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras

# `ResNet` marks the tensors of a new graph, from which `clone_model` makes the copy.
OVERRIDDEN_BY_MODELS = ("_run_through_graph",)
# `DecayMixin` of keras_resnet.training.decay: weight decay, clipping, the sum over replicas.
OVERRIDDEN_BY_OPTIMIZERS = ("_apply_weight_decay", "_clip_gradients", "_all_reduce_sum_gradients")


def is_functional(model: keras.Model) -> bool:
    """Whether a model is a graph of layers, as `keras.Model(inputs, outputs)` makes them."""
    return hasattr(model, "_run_through_graph")


def run_through_graph(
    model: keras.Model, inputs: list[Any], operation_fn: Callable[[Any], Callable[..., Any]]
) -> Any:
    """Calls `operation_fn(layer)` in the place of each layer of a functional model.

    Args:
        model: the functional model.
        inputs: flat list of what takes the place of its inputs.
        operation_fn: layer -> function of the layer's arguments.

    Returns:
        What the model would return, made of what the functions returned.
    """
    return model._run_through_graph(inputs, operation_fn=operation_fn)


def standardized_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """What `call` was given as a flat list of tensors, in the order of `model.inputs`."""
    return model._standardize_inputs(inputs)


def nodes_in_running_order(model: keras.Model) -> Iterator[Any]:
    """The calls of layers that a functional model is made of, inputs left out.

    A node has `operation`, `input_tensors`, `outputs` and `arguments.fill_in(values)`, which gives
    the positional and the named arguments for a dict from ids of Keras tensors to tensors.
    """
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if node.operation and not node.is_input:
                yield node


def number_of_calls(layer: keras.layers.Layer) -> int:
    """How many times a layer was called on Keras tensors, in all graphs together."""
    return len(layer._inbound_nodes)


def layers_within(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """All layers inside a model or layer, at any depth: what Keras' own `summary` walks."""
    return list(layer._flatten_layers(include_self=False, recursive=True))


def variable_key(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> Any:
    """What an optimizer knows a variable by."""
    return optimizer._var_key(variable)


def uses_weight_decay(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether `exclude_from_weight_decay` has left a variable in."""
    return optimizer._use_weight_decay(variable)


def adam_slots(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable
) -> tuple[keras.Variable, keras.Variable]:
    """The moving averages of a variable's gradient and of its square in Adam, AdamW and Lamb."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index], optimizer._velocities[index]


def trains_by_adam(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Whether Muon trains a variable by Adam and not by its own step."""
    return optimizer._should_use_adamw(variable)


def share_product_of_nadam(optimizer: keras.optimizers.Optimizer) -> None:
    """Gives Nadam's running product a name, and an update that replicas agree on.

    Keras' own has neither: its name counts up in a process, and `assign` of it fails under
    tf.distribute, where each replica would change it.
    """
    own = optimizer._u_product
    optimizer._untrack_variable(own)
    optimizer._u_product = optimizer.add_variable(
        (), "ones", own.dtype, aggregation="only_first_replica", name="u_product"
    )
