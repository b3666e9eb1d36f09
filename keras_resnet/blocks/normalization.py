"""Normalizations by name, class or function, and how one is recognized in a finished model."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_resnet.errors import nearest
from keras_resnet.layers import BatchNormalization, GroupNormalization

NormLayer = str | type[keras.layers.Layer] | Callable[[str], keras.layers.Layer]

_Row = Callable[[int, int], tuple[type[keras.layers.Layer], dict[str, Any]]]

# Name -> the class and its arguments for a number of channels and one of groups. One line
# registers another one.
NORM_LAYERS: dict[str, _Row] = {
    # Ioffe and Szegedy 2015.
    "batch": lambda channels, groups: (BatchNormalization, {}),
    # Wu and He 2018: 32 groups, or the most that divide both 32 and the channels.
    "group": lambda channels, groups: (
        GroupNormalization,
        {"groups": math.gcd(groups, channels)},
    ),
    # Ulyanov et al. 2016: every channel by itself.
    "instance": lambda channels, groups: (GroupNormalization, {"groups": -1}),
    # Over the channels of each pixel, as in ConvNeXt (Liu et al. 2022).
    "layer": lambda channels, groups: (keras.layers.LayerNormalization, {}),
}
NORM_DEFAULTS: dict[str, Any] = {
    "momentum": 0.9,
    "epsilon": 1e-5,
    "synchronized": False,
    "groups": 32,
}

_CLASSES = tuple(
    getattr(keras.layers, f"{kind}Normalization")
    for kind in ("Batch", "Group", "Layer", "RMS", "Unit")
    if hasattr(keras.layers, f"{kind}Normalization")  # older versions of Keras 3 have no RMS
)
_PLACE = re.compile(r"_norm\d*$")  # layer names are API


def check_norm(norm_layer: Any, norm: Mapping[str, Any]) -> None:
    """Refuses a normalization that does not exist, or options that it does not have.

    Raises:
        ValueError: for an unknown name or option, naming the nearest.
    """
    if isinstance(norm_layer, str) and norm_layer not in NORM_LAYERS:
        raise ValueError(
            f"`norm_layer` is one of {', '.join(NORM_LAYERS)}, a Keras layer class or a function "
            f"of a name; received {norm_layer!r}{nearest(norm_layer, NORM_LAYERS)}"
        )
    if isinstance(norm_layer, keras.layers.Layer) or not (
        isinstance(norm_layer, str) or callable(norm_layer)
    ):
        raise ValueError(
            "`norm_layer` makes a new layer for each place: pass a name, a layer class or a "
            f"function of a name, received {norm_layer!r}."
        )
    if isinstance(norm_layer, type) and not issubclass(norm_layer, keras.layers.Layer):
        raise ValueError(f"`norm_layer` as a class is one of a Keras layer, received {norm_layer}.")
    unknown = sorted(norm.keys() - NORM_DEFAULTS.keys())
    if unknown:
        raise ValueError(
            f"`norm` takes the keys {', '.join(sorted(NORM_DEFAULTS))}; received "
            f"{unknown[0]!r}{nearest(unknown[0], NORM_DEFAULTS)}"
        )


def make_normalization(
    norm_layer: NormLayer,
    *,
    channels: int,
    axis: int,
    norm: Mapping[str, Any],
    zero_gamma: bool,
    dtype: Any,
    name: str,
) -> keras.layers.Layer:
    """A new normalization layer.

    Args:
        norm_layer: as in `keras_resnet.blocks.options.LayerOptions`.
        channels: number of channels that it will normalize.
        axis: their axis.
        norm: `momentum`, `epsilon`, `synchronized` and `groups`, each may be left out. A layer
            without epsilon keeps to its own; `momentum` and `synchronized` are batch
            normalization's, `groups` group normalization's.
        zero_gamma: start the scale at 0. A layer that has no `gamma_initializer` starts as it does.
        dtype: dtype or dtype policy of the layer.
        name: name of the layer.

    Raises:
        ValueError: if the layer cannot do what `norm` asks for, or has another name than `name`.
    """
    options = {**NORM_DEFAULTS, **norm}
    arguments: dict[str, Any] = {}
    kind = class_of(norm_layer)
    if isinstance(norm_layer, str):
        kind, arguments = NORM_LAYERS[norm_layer](channels, options["groups"])
    elif kind is None:
        return _made_by_function(norm_layer, options, zero_gamma, name)
    known = _parameters(kind)
    _refuse(options, known, kind.__name__)
    if isinstance(norm_layer, functools.partial):  # what it sets stays as it is
        known -= norm_layer.keywords.keys()
    if isinstance(norm_layer, str) or options["groups"] == NORM_DEFAULTS["groups"]:
        known -= {"groups"}  # the row's, or the class' own default
    options["axis"] = axis
    if zero_gamma:
        options["gamma_initializer"] = "zeros"
    arguments |= {key: value for key, value in options.items() if key in known}
    make = kind if isinstance(norm_layer, str) else norm_layer
    return make_layer("norm_layer", make, **arguments, dtype=dtype, name=name)


def class_of(made_by: Any) -> type | None:
    """The class that a class, or a `functools.partial` of one, makes; None for anything else."""
    kind = made_by.func if isinstance(made_by, functools.partial) else made_by
    return kind if isinstance(kind, type) else None


def make_layer(argument: str, make: Callable[..., Any], **arguments: Any) -> keras.layers.Layer:
    """A layer of a class that was passed as `argument`; no dtype is given to one that takes none.

    Raises:
        ValueError: if the class cannot be called with `arguments` alone.
    """
    kind = class_of(make)
    if arguments["dtype"] is None and kind is not None and "dtype" not in _parameters(kind):
        del arguments["dtype"]
    try:
        return make(**arguments)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise ValueError(
            f"`{argument}`={make!r} cannot be called with {given}: {error}. Pass a class that can, "
            "or a functools.partial that sets what else it needs."
        ) from error


def is_normalization(layer: keras.layers.Layer) -> bool:
    """Whether a layer normalizes: by its class, or standing where ours stand.

    A class of one's own is recognized by its place, a name that ends in `_norm` or `_norm` and a
    number, as all normalizations have that blocks make.
    """
    return isinstance(layer, _CLASSES) or bool(_PLACE.search(layer.name))


def _made_by_function(function, options, zero_gamma: bool, name: str) -> keras.layers.Layer:
    _refuse(options, (), getattr(function, "__name__", repr(function)))
    layer = function(name)
    if not isinstance(layer, keras.layers.Layer) or layer.name != name:
        raise ValueError(
            "A function as `norm_layer` takes a name and returns a new Keras layer of that name; "
            f"called with {name!r} it returned {layer!r}."
        )
    if zero_gamma and hasattr(layer, "gamma_initializer"):
        layer.gamma_initializer = keras.initializers.Zeros()
    return layer


def _refuse(options: Mapping[str, Any], known, kind: str) -> None:
    """`momentum`, say, for a layer that has none would be lost in silence."""
    for key in ("momentum", "synchronized", "groups"):
        if key not in known and options[key] != NORM_DEFAULTS[key]:
            raise ValueError(
                f"`norm` has {key}={options[key]!r}, which {kind} does not take: leave it out."
            )


def _parameters(kind: type) -> set[str]:
    """Names that a class takes: its own and, where it passes on `**kwargs`, its parents'."""
    names: set[str] = set()
    for parent in kind.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters
        names |= set(parameters)
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            break
    return names
