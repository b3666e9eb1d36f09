"""timm's networks that are a row of the table with something changed; the rows name their own."""

from typing import Any

_DEEP: dict[str, Any] = {"stem": "deep"}
_WIDE_DEEP: dict[str, Any] = {"stem": "deep", "stem_width": 128}
_D: dict[str, Any] = {"stem": "deep", "shortcut": "D"}
_SE: dict[str, Any] = {"se_ratio": 1 / 16}
_BLUR: dict[str, Any] = {"antialias": "blur"}
_AVERAGE: dict[str, Any] = {"antialias": "average"}
_TWO: dict[str, Any] = {"depths": (2, 2, 2, 2)}
_GROUP: dict[str, Any] = {"norm_layer": "group"}
# As in all of its ResNetV2; our rows of these depths are keras.applications'.
_V2: dict[str, Any] = {
    "stride_in_last_block": False,
    "use_bias": False,
    "zero_pad_pool": False,
    "epsilon": 1e-5,
}

# timm's name -> our row, and what differs from it.
# fmt: off
TIMM_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet26": ("ResNet50", _TWO),
    "resnet50_gn": ("ResNet50", _GROUP),
    "resnet50c": ("ResNet50", _DEEP),
    "resnet101c": ("ResNet101", _DEEP),
    "resnet152c": ("ResNet152", _DEEP),
    "resnet50s": ("ResNet50", _WIDE_DEEP),
    "resnet101s": ("ResNet101", _WIDE_DEEP),
    "resnet152s": ("ResNet152", _WIDE_DEEP),
    "resnext50d_32x4d": ("ResNeXt50_32x4d", _D),
    "resnext101_32x4d": ("ResNeXt101_32x8d", {"base_width": 4}),
    "resnext101_32x16d": ("ResNeXt101_32x8d", {"base_width": 16}),
    "resnext101_32x32d": ("ResNeXt101_32x8d", {"base_width": 32}),
    "seresnet152d": ("SEResNet152", _D),
    "seresnet200d": ("SEResNet152", {**_D, "depths": (3, 24, 36, 3)}),
    "seresnet269d": ("SEResNet152", {**_D, "depths": (3, 30, 48, 8)}),
    "seresnext26d_32x4d": ("ResNeXt50_32x4d", {**_D, **_SE, **_TWO}),
    "seresnext50_32x4d": ("ResNeXt50_32x4d", _SE),
    "seresnext101_32x4d": ("ResNeXt101_32x8d", {**_SE, "base_width": 4}),
    "seresnext101_32x8d": ("ResNeXt101_32x8d", _SE),
    "seresnext101_64x4d": ("ResNeXt101_64x4d", _SE),
    "seresnext101d_32x8d": ("ResNeXt101_32x8d", {**_D, **_SE}),
    "resnetblur50d": ("ResNet50D", _BLUR),
    "resnetblur101d": ("ResNet101D", _BLUR),
    "resnetaa34d": ("ResNet34D", _AVERAGE),
    "resnetaa50d": ("ResNet50D", _AVERAGE),
    "resnetaa101d": ("ResNet101D", _AVERAGE),
    "seresnetaa50d": ("SEResNet50", {**_D, **_AVERAGE}),
    "seresnextaa101d_32x8d": ("ResNeXt101_32x8d", {**_D, **_SE, **_AVERAGE}),
    "seresnextaa201d_32x8d": (
        "ResNeXt101_32x8d",
        {**_WIDE_DEEP, **_D, **_SE, **_AVERAGE, "depths": (3, 24, 36, 4)},
    ),
    "resnetv2_18d": ("ResNet18V2", _D),
    "resnetv2_34d": ("ResNet34V2", _D),
    "resnetv2_50": ("ResNet50V2", _V2),
    "resnetv2_101": ("ResNet101V2", _V2),
    "resnetv2_152": ("ResNet152V2", _V2),
    "resnetv2_50d": ("ResNet50V2", {**_V2, **_D}),
    "resnetv2_101d": ("ResNet101V2", {**_V2, **_D}),
    "resnetv2_152d": ("ResNet152V2", {**_V2, **_D}),
    "resnetv2_50d_gn": ("ResNet50V2", {**_V2, **_D, **_GROUP}),
}
# fmt: on
