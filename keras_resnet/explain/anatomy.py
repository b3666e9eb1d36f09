"""What a classifier is made of: its layers in running order, its last feature map, its classes.

Models in a model are looked into, so that a network is found wherever it stands. Nothing is added
to the graphs of layers: `number_of_calls` stays what it was.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_resnet.errors import UserError, nearest
from keras_resnet.layers import keras_internals

# By the names of their classes: those of Keras' layers and of its operations in a graph.
_PROBABILITIES = {"Softmax", "Sigmoid", "LogSoftmax"}
_PASSING = {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "Identity"}
_PROBABILITY_ACTIVATIONS = ("softmax", "sigmoid", "linear", "log_softmax")
_POOLS = tuple(
    getattr(keras.layers, f"Global{kind}Pooling{rank}D")
    for kind in ("Average", "Max")
    for rank in (1, 2, 3)
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One call of a layer.

    Attributes:
        layer: what is called.
        inputs: Keras tensors.
        output: the Keras tensor, the first if there are several.
    """

    layer: Any
    inputs: tuple[Any, ...]
    output: Any


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """Where in the running order of a classifier its parts stand.

    Attributes:
        steps: all calls of layers, in running order.
        scores: number of the step that gives the scores of the classes before softmax or sigmoid.
        features: number of the step whose output is the last feature map; None if there is none.
        classifier: the Dense layer that gives the scores; None if another layer does.
        pool: the global pool from which a classifier follows directly; None if more lies between.
        channels_first: whether feature maps have their channels before the spatial axes.
    """

    steps: tuple[Step, ...]
    scores: int
    features: int | None
    classifier: keras.layers.Dense | None
    pool: keras.layers.Layer | None
    channels_first: bool

    def find_layer(self, name: str) -> int:
        """Returns the number of the last step of the layer `name`, whose output is a feature map.

        Raises:
            UserError: there is no such layer, or nothing that a heat map could be drawn on.
        """
        places = [place for place, step in enumerate(self.steps) if step.layer.name == name]
        if not places:
            names = [step.layer.name for step in self.steps]
            raise UserError(f"there is no layer {name!r} in the model{nearest(name, names)}")
        shape = self.steps[places[-1]].output.shape
        if len(shape) < 3:
            raise UserError(
                f"the layer {name!r} gives {tuple(shape)}, without places for a heat map; "
                f"the last feature map is that of {self._last_name()!r}"
            )
        if places[-1] not in _ancestors(self.steps, self.scores):
            raise UserError(f"the classes do not depend on the layer {name!r}")
        return places[-1]

    def last_feature_map(self) -> int:
        """Returns the number of its step.

        Raises:
            UserError: no layer of the model has one.
        """
        if self.features is None:
            raise UserError(
                "no layer of the model gives a feature map from which its classes follow; "
                'method="occlusion" asks for none'
            )
        return self.features

    def _last_name(self) -> str:
        return self.steps[self.last_feature_map()].layer.name


def dissect(model: keras.Model) -> Anatomy:
    """Finds the parts of a classifier.

    Raises:
        UserError: the model is no graph of layers with one input and one row of scores an example.
    """
    _check(model)
    steps: list[Step] = []

    def record(layer, *args, **kwargs):
        inputs = [t for t in keras.tree.flatten((args, kwargs)) if _is_tensor(t)]
        outputs = layer.compute_output_spec(*args, **kwargs)
        steps.append(Step(layer, tuple(inputs), keras.tree.flatten(outputs)[0]))
        return outputs

    # New tensors: those of the model's own graph may be shared with other models.
    tensors = [keras.KerasTensor(t.shape, t.dtype) for t in keras.tree.flatten(model.inputs)]
    outputs = walk(model, tensors, record)
    output = keras.tree.flatten(outputs)[0]
    scores = _before_probabilities(steps, output)
    if scores is None:
        raise UserError(f"{model.name} has no layers, so it has no classes to explain")
    layer = steps[scores].layer
    classifier = layer if isinstance(layer, keras.layers.Dense) else None
    pool = _pool_of(steps, scores) if classifier else None
    features = _producer(steps, steps[pool].inputs[0]) if pool is not None else None
    if features is None:
        features = _last_map(steps, scores, rank=len(tensors[0].shape))
    formats = {getattr(step.layer, "data_format", None) for step in steps}
    return Anatomy(
        steps=tuple(steps),
        scores=scores,
        features=features,
        classifier=classifier,
        pool=None if pool is None else steps[pool].layer,
        channels_first="channels_first" in formats,
    )


def walk(model: keras.Model, inputs: list[Any], call: Callable[..., Any]) -> Any:
    """Runs a model, and the models in it, with `call(layer, *args, **kwargs)` for each layer."""

    def operation(layer):
        if isinstance(layer, keras.Model) and _is_graph(layer):
            return lambda *args, **_: walk(layer, keras.tree.flatten(args[:1]), call)
        return functools.partial(call, layer)

    return keras_internals.run_through_graph(_graph_of(model), inputs, operation)


def call_in_inference(layer: Any, *args: Any, **kwargs: Any) -> Any:
    """What a layer returns outside of training."""
    if (
        isinstance(layer, keras.layers.Layer)
        and "training" not in kwargs
        and _knows_training(layer)
    ):
        kwargs["training"] = False
    return layer(*args, **kwargs)


def _knows_training(layer: keras.layers.Layer) -> bool:
    return "training" in inspect.signature(layer.call).parameters


def _check(model: keras.Model) -> None:
    if not isinstance(model, keras.Model):
        raise UserError(f"a model of Keras can be explained; received {type(model).__name__}")
    if not _is_graph(model):
        raise UserError(
            f"{model.name} is a {type(model).__name__} whose layers cannot be followed; what can "
            "be explained is keras.Model(inputs, outputs) or a keras.Sequential with an Input"
        )
    outputs = keras.tree.flatten(model.outputs)
    if len(keras.tree.flatten(model.inputs)) != 1 or len(outputs) != 1:
        raise UserError(
            f"{model.name} has {len(keras.tree.flatten(model.inputs))} inputs and {len(outputs)} "
            "outputs; a model of one input and one output can be explained"
        )


def _is_graph(model: keras.Model) -> bool:
    if isinstance(model, keras.Sequential):
        return model.built and bool(model.layers)
    return keras_internals.is_functional(model)


def _graph_of(model: keras.Model) -> keras.Model:
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs)
    return model


def _is_tensor(value: Any) -> bool:
    return keras.backend.is_keras_tensor(value)


def _producer(steps: list[Step], tensor: Any) -> int | None:
    for place in range(len(steps) - 1, -1, -1):
        if steps[place].output is tensor:
            return place
    return None


def _before_probabilities(steps: list[Step], output: Any) -> int | None:
    """The step of what softmax or sigmoid, as layers of their own, and dropout are made of."""
    place = _producer(steps, output)
    while place is not None:
        layer = steps[place].layer
        kind = type(layer).__name__
        activation = getattr(layer, "activation", None)
        named = getattr(activation, "__name__", "") in _PROBABILITY_ACTIVATIONS
        if not (kind in _PROBABILITIES | _PASSING or (kind == "Activation" and named)):
            break
        place = _producer(steps, steps[place].inputs[0])
    return place


def _pool_of(steps: list[Step], classifier: int) -> int | None:
    """The step of the global pool whose output the classifier sees; None if more lies between."""
    place = _producer(steps, steps[classifier].inputs[0])
    while place is not None and type(steps[place].layer).__name__ in {*_PASSING, "Flatten"}:
        place = _producer(steps, steps[place].inputs[0])
    return place if place is not None and isinstance(steps[place].layer, _POOLS) else None


def _ancestors(steps: tuple[Step, ...] | list[Step], last: int) -> set[int]:
    """Numbers of the steps that the output of the step `last` depends on, itself included."""
    wanted = {id(steps[last].output)}
    found = set()
    for place in range(last, -1, -1):
        if id(steps[place].output) in wanted:
            found.add(place)
            wanted |= {id(tensor) for tensor in steps[place].inputs}
    return found


def _last_map(steps: list[Step], scores: int, rank: int) -> int | None:
    """The last step on the way to the scores whose output has places, more than one."""
    for place in sorted(_ancestors(steps, scores), reverse=True):
        shape = steps[place].output.shape
        channels = [getattr(steps[place].layer, "data_format", None)]
        space = shape[2:] if channels == ["channels_first"] else shape[1:-1]
        if len(shape) == rank >= 3 and any(size != 1 for size in space):
            return place
    return None
