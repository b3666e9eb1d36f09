"""The network in the `config.json` of transformers' `BitForImageClassification`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.weights.checkpoint import WeightsError

_EXPANSION = 4  # of a bottleneck: its output's channels for one inside
_FAMILY = "_BiT"
# Activations that mean the same in transformers and in Keras.
_ACTIVATIONS = ("relu", "gelu", "silu", "swish", "mish", "tanh", "sigmoid")
# Key -> its value in every network that can be built here, and what another one would mean.
_FIXED: dict[str, tuple[Any, str]] = {
    "layer_type": ("preactivation", "it normalizes the zeros around the pool, too"),
    "global_padding": (None, "convolutions pad both sides equally here"),
    "embedding_dynamic_padding": (False, "the pool pads both sides equally here"),
    "output_stride": (32, "it leaves strides out without dilating"),
    "width_factor": (1, "transformers' last normalization does not follow it"),
}


def network_of(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Fields of `Architecture`, with the `name` of the row that they differ from.

    Raises:
        WeightsError: for a network that cannot be built here, quoting the key.
    """
    for key, (value, why) in _FIXED.items():
        if config.get(key, value) != value:
            raise WeightsError(
                f"{path} has {key}={config[key]!r}; only {value!r} loads, otherwise {why}."
            )
    activation = config.get("hidden_act", "relu")
    if activation not in _ACTIVATIONS:
        raise WeightsError(
            f"{path} has hidden_act={activation!r}; {', '.join(_ACTIVATIONS)} are known here."
        )
    depths = tuple(config.get("depths", (3, 4, 6, 3)))
    hidden = tuple(config.get("hidden_sizes", (256, 512, 1024, 2048)))
    # Both widths of a bottleneck are made multiples of 8 there.
    if any(size % (8 * _EXPANSION) for size in hidden) or len(hidden) != len(depths):
        raise WeightsError(
            f"{path} has hidden_sizes={list(hidden)} for depths={list(depths)}; they should be "
            f"multiples of {8 * _EXPANSION}, one for each stage."
        )
    network = {
        "depths": depths,
        "widths": tuple(size // _EXPANSION for size in hidden),
        "stem_width": config.get("embedding_size", 64),
    }
    rows = [row for name, row in ARCHITECTURES.items() if name.endswith(_FAMILY)]
    same = (row.name for row in rows if all(getattr(row, k) == v for k, v in network.items()))
    return {
        "name": next(same, rows[0].name),
        **network,
        "norm_groups": config.get("num_groups", 32),
        "activation": activation,
    }
