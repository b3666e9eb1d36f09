"""Which network a `.keras` file of this project holds, out of its configuration alone."""

import re
from collections.abc import Mapping
from typing import Any

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.architectures.description import fields_of

_BLOCK_LAYER = re.compile(r"stage(\d+)_block(\d+)_(\w+)")


def network_of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Architecture` with the `name` of their row; empty for a model of somebody else.

    Args:
        config: of a model, as Keras stores it. Files describe their network
            under `architecture`; in older ones the names of the model and its layers do.
    """
    return fields_of(config.get("architecture")) or _by_layers(config)


def _by_layers(config: Mapping[str, Any]) -> dict[str, Any]:
    rows = {name.lower(): row for name, row in ARCHITECTURES.items()}
    layers = config.get("layers")
    row = rows.get(str(config.get("name")))
    if row is None or not isinstance(layers, list):
        return {}
    filters = {
        layer["config"]["name"]: layer["config"].get("filters")
        for layer in layers
        if isinstance(layer, dict) and isinstance(layer.get("config"), dict)
        if "name" in layer["config"]
    }
    blocks = [match for match in map(_BLOCK_LAYER.fullmatch, filters) if match]
    stages = {int(match[1]) for match in blocks}
    if stages != set(range(1, len(stages) + 1)) or not stages:
        return {}
    depths = tuple(max(int(m[2]) for m in blocks if int(m[1]) == stage) for stage in sorted(stages))
    bottleneck = any(match[3] == "conv3" for match in blocks)
    last, share = ("conv3", 4) if bottleneck else ("conv1", 1)
    widths = [filters.get(f"stage{stage}_block1_{last}") for stage in sorted(stages)]
    told: dict[str, Any] = {"name": row.name, "depths": depths}
    if all(isinstance(width, int) for width in widths):
        told["widths"] = tuple(width // share for width in widths if width)
    if row.block in ("basic", "bottleneck"):
        told["block"] = "bottleneck" if bottleneck else "basic"
    if any(match[3] == "shortcut_conv" for match in blocks):
        pooled = any(match[3] == "shortcut_pool" for match in blocks) and not row.preactivation
        told["shortcut"] = "D" if pooled or row.shortcut == "D" else "B"
    return told
