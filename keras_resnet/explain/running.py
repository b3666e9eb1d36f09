"""A dissected classifier at work: feature maps, scores and gradients on any Keras backend."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_resnet.explain.anatomy import Anatomy, call_in_inference, walk
from keras_resnet.layers import keras_internals


class Answer(NamedTuple):
    """What a classifier says of a batch.

    Attributes:
        features: the feature map, [n, *cells, channels] or channels first; None if none was asked
            for.
        scores: [n, classes], before softmax or sigmoid.
        embedding: [n, ...], what the layer of the scores is given.
    """

    features: Any
    scores: Any
    embedding: Any


class Runner:
    """Runs a model in inference and keeps one of its feature maps, compiled where Keras compiles.

    Args:
        model: a classifier.
        anatomy: of it.
        cut: number of the step whose output is the feature map; None keeps none.
    """

    def __init__(self, model: keras.Model, anatomy: Anatomy, cut: int | None):
        self.model, self.anatomy, self.cut = model, anatomy, cut
        self._forward, self._gradient = _BACKENDS[keras.backend.backend()](self)

    def __call__(self, inputs: np.ndarray) -> Answer:
        """Returns numpy arrays in float32."""
        answer = self._forward(keras.ops.convert_to_tensor(inputs))
        return Answer(*(None if value is None else to_numpy(value) for value in answer))

    def gradient(self, inputs: np.ndarray, features: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Returns the gradient of each example's score of one class, by its feature map.

        Args:
            inputs: of the model, [n, ...].
            features: of the inputs; their shape is what counts.
            classes: int[n].
        """
        picks = np.eye(self.anatomy.steps[self.anatomy.scores].output.shape[-1], dtype="float32")
        dtype = self.anatomy.steps[self.cut or 0].output.dtype
        gradient = self._gradient(
            keras.ops.convert_to_tensor(inputs),
            keras.ops.zeros(features.shape, dtype=dtype),
            keras.ops.convert_to_tensor(picks[classes]),
        )
        return to_numpy(gradient)

    def run(self, inputs: Any, shift: Any = None) -> Answer:
        """Runs the model layer by layer; `shift` is added to the feature map."""
        found: dict[str, Any] = {}
        place = -1

        def call(layer, *args, **kwargs):
            nonlocal place
            place += 1
            if place == self.anatomy.scores:
                found["embedding"] = keras.tree.flatten((args, kwargs))[0]
                found["scores"] = self._scores(layer, *args, **kwargs)
            outputs = call_in_inference(layer, *args, **kwargs)
            if place == self.cut:
                found["features"] = outputs
                return outputs if shift is None else outputs + shift
            return outputs

        walk(self.model, keras_internals.standardized_inputs(self._graph, inputs), call)
        return Answer(found.get("features"), found["scores"], found["embedding"])

    @property
    def _graph(self) -> keras.Model:
        # A Sequential hands its inputs to a graph of its own, which takes them as they are.
        if isinstance(self.model, keras.Sequential):
            return keras.Model(self.model.inputs, self.model.outputs)
        return self.model

    def _scores(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(layer, keras.layers.Dense):
            return keras.ops.cast(call_in_inference(layer, *args, **kwargs), "float32")
        inputs = keras.ops.cast(args[0], "float32")
        scores = keras.ops.matmul(inputs, keras.ops.cast(layer.kernel, "float32"))
        return scores if layer.bias is None else scores + keras.ops.cast(layer.bias, "float32")


def to_numpy(tensor: Any) -> np.ndarray:
    """A tensor of any backend and float type as float32."""
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))


# inputs -> Answer, and (inputs, zeros like the feature map, one-hot classes) -> gradient.
_Functions = tuple[Callable[..., Answer], Callable[..., Any]]


def _on_tensorflow(runner: Runner) -> _Functions:
    import tensorflow as tf

    def forward(inputs):
        return runner.run(inputs)

    def gradient(inputs, shift, picks):
        with tf.GradientTape() as tape:
            tape.watch(shift)
            score = tf.reduce_sum(runner.run(inputs, shift).scores * picks)
        return tape.gradient(score, shift)

    compiled = tf.function(reduce_retracing=True, autograph=False)
    return compiled(forward), compiled(gradient)


def _on_jax(runner: Runner) -> _Functions:
    import jax

    variables = runner.model.variables

    def run(values, inputs, shift=None):
        # As arguments: what a compiled function closes over becomes a part of its program.
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return runner.run(inputs, shift)

    def score(shift, values, inputs, picks):
        return (run(values, inputs, shift).scores * picks).sum()

    forward, gradient = jax.jit(run), jax.jit(jax.grad(score))

    def values():
        return [variable.value for variable in variables]

    return (
        lambda inputs: forward(values(), inputs),
        lambda inputs, shift, picks: gradient(shift, values(), inputs, picks),
    )


def _on_torch(runner: Runner) -> _Functions:
    import torch

    def forward(inputs):
        with torch.no_grad():
            return runner.run(inputs)

    def gradient(inputs, shift, picks):
        shift = shift.detach().requires_grad_()
        with torch.enable_grad():
            score = (runner.run(inputs, shift).scores * picks).sum()
        return torch.autograd.grad(score, shift)[0].detach()

    return forward, gradient


_BACKENDS = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
