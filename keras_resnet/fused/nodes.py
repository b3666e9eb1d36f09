"""Running a functional model node by node, some of its nodes replaced by one."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import keras

# Forms by the id of their model, of this thread only: those of replicas under tf.distribute trace
# by turns, and would otherwise put back what another one had set.
_FORMS: ContextVar[tuple[tuple[int, Any], ...]] = ContextVar("_FORMS", default=())


@dataclasses.dataclass(frozen=True)
class FusedNode:
    """Several nodes of a graph that run as one operation, in training.

    Attributes:
        operations: the layers it stands for, in running order.
        input_tensors: the Keras tensors it reads.
        outputs: those it gives; what lies between is not there.
        run: from the values of `input_tensors` to that of the only output.
        name: of the layer that most of the work is, for profiles.
    """

    operations: tuple[keras.layers.Layer, ...]
    input_tensors: tuple[Any, ...]
    outputs: tuple[Any, ...]
    run: Callable[[Sequence[Any]], Any]
    name: str


def operations_of(node: Any) -> tuple[keras.layers.Layer, ...]:
    """The layers that a node, fused or not, stands for."""
    return node.operations if isinstance(node, FusedNode) else (node.operation,)


def run_nodes(nodes: Iterable[Any], values: dict[int, Any], training: bool) -> None:
    """Runs nodes in their order.

    Args:
        nodes: of Keras, and `FusedNode`s, which run in training only.
        values: ids of Keras tensors to tensors; what the nodes give is added.
        training: passed to layers that take it.
    """
    for node in nodes:
        if isinstance(node, FusedNode):
            with keras.name_scope(node.name):
                results = [node.run([values[id(tensor)] for tensor in node.input_tensors])]
        else:
            args, kwargs = node.arguments.fill_in(values)
            if _takes_training(type(node.operation).call):
                kwargs["training"] = training
            results = keras.tree.flatten(node.operation(*args, **kwargs))
        values.update(zip(map(id, node.outputs), results, strict=True))


@contextlib.contextmanager
def training_as(model: Any, form: Any) -> Iterator[None]:
    """What is traced inside trains in a form; outside the model is called as it is written down."""
    token = _FORMS.set((*_FORMS.get(), (id(model), form)))
    try:
        yield
    finally:
        _FORMS.reset(token)


def form_now(model: Any, otherwise: Any) -> Any:
    """The form that `training_as` gives a model here and now, or `otherwise`."""
    return dict(_FORMS.get()).get(id(model), otherwise)


@functools.cache
def _takes_training(call: Callable[..., Any]) -> bool:
    return "training" in inspect.signature(call).parameters
