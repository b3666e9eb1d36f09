"""What a network costs: parameters and multiply-adds, and the table of all variants."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import keras

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.layers import BlurPool
from keras_resnet.layers.keras_internals import is_functional, run_through_graph
from keras_resnet.models.builder import create_model


@dataclasses.dataclass(frozen=True)
class Profile:
    """Costs of a model.

    Attributes:
        parameters: trainable numbers, what papers and other libraries count.
        moving_statistics: numbers that are not trained: means and variances of the normalizations.
        multiply_adds: multiplications (each with its addition) of all convolutions, blur pools and
            dense layers, for one example of `input_shape`.
        input_shape: shape of that example, without the batch axis.
    """

    parameters: int
    moving_statistics: int
    multiply_adds: int
    input_shape: tuple[int, ...]


def profile(model: keras.Model, input_shape: Sequence[int] | None = None) -> Profile:
    """Count the parameters and multiply-adds of a functional model.

    Multiply-adds are counted as torchvision and the papers do (ResNet-50 at 224 pixels:
    4.09e9): convolutions, blur pools and dense layers, no biases, normalizations, other pools and
    activations.

    Args:
        model: a functional or sequential Keras model with one input; layers, nested models and
            shared layers count once per call.
        input_shape: shape of one example, without the batch axis; default: that of the model.

    Returns:
        A `Profile`.

    Raises:
        ValueError: if the input's size is open and `input_shape` does not say it, or does not fit.
        TypeError: if the model is neither functional nor sequential, or has such a model in it.
    """
    if isinstance(model, keras.Sequential):
        model = _functional(model, input_shape)
    _check_functional(model)
    shape = tuple(model.inputs[0].shape[1:] if input_shape is None else input_shape)
    known = model.inputs[0].shape[1:]
    fits = len(shape) == len(known) and all(
        a in (None, b) for a, b in zip(known, shape, strict=True)
    )
    if not fits or any(size is None for size in shape):
        raise ValueError(
            f"The model {model.name!r} takes examples of shape {tuple(known)}; pass `input_shape` "
            f"with all sizes, received {input_shape!r}."
        )
    counts: list[int] = []
    example = keras.KerasTensor((1, *shape), dtype=model.inputs[0].dtype)
    _walk(model, [example], counts)
    return Profile(
        parameters=sum(math.prod(v.shape) for v in model.trainable_variables),
        moving_statistics=sum(math.prod(v.shape) for v in model.non_trainable_weights),
        multiply_adds=sum(counts),
        input_shape=shape,
    )


def _check_functional(model: Any) -> None:
    if not isinstance(model, keras.Model) or not is_functional(model):
        what = f"the model {model.name!r}" if isinstance(model, keras.Model) else repr(model)
        raise TypeError(
            f"A functional or sequential Keras model is profiled, received {what} of the class "
            f"{type(model).__name__}, whose layers cannot be followed."
        )


def _functional(model: keras.Sequential, input_shape: Sequence[int] | None = None) -> keras.Model:
    """A functional model of the same layers."""
    if not model.built:
        if input_shape is None:
            raise ValueError(
                f"The model {model.name!r} has not seen its input yet; pass `input_shape`, the "
                "shape of one example."
            )
        model.build((None, *input_shape))
    return keras.Model(model.inputs, model.outputs, name=model.name)


def _walk(model, inputs, counts: list[int]):
    """Propagate shapes through the graph, appending what each call of a layer costs."""

    def counted(operation):
        return functools.partial(_count, operation, counts)

    return run_through_graph(model, inputs, counted)


def _count(operation, counts: list[int], *args, **kwargs):
    if isinstance(operation, keras.Sequential):
        operation = _functional(operation)
    if isinstance(operation, keras.Model):
        _check_functional(operation)
        outputs = _walk(operation, keras.tree.flatten(args[0]), counts)
        return outputs[0] if isinstance(outputs, list) and len(outputs) == 1 else outputs
    outputs = operation.compute_output_spec(*args, **kwargs)
    # Each output number is a sum over the kernel's taps of its filter.
    if isinstance(operation, _DEPTHWISE):
        counts.append(math.prod(outputs.shape) * math.prod(operation.kernel.shape[:-2]))
    elif isinstance(operation, BlurPool):
        counts.append(operation.multiply_adds(outputs.shape))
    elif isinstance(operation, (keras.layers.Dense, *_CONVOLUTIONS)):
        filters = operation.units if hasattr(operation, "units") else operation.filters
        counts.append(math.prod(outputs.shape) * math.prod(operation.kernel.shape) // filters)
    return outputs


_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)

HEADER = """\
<!-- Generated by `python -m keras_resnet.models.costs > docs/models.md`; do not edit. -->
# Models

Parameters (trainable) and multiply-adds of every variant, for one image of its native size and
its default number of classes. The last column says whose layers and parameters the variant
has, one to one.

| model | parameters | multiply-adds | image size | classes | as in |
|---|---:|---:|---:|---:|---|
"""


def table_row(name: str) -> str:
    """The line of a variant in docs/models.md."""
    row = ARCHITECTURES[name]
    costs = profile(create_model(name))
    return (
        f"| `{name}` | {costs.parameters:,} | {costs.multiply_adds / 1e9:.3f} G | "
        f"{row.image_size} | {row.classes} | {row.as_in} |"
    )


def main() -> None:
    """Print docs/models.md; builds every variant, which takes some minutes."""
    print(HEADER + "\n".join(table_row(name) for name in ARCHITECTURES))


if __name__ == "__main__":
    main()
