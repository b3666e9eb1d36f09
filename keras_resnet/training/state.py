"""The state of a run under flat names: the same for every engine, and for every backend of Keras.

What training changes is the weights, the random state of layers, the optimizer and the moving
averages of weights. A name is made of the names of layers, which are API, and of those that
optimizers give their slots; what Keras counts up in a process (`sgd_1`) has no part in it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_resnet.layers import BatchNormalization
from keras_resnet.layers.keras_internals import layers_within

MODEL, SEEDS, OPTIMIZER, AVERAGE = "model/", "seeds/", "optimizer/", "average/"
# What inference needs of a run's state.
INFERENCE = (MODEL, SEEDS, AVERAGE)


def named_variables(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None = None,
    averages: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns all variables that training changes, by name, in a fixed order.

    - `model/PATH`: the weights, by their path in Keras;
    - `seeds/LAYER/N`: the random state of a layer's dropout or stochastic depth;
    - `optimizer/NAME`: the counter of steps and the slots; `optimizer/loss_scale/NAME`: what a
      `LossScaleOptimizer` around it counts;
    - `average/PATH`: the moving averages, as `averages` names them.

    Args:
        model: the network.
        optimizer: built for it, or None.
        averages: of `average_names`: the name of each average and the variable, or array, itself.
    """
    named: dict[str, Any] = {}
    for name, variable in _model_variables(model):
        _add(named, name, variable)
    for name, variable in _optimizer_variables(optimizer):
        _add(named, name, variable)
    for name, variable in (averages or {}).items():
        _add(named, name, variable)
    return named


def averaged_variables(model: keras.Model) -> list[keras.Variable]:
    """Returns the variables that are averaged, in the order of the model's weights.

    The trainable ones and the moving statistics of batch normalization: statistics of the latest
    weights do not fit averaged ones. What `layer.trainable` leaves out is left out, so ask when the
    averages are made.
    """
    chosen = {id(variable) for variable in model.trainable_variables}
    for layer in layers_within(model):
        if isinstance(layer, BatchNormalization) and layer.trainable:
            chosen |= {id(layer.moving_mean), id(layer.moving_variance)}
    return [variable for variable in model.weights if id(variable) in chosen]


def average_names(model: keras.Model) -> list[str]:
    """Returns the names of the averages of `averaged_variables(model)`, in the same order."""
    names: dict[str, Any] = {}
    for variable in averaged_variables(model):
        _add(names, AVERAGE + variable.path, variable)
    return [*names]


def arrays_of(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns copies of the values of variables, by the same names."""
    arrays = {name: keras.ops.convert_to_numpy(variable) for name, variable in variables.items()}
    # TensorFlow gives a copy. JAX shows what the next step overwrites.
    return {
        name: array if array.flags.owndata and array.flags.writeable else np.array(array)
        for name, array in arrays.items()
    }


def check_state(variables: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """Makes sure that `arrays` has a value that fits for each of `variables`, and no other.

    Raises:
        ValueError: names the first that is missing, has another shape, or belongs to neither.
    """
    for name, variable in variables.items():
        if name not in arrays:
            raise ValueError(f"{name} is not in the state")
        fitting(name, variable, arrays[name])
    if left := [name for name in arrays if name not in variables]:
        raise ValueError(f"{left[0]} is in the state, and not here")


def fitting(name: str, variable: Any, array: np.ndarray) -> np.ndarray:
    """Returns `array` in the dtype of `variable`, for which it is.

    Whole numbers, which count and seed, are 64 bits wide on one backend of Keras and 32 on another:
    they are cast where the values allow it. All other dtypes have to be the same.

    Args:
        name: for messages.
        variable: a variable of Keras or of a backend, or an array.
        array: its value.

    Raises:
        ValueError: shape or dtype are others, or a whole number is too large.
    """
    shape, dtype = tuple(variable.shape), _dtype_of(variable)
    if shape != array.shape:
        raise ValueError(f"{name} has the shape {shape}, the state {array.shape}")
    if array.dtype == dtype:
        return array
    if not {array.dtype.kind, dtype.kind} <= {"i", "u"}:
        raise ValueError(f"{name} is {dtype}, the state {array.dtype}")
    limits = np.iinfo(dtype)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        raise ValueError(
            f"{name} is {dtype} here, which {int(array.max())} of the state's {array.dtype} "
            "does not fit"
        )
    return array.astype(dtype)


def assign(name: str, variable: Any, array: np.ndarray) -> None:
    """Gives a variable a value; raises ValueError where it does not fit (see `fitting`)."""
    variable.assign(fitting(name, variable, array))


def load(variables: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Gives each variable its value, or none where one does not fit, which raises ValueError."""
    check_state(variables, arrays)
    for name, variable in variables.items():
        assign(name, variable, arrays[name])


def _dtype_of(variable: Any) -> np.dtype:
    dtype = variable.dtype
    # TensorFlow's own variables have TensorFlow's dtypes; Keras' have names.
    dtype = getattr(dtype, "as_numpy_dtype", dtype)
    if dtype == "bfloat16":
        import ml_dtypes  # what numpy's bfloat16 is, with every backend

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(dtype)


def _model_variables(model: keras.Model) -> Iterator[tuple[str, Any]]:
    weights = {id(variable) for variable in model.weights}
    for variable in model.weights:
        yield MODEL + variable.path, variable
    # What Keras names the generators is counted up; what a layer has is in a fixed order.
    seen: set[int] = set()
    for layer in (*reversed(layers_within(model)), model):
        own = [
            variable
            for variable in layer.variables
            if id(variable) not in weights and id(variable) not in seen
        ]
        seen |= {id(variable) for variable in own}
        for number, variable in enumerate(own):
            yield f"{SEEDS}{layer.name}/{number}", variable


def _optimizer_variables(
    optimizer: keras.optimizers.Optimizer | None,
) -> Iterator[tuple[str, Any]]:
    if optimizer is None:
        return
    inner = getattr(optimizer, "inner_optimizer", None)  # of a LossScaleOptimizer
    if inner is not None:
        theirs = {id(variable) for variable in inner.variables}
        own = [variable for variable in optimizer.variables if id(variable) not in theirs]
        yield from _without_first_part(f"{OPTIMIZER}loss_scale/", own)
        yield from _optimizer_variables(inner)
        return
    yield from _without_first_part(OPTIMIZER, optimizer.variables)


def _without_first_part(prefix: str, variables: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """The first part of a path is the optimizer's own name, counted up in a process."""
    for variable in variables:
        # Adafactor has placeholders without a first part.
        yield prefix + (variable.path.partition("/")[2] or "variable"), variable


def _add(named: dict[str, Any], name: str, variable: Any) -> None:
    """Two of one name are told apart by their order: `x`, `x~1`."""
    unique, number = name, 0
    while unique in named:
        number += 1
        unique = f"{name}~{number}"
    named[unique] = variable
