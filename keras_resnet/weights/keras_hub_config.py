"""Which network KerasHub's description of a `ResNetBackbone` is: in presets and `.keras` files."""

import itertools
from collections.abc import Mapping
from typing import Any

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.weights.checkpoint import WeightsError

_BACKBONE, _CLASSIFIER = "ResNetBackbone", "ResNetImageClassifier"
# (block, pre-activation, vd) -> the variants of that kind; the first is changed if none has
# the depths.
_ROWS = {
    ("basic", False, False): ("ResNet18", "ResNet34"),
    ("bottleneck", False, False): ("ResNet50", "ResNet101", "ResNet152", "ResNet200"),
    ("basic", True, False): ("ResNet18V2", "ResNet34V2"),
    ("bottleneck", True, False): ("ResNet50V2", "ResNet101V2", "ResNet152V2", "ResNet200V2"),
    ("basic", False, True): ("ResNet18D", "ResNet34D"),
    ("bottleneck", False, True): ("ResNet50D", "ResNet26D", "ResNet101D", "ResNet152D"),
}


def network_of(description: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Fields of `Architecture`, with the `name` of the row that they differ from.

    Args:
        description: of a model, as Keras stores it: `class_name` and `config`.
        origin: the file, for messages.

    Returns:
        The fields; none for what is no ResNet of KerasHub.

    Raises:
        WeightsError: for a network that cannot be built here, quoting the key.
    """
    config = description.get("config")
    if "keras_hub" not in str(description.get("registered_name")) or not isinstance(config, dict):
        return {}
    if description.get("class_name") == _CLASSIFIER:
        if config.get("pooling", "avg") != "avg":
            raise WeightsError(
                f"{origin} has pooling={config['pooling']!r}; classifiers here follow a mean."
            )
        return network_of(config["backbone"], origin)
    return _network(config, origin) if description.get("class_name") == _BACKBONE else {}


def _network(config: Mapping[str, Any], origin: str) -> dict[str, Any]:
    kind = str(config["block_type"])
    block, vd = kind.partition("_block")[0], kind.endswith("_vd")
    preactivation = bool(config.get("use_pre_activation", False))
    depths = tuple(config["stackwise_num_blocks"])
    widths = tuple(config["stackwise_num_filters"])
    names = _ROWS.get((block, preactivation, vd))
    if names is None:
        raise WeightsError(
            f"{origin} has block_type={kind!r} with use_pre_activation={preactivation}; there is "
            "no such network here."
        )
    strides = list(config["stackwise_num_strides"])
    if strides != [1] + [2] * (len(depths) - 1):
        raise WeightsError(
            f"{origin} has stackwise_num_strides={strides}; the first stage has no stride here, "
            "the others have 2."
        )
    stem, stem_width = _stem(config, origin)
    expansion = 4 if block == "bottleneck" else 1
    projection = "auto"
    if kind != "basic_block" and stem_width == expansion * widths[0]:
        projection = "first"  # also where the shape does not change
    elif preactivation and any(a == b for a, b in itertools.pairwise(widths)):
        projection = "shape"
    return {
        "name": next((n for n in names if ARCHITECTURES[n].depths == depths), names[0]),
        "block": block,
        "depths": depths,
        "widths": widths,
        "stem": stem,
        "stem_width": stem_width,
        "preactivation": preactivation,
        "zero_pad_pool": not preactivation,
        "shortcut": "D" if vd else "B",
        "projection": projection,
        "stride_in_last_block": False,
        "use_bias": False,
        "epsilon": 1e-5,
    }


def _stem(config: Mapping[str, Any], origin: str) -> tuple[str, int]:
    filters = list(config["input_conv_filters"])
    kernels = list(config["input_conv_kernel_sizes"])
    if kernels == [7]:
        return "imagenet", filters[0]
    if kernels == [3, 3, 3] and filters[:2] == [filters[2] // 2] * 2:
        return "deep", filters[2]
    raise WeightsError(
        f"{origin} has input_conv_filters={filters} and input_conv_kernel_sizes={kernels}; stems "
        "here are one convolution of 7, or three of 3 of which the first two are half as wide."
    )
