"""What a Keras network was trained with that names and shapes do not tell: padding, epsilon."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_resnet.blocks.options import PADDINGS
from keras_resnet.layers import PaddedMaxPool
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError, note

_CONVOLUTIONS = tuple(
    f"{kind}{rank}D" for kind in ("Conv", "StandardizedConv") for rank in (1, 2, 3)
)
_MAX_POOLS = ("MaxPooling1D", "MaxPooling2D", "MaxPooling3D")
_NORMALIZATIONS = ("BatchNormalization", "BatchNormalizationV1", "SyncBatchNormalization")


def settings_of_config(config: Any, origin: str) -> dict[str, Any]:
    """Fields of `Architecture` that a model's configuration says of its padding and epsilon.

    Args:
        config: of a model, as Keras stores it, with `layers`; anything else says nothing.
        origin: the file, for messages.

    Returns:
        `padding="same"` if the strided convolutions have that of Keras, `stem_pool_padding` if
        that of the first strided max pool is another one, `epsilon` if that of all batch
        normalizations is one; empty where nothing is told.
    """
    layers = list(_layers(config))
    epsilons = {settings.get("epsilon") for kind, settings in layers if kind in _NORMALIZATIONS}
    told = _padding(layers, origin)
    if len(epsilons) == 1 and isinstance(epsilon := epsilons.pop(), float):
        told["epsilon"] = epsilon
    return told


def _padding(layers: list[tuple[str, Mapping[str, Any]]], origin: str) -> dict[str, Any]:
    strided = {
        settings.get("padding")
        for kind, settings in layers
        if kind in _CONVOLUTIONS and _is_strided(settings, "kernel_size")
    }
    if len(strided) > 1:
        note(
            f"{origin} strides some convolutions with Keras' padding 'same' and some without: a "
            "network here has one padding, 'symmetric' unless padding='same' says otherwise."
        )
        return {}
    told: dict[str, Any] = {"padding": "same"} if strided == {"same"} else {}
    pool = _pool_padding(layers)
    if pool is not None and pool != told.get("padding", "symmetric"):
        told["stem_pool_padding"] = pool
    return told


def check_padding(
    model: keras.Model, checkpoint: Checkpoint, given: Collection[str], label: str
) -> None:
    """Refuses weights that another padding would silently spoil.

    Raises:
        WeightsError: if the file was trained with another padding than the model has.
    """
    own = _padding_of_model(model)
    told = checkpoint.network
    if not told or "padding" in given or own is None:
        return
    theirs = told.get("padding", "symmetric")
    if theirs in PADDINGS and theirs != own and ("name" in told or "padding" in told):
        raise WeightsError(
            f"{label} has padding={own!r}, the weights in {checkpoint.origin} were trained with "
            f"{theirs!r}: build the model with padding={theirs!r} "
            f"(--config.model.padding={theirs} for a run). The model is unchanged."
        )
    pools = {layer.padding for layer in model.layers if isinstance(layer, PaddedMaxPool)}
    pool = told.get("stem_pool_padding")
    if pool is not None and "stem_pool_padding" not in given and pools - {pool}:
        raise WeightsError(
            f"{label} pads the stem's pool {', '.join(pools)!r}, the network of the weights in "
            f"{checkpoint.origin} {pool!r}: build the model with stem_pool_padding={pool!r}. The "
            "model is unchanged."
        )


def _padding_of_model(model: keras.Model) -> str | None:
    strided = {
        layer.padding
        for layer in model.layers
        if type(layer).__name__ in _CONVOLUTIONS
        and _is_strided({"strides": layer.strides, "kernel_size": layer.kernel_size}, "kernel_size")
    }
    return None if len(strided) != 1 else "same" if strided == {"same"} else "symmetric"


def _layers(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Class and settings of each layer, those of models in the model among them."""
    layers = config.get("layers") if isinstance(config, Mapping) else None
    for layer in layers if isinstance(layers, list) else []:
        settings = layer.get("config") if isinstance(layer, Mapping) else None
        if isinstance(settings, Mapping):
            yield str(layer.get("class_name")), settings
            yield from _layers(settings)


def _pool_padding(layers: Iterable[tuple[str, Mapping[str, Any]]]) -> str | None:
    before = ""
    for kind, settings in layers:
        if kind in _MAX_POOLS and _is_strided(settings, "pool_size"):
            padded = before.startswith("ZeroPadding") and settings.get("padding") == "valid"
            return "symmetric" if padded else "same" if settings.get("padding") == "same" else None
        before = kind
    return None


def _is_strided(settings: Mapping[str, Any], size: str) -> bool:
    """Whether windows of more than one pixel go in steps of more than one."""
    return _largest(settings.get("strides")) > 1 and _largest(settings.get(size)) > 1


def _largest(numbers: Any) -> int:
    if isinstance(numbers, Mapping):  # a tuple in old files
        numbers = numbers.get("items")
    values = numbers if isinstance(numbers, (list, tuple)) else [numbers]
    return max((value for value in values if isinstance(value, int)), default=1)
