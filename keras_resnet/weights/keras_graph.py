"""How the layers of a Keras model are connected, out of its configuration alone."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

# Of all layers together; those of a network with 1,202 layers have a quarter of a million.
_MOST_SOURCES = 10**6


@dataclasses.dataclass(frozen=True)
class KerasLayer:
    """A layer as Keras stores it.

    Attributes:
        kind: name of its class.
        settings: its configuration.
        inputs: names of the layers whose outputs it takes.
    """

    kind: str
    settings: Mapping[str, Any]
    inputs: tuple[str, ...]

    @property
    def strides(self) -> tuple[int, ...]:
        """Its strides, without ones: () where there are none."""
        strides = self.settings.get("strides")
        strides = strides if isinstance(strides, (list, tuple)) else [strides]
        numbers = tuple(stride for stride in strides if isinstance(stride, int))
        return numbers if max(numbers, default=1) > 1 else ()


def graph_of(config: Any) -> dict[str, KerasLayer]:
    """The layers of a functional or sequential model by name, in the order of its configuration.

    Args:
        config: of a model, as Keras 2 or 3 stores it; anything else has no layers.

    Returns:
        Nothing for a model that holds another one, whose layers have no place in a flat graph.
    """
    layers = config.get("layers") if isinstance(config, Mapping) else None
    graph: dict[str, KerasLayer] = {}
    before: tuple[str, ...] = ()
    for layer in layers if isinstance(layers, list) else []:
        settings = layer.get("config") if isinstance(layer, Mapping) else None
        if not isinstance(settings, Mapping) or "layers" in settings:
            return {}
        name = str(layer.get("name", settings.get("name")))
        chained = "inbound_nodes" not in layer  # a sequential model
        inputs = before if chained else tuple(dict.fromkeys(_inputs(layer["inbound_nodes"])))
        graph[name] = KerasLayer(str(layer.get("class_name")), settings, inputs)
        before = (name,)
    return graph


def _inputs(nodes: Any) -> Iterator[str]:
    """Names in the histories of tensors: [name, node, tensor], with arguments behind in Keras 2."""
    if isinstance(nodes, Mapping):
        history = nodes.get("keras_history")
        yield from _inputs(list(nodes.values()) if history is None else [history])
    elif isinstance(nodes, (list, tuple)):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            yield nodes[0]
        else:
            for node in nodes:
                yield from _inputs(node)


def sources(graph: Mapping[str, KerasLayer], layers: Collection[str]) -> dict[str, frozenset[str]]:
    """For each of some layers those of them whose outputs reach it through none of the others.

    Args:
        graph: as `graph_of` gives it.
        layers: some of its names, such as those of all layers with weights.

    Returns:
        Nothing if a layer of `layers` is not in the graph, or the graph is in no order.
    """
    passed: dict[str, frozenset[str]] = {}
    found: dict[str, frozenset[str]] = {}
    count = 0
    for name, layer in graph.items():
        if not all(source in passed for source in layer.inputs):
            return {}
        taken = frozenset().union(*(passed[source] for source in layer.inputs))
        count += len(taken)
        if count > _MOST_SOURCES:
            return {}
        if name in layers:
            found[name] = taken
        passed[name] = frozenset([name]) if name in layers else taken
    return found if len(found) == len(layers) else {}
