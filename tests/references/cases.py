"""What is compared with what: our variants and the models of other libraries they must equal."""

import dataclasses
from typing import Any

KERAS = "keras.applications"
SMALL = (64, 97)
LARGE = (193, 224)
CLASSES_KEPT = slice(None, None, 5)  # every fifth of 1000 logits is stored


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison of logits.

    Attributes:
        name: of the case and of its file in `logits/`.
        variant: our name, "" if `keras_resnet.weights.timm_networks` has it.
        library: "torchvision", "timm" or "keras.applications".
        model: name of the model there.
        arguments: further arguments of our `create_model`.
        library_arguments: further arguments of the library's function.
        sizes: image sizes in pixels.
        slow: compared only by `pytest -m slow`.
    """

    name: str
    variant: str
    library: str
    model: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    library_arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    sizes: tuple[int, ...] = SMALL
    slow: bool = False


# Every variant that one of the libraries has, in the order of our table.
COUNTERPARTS: dict[str, tuple[str, str]] = {
    **{f"ResNet{n}": ("torchvision", f"resnet{n}") for n in (18, 34, 50, 101, 152)},
    "ResNet200": ("timm", "resnet200"),
    **{f"ResNet{n}V1": (KERAS, f"ResNet{n}") for n in (50, 101, 152)},
    **{f"ResNet{n}V2": (KERAS, f"ResNet{n}V2") for n in (50, 101, 152)},
    **{f"ResNet{n}V2": ("timm", f"resnetv2_{n}") for n in (18, 34)},
    **{
        f"ResNet{n}_BiT": ("timm", f"resnetv2_{n}_bit")
        for n in ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")
    },
    **{f"ResNet{n}D": ("timm", f"resnet{n}d") for n in (18, 26, 34, 50, 101, 152, 200)},
    "ResNeXt50_32x4d": ("torchvision", "resnext50_32x4d"),
    "ResNeXt101_32x8d": ("torchvision", "resnext101_32x8d"),
    "ResNeXt101_64x4d": ("torchvision", "resnext101_64x4d"),
    **{f"WideResNet{n}_2": ("torchvision", f"wide_resnet{n}_2") for n in (50, 101)},
    **{f"SEResNet{n}": ("timm", f"seresnet{n}") for n in (18, 34, 50, 101, 152)},
    **{f"ResNetRS{n}": ("timm", f"resnetrs{n}") for n in (50, 101, 152, 200, 270, 350, 420)},
    "ResNetBlur18": ("timm", "resnetblur18"),
    "ResNetBlur50": ("timm", "resnetblur50"),
    "ResNetAA50": ("timm", "resnetaa50"),
}

FAST = {
    *("ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet50V1", "ResNet50V2", "ResNet18V2"),
    *("ResNet34D", "ResNet50D", "ResNeXt50_32x4d", "WideResNet50_2", "SEResNet18", "SEResNet50"),
    "ResNetRS50",
    "ResNetBlur18",
    "ResNetAA50",
    "ResNet50x1_BiT",
}
# 0.9 billion parameters, several times over in one process.
TOO_LARGE = {"ResNet152x4_BiT"}

# The pre-activation network as most people draw it: stride in a stage's first block, no biases.
TIMM_V2 = {
    "stride_in_last_block": False,
    "use_bias": False,
    "zero_pad_pool": False,
    "epsilon": 1e-5,
}

# timm's names in `keras_resnet.weights.timm_networks`, which has our row and what differs.
TIMM_CHANGED_FAST = ("resnet26", "resnet50s", "resnetv2_18d", "seresnext26d_32x4d")
TIMM_CHANGED = (
    *TIMM_CHANGED_FAST,
    *("resnet50_gn", "resnet50c", "resnet101c", "resnet152c", "resnet101s", "resnet152s"),
    *("resnext50d_32x4d", "resnext101_32x4d", "resnext101_32x16d"),
    *("seresnet152d", "seresnet200d", "seresnet269d", "seresnext50_32x4d", "seresnext101_32x4d"),
    *("seresnext101_32x8d", "seresnext101_64x4d", "seresnext101d_32x8d"),
    *("resnetblur50d", "resnetblur101d", "resnetaa34d", "resnetaa50d", "resnetaa101d"),
    *("seresnetaa50d", "seresnextaa101d_32x8d", "seresnextaa201d_32x8d"),
    *("resnetv2_34d", "resnetv2_50", "resnetv2_101", "resnetv2_152"),
    *("resnetv2_50d", "resnetv2_101d", "resnetv2_152d", "resnetv2_50d_gn"),
)  # all but one of half a billion parameters

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        *(
            Case(name, name, library, model, slow=name not in FAST)
            for name, (library, model) in COUNTERPARTS.items()
            if name not in TOO_LARGE
        ),
        *(
            Case(f"{name}-large", name, *COUNTERPARTS[name], sizes=LARGE, slow=True)
            for name in sorted(FAST)
        ),
        Case(
            "ResNet50-output_stride_8",
            "ResNet50",
            "torchvision",
            "resnet50",
            arguments={"output_stride": 8},
            library_arguments={"replace_stride_with_dilation": [False, True, True]},
        ),
        Case(
            "ResNet34-output_stride_16",
            "ResNet34",
            "timm",
            "resnet34",
            arguments={"output_stride": 16},
            library_arguments={"output_stride": 16},
        ),
        Case(
            "ResNet50D-output_stride_8",
            "ResNet50D",
            "timm",
            "resnet50d",
            arguments={"output_stride": 8},
            library_arguments={"output_stride": 8},
        ),
        *(
            Case(
                f"{name}-output_stride_8",
                name,
                *COUNTERPARTS[name],
                arguments={"output_stride": 8},
                library_arguments={"output_stride": 8},
                slow=name == "ResNetAA50",
            )
            for name in ("ResNetBlur18", "ResNetBlur50", "ResNetAA50")
        ),
        # The blur of a stem whose pool is a convolution comes before that one's normalization.
        Case(
            "ResNetRS50-blur",
            "ResNetRS50",
            "timm",
            "resnetrs50",
            arguments={"antialias": "blur"},
            library_arguments={"aa_layer": "blur"},
        ),
        Case("ResNet50V2-timm", "ResNet50V2", "timm", "resnetv2_50", arguments=TIMM_V2),
        Case(
            "ResNet50V2-timm_d_gn",
            "ResNet50V2",
            "timm",
            "resnetv2_50d_gn",
            arguments={**TIMM_V2, "stem": "deep", "shortcut": "D", "norm_layer": "group"},
        ),
        Case(
            "ResNet34V2-timm_d",
            "ResNet34V2",
            "timm",
            "resnetv2_34d",
            arguments={"stem": "deep", "shortcut": "D"},
            slow=True,
        ),
        # The same number of channels in two stages: a stride alone gets a projection.
        Case(
            "ResNet18V2-timm_equal_widths",
            "ResNet18V2",
            "timm",
            "resnetv2_18",
            arguments={"widths": (64, 64, 128, 128), "projection": "shape"},
            library_arguments={"channels": (64, 64, 128, 128)},
        ),
        Case(
            "ResNet50x1_BiT-output_stride_8",
            "ResNet50x1_BiT",
            "timm",
            "resnetv2_50x1_bit",
            arguments={"output_stride": 8},
            library_arguments={"output_stride": 8},
        ),
        *(
            Case(f"timm-{name}", "", "timm", name, sizes=(97,), slow=name not in TIMM_CHANGED_FAST)
            for name in TIMM_CHANGED
        ),
    )
}
