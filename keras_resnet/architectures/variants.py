"""Every network: one line is its row in the table and the function that builds it.

A new one is a line at the end and its name in `__all__`; everything else follows.
"""

from collections.abc import Callable
from typing import Any

from keras_resnet.architectures.row import Architecture

__all__ = [
    "CifarResNet20",
    "CifarResNet32",
    "CifarResNet44",
    "CifarResNet56",
    "CifarResNet110",
    "CifarResNet110V2",
    "CifarResNet164V2",
    "CifarResNet1001V2",
    "CifarResNet1202",
    "ResNeXt50_32x4d",
    "ResNeXt101_32x8d",
    "ResNeXt101_64x4d",
    "ResNet18",
    "ResNet18D",
    "ResNet18V2",
    "ResNet26D",
    "ResNet34",
    "ResNet34D",
    "ResNet34V2",
    "ResNet50",
    "ResNet50D",
    "ResNet50V1",
    "ResNet50V2",
    "ResNet50x1_BiT",
    "ResNet50x3_BiT",
    "ResNet101",
    "ResNet101D",
    "ResNet101V1",
    "ResNet101V2",
    "ResNet101x1_BiT",
    "ResNet101x3_BiT",
    "ResNet152",
    "ResNet152D",
    "ResNet152V1",
    "ResNet152V2",
    "ResNet152x2_BiT",
    "ResNet152x4_BiT",
    "ResNet200",
    "ResNet200D",
    "ResNet200V2",
    "ResNetAA50",
    "ResNetBlur18",
    "ResNetBlur50",
    "ResNetRS50",
    "ResNetRS101",
    "ResNetRS152",
    "ResNetRS200",
    "ResNetRS270",
    "ResNetRS350",
    "ResNetRS420",
    "SEResNet18",
    "SEResNet34",
    "SEResNet50",
    "SEResNet101",
    "SEResNet152",
    "WideResNet16_4",
    "WideResNet16_8",
    "WideResNet22_8",
    "WideResNet28_2",
    "WideResNet28_10",
    "WideResNet40_2",
    "WideResNet40_4",
    "WideResNet50_2",
    "WideResNet101_2",
]

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


def _imagenet(source: str, **family: Any) -> Callable[..., Architecture]:
    """A constructor of rows: name, depths, library, name there, and what else differs."""

    def row(name, depths, library="", reference="", **fields) -> Architecture:
        fields = {"library": library, "reference": reference, **fields}
        return Architecture(name, source, depths, **{**family, **fields})

    return row


def _cifar(source: str, **family: Any) -> Callable[..., Architecture]:
    """A constructor of rows: name, blocks per stage, and what else differs."""
    shared: dict[str, Any] = {
        "block": "basic",
        "widths": (16, 32, 64),
        "stem": "cifar",
        "stem_width": 16,
        "classes": 10,
        "image_size": 32,
        "crop_ratio": 1.0,
        "mean": CIFAR_MEAN,
        "std": CIFAR_STD,
        # Zero starves networks of so few channels (docs/results.md).
        "zero_init_last_gamma": False,
        **family,
    }

    def row(name, blocks, **fields) -> Architecture:
        return Architecture(name, source, (blocks,) * 3, **{**shared, **fields})

    return row


_v1_5 = _imagenet("He et al. 2015, section 4.1, with the strides of Goyal et al. 2017, section 5.1")
# As keras.applications has it, whose guide loads images with `load_img(path, target_size=...)`;
# "caffe" mode is BGR pixels of 0..255 minus the mean, not scaled.
_AS_LOAD_IMG: dict[str, Any] = {"crop_ratio": 1.0, "interpolation": "nearest", "resize": "plain"}
_v1 = _imagenet(
    "He et al. 2015, section 4.1",
    stride_in_1x1=True,
    use_bias=True,
    epsilon=1.001e-5,
    mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    channel_order="bgr",
    **_AS_LOAD_IMG,
)
_v2 = _imagenet("He et al. 2016, section 5", preactivation=True, zero_pad_pool=False)
_v2_keras = _imagenet(
    "He et al. 2016, section 5",
    preactivation=True,
    stride_in_last_block=True,
    use_bias=True,
    epsilon=1.001e-5,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    **_AS_LOAD_IMG,
)
_AS_TIMM: dict[str, Any] = {"interpolation": "bicubic", "resize": "floor"}
_d = _imagenet("He et al. 2019, section 4.2", stem="deep", shortcut="D", **_AS_TIMM)
_next = _imagenet("Xie et al. 2017, section 3")
_wide = _imagenet("Zagoruyko and Komodakis 2016, section 3", base_width=128)
_se = _imagenet("Hu et al. 2018, section 3", se_ratio=1 / 16, **_AS_TIMM)
# Regularization as in the authors' code.
_rs = _imagenet(
    "Bello et al. 2021, table 1 and appendix",
    stem="deep_strided",
    shortcut="D",
    se_ratio=0.25,
    dropout_rate=0.25,
    crop_ratio=1.0,
    **_AS_TIMM,
)
_blur = _imagenet("Zhang 2019, section 3.2", antialias="blur", **_AS_TIMM)
_cifar_v1 = _cifar("He et al. 2015, section 4.2", shortcut="A")
_cifar_v2 = _cifar("He et al. 2016, section 3 and appendix", preactivation=True)
_wrn = _cifar("Zagoruyko and Komodakis 2016, section 2.3", preactivation=True)

# Big Transfer's ResNet-v2; preprocessing of timm's weights fine-tuned on ImageNet-1k.
_bit = _imagenet(
    "Kolesnikov et al. 2020, section 3",
    preactivation=True,
    norm_layer="group",
    weight_standardization=True,
    projection="first",
    image_size=448,
    crop_ratio=1.0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    resize="floor",
)

TV, TIMM, KERAS = "torchvision", "timm", "keras.applications"
_BIG = {"image_size": 256, "crop_ratio": 0.95}
_X2 = {"widths": (128, 256, 512, 1024), "stem_width": 128}
_X3 = {"widths": (192, 384, 768, 1536), "stem_width": 192}
_X4 = {"widths": (256, 512, 1024, 2048), "stem_width": 256, "image_size": 480}

# fmt: off
ResNet18 = _v1_5("ResNet18", (2, 2, 2, 2), TV, "resnet18", block="basic")
ResNet34 = _v1_5("ResNet34", (3, 4, 6, 3), TV, "resnet34", block="basic")
ResNet50 = _v1_5("ResNet50", (3, 4, 6, 3), TV, "resnet50")
ResNet101 = _v1_5("ResNet101", (3, 4, 23, 3), TV, "resnet101")
ResNet152 = _v1_5("ResNet152", (3, 8, 36, 3), TV, "resnet152")
ResNet200 = _v1_5("ResNet200", (3, 24, 36, 3), TIMM, "resnet200")
ResNet50V1 = _v1("ResNet50V1", (3, 4, 6, 3), KERAS, "ResNet50")
ResNet101V1 = _v1("ResNet101V1", (3, 4, 23, 3), KERAS, "ResNet101")
ResNet152V1 = _v1("ResNet152V1", (3, 8, 36, 3), KERAS, "ResNet152")
ResNet50V2 = _v2_keras("ResNet50V2", (3, 4, 6, 3), KERAS, "ResNet50V2")
ResNet101V2 = _v2_keras("ResNet101V2", (3, 4, 23, 3), KERAS, "ResNet101V2")
ResNet152V2 = _v2_keras("ResNet152V2", (3, 8, 36, 3), KERAS, "ResNet152V2")
ResNet18V2 = _v2("ResNet18V2", (2, 2, 2, 2), TIMM, "resnetv2_18", block="basic")
ResNet34V2 = _v2("ResNet34V2", (3, 4, 6, 3), TIMM, "resnetv2_34", block="basic")
ResNet200V2 = _v2("ResNet200V2", (3, 24, 36, 3))
ResNet18D = _d("ResNet18D", (2, 2, 2, 2), TIMM, "resnet18d", block="basic")
ResNet26D = _d("ResNet26D", (2, 2, 2, 2), TIMM, "resnet26d")
ResNet34D = _d("ResNet34D", (3, 4, 6, 3), TIMM, "resnet34d", block="basic")
ResNet50D = _d("ResNet50D", (3, 4, 6, 3), TIMM, "resnet50d")
ResNet101D = _d("ResNet101D", (3, 4, 23, 3), TIMM, "resnet101d", **_BIG)
ResNet152D = _d("ResNet152D", (3, 8, 36, 3), TIMM, "resnet152d", **_BIG)
ResNet200D = _d("ResNet200D", (3, 24, 36, 3), TIMM, "resnet200d", **_BIG)
ResNeXt50_32x4d = _next("ResNeXt50_32x4d", (3, 4, 6, 3), TV, "resnext50_32x4d", groups=32,
    base_width=4)
ResNeXt101_32x8d = _next("ResNeXt101_32x8d", (3, 4, 23, 3), TV, "resnext101_32x8d", groups=32,
    base_width=8)
ResNeXt101_64x4d = _next("ResNeXt101_64x4d", (3, 4, 23, 3), TV, "resnext101_64x4d", groups=64,
    base_width=4)
WideResNet50_2 = _wide("WideResNet50_2", (3, 4, 6, 3), TV, "wide_resnet50_2")
WideResNet101_2 = _wide("WideResNet101_2", (3, 4, 23, 3), TV, "wide_resnet101_2")
SEResNet18 = _se("SEResNet18", (2, 2, 2, 2), TIMM, "seresnet18", block="basic")
SEResNet34 = _se("SEResNet34", (3, 4, 6, 3), TIMM, "seresnet34", block="basic")
SEResNet50 = _se("SEResNet50", (3, 4, 6, 3), TIMM, "seresnet50")
SEResNet101 = _se("SEResNet101", (3, 4, 23, 3), TIMM, "seresnet101")
SEResNet152 = _se("SEResNet152", (3, 8, 36, 3), TIMM, "seresnet152")
ResNetRS50 = _rs("ResNetRS50", (3, 4, 6, 3), TIMM, "resnetrs50", image_size=160, crop_ratio=0.91)
ResNetRS101 = _rs("ResNetRS101", (3, 4, 23, 3), TIMM, "resnetrs101", image_size=192,
    crop_ratio=0.94)
ResNetRS152 = _rs("ResNetRS152", (3, 8, 36, 3), TIMM, "resnetrs152", image_size=256)
ResNetRS200 = _rs("ResNetRS200", (3, 24, 36, 3), TIMM, "resnetrs200", image_size=256,
    drop_path_rate=0.1)
ResNetRS270 = _rs("ResNetRS270", (4, 29, 53, 4), TIMM, "resnetrs270", image_size=256,
    drop_path_rate=0.1)
ResNetRS350 = _rs("ResNetRS350", (4, 36, 72, 4), TIMM, "resnetrs350", image_size=288,
    drop_path_rate=0.1, dropout_rate=0.4)
ResNetRS420 = _rs("ResNetRS420", (4, 44, 87, 4), TIMM, "resnetrs420", image_size=320,
    drop_path_rate=0.1, dropout_rate=0.4)
ResNetBlur18 = _blur("ResNetBlur18", (2, 2, 2, 2), TIMM, "resnetblur18", block="basic")
ResNetBlur50 = _blur("ResNetBlur50", (3, 4, 6, 3), TIMM, "resnetblur50")
ResNetAA50 = _blur("ResNetAA50", (3, 4, 6, 3), TIMM, "resnetaa50", antialias="average",
    crop_ratio=0.95)
ResNet50x1_BiT = _bit("ResNet50x1_BiT", (3, 4, 6, 3), TIMM, "resnetv2_50x1_bit")
ResNet50x3_BiT = _bit("ResNet50x3_BiT", (3, 4, 6, 3), TIMM, "resnetv2_50x3_bit", **_X3)
ResNet101x1_BiT = _bit("ResNet101x1_BiT", (3, 4, 23, 3), TIMM, "resnetv2_101x1_bit")
ResNet101x3_BiT = _bit("ResNet101x3_BiT", (3, 4, 23, 3), TIMM, "resnetv2_101x3_bit", **_X3)
ResNet152x2_BiT = _bit("ResNet152x2_BiT", (3, 8, 36, 3), TIMM, "resnetv2_152x2_bit", **_X2)
ResNet152x4_BiT = _bit("ResNet152x4_BiT", (3, 8, 36, 3), TIMM, "resnetv2_152x4_bit", **_X4)
CifarResNet20 = _cifar_v1("CifarResNet20", 3)
CifarResNet32 = _cifar_v1("CifarResNet32", 5)
CifarResNet44 = _cifar_v1("CifarResNet44", 7)
CifarResNet56 = _cifar_v1("CifarResNet56", 9)
CifarResNet110 = _cifar_v1("CifarResNet110", 18)
CifarResNet1202 = _cifar_v1("CifarResNet1202", 200)
CifarResNet110V2 = _cifar_v2("CifarResNet110V2", 18, shortcut="A", preact_first_shortcut=True)
CifarResNet164V2 = _cifar_v2("CifarResNet164V2", 18, block="bottleneck", stride_in_1x1=True)
CifarResNet1001V2 = _cifar_v2("CifarResNet1001V2", 111, block="bottleneck", stride_in_1x1=True)
WideResNet16_4 = _wrn("WideResNet16_4", 2, widths=(64, 128, 256))
WideResNet16_8 = _wrn("WideResNet16_8", 2, widths=(128, 256, 512))
WideResNet22_8 = _wrn("WideResNet22_8", 3, widths=(128, 256, 512))
WideResNet28_2 = _wrn("WideResNet28_2", 4, widths=(32, 64, 128))
WideResNet28_10 = _wrn("WideResNet28_10", 4, widths=(160, 320, 640))
WideResNet40_2 = _wrn("WideResNet40_2", 6, widths=(32, 64, 128))
WideResNet40_4 = _wrn("WideResNet40_4", 6, widths=(64, 128, 256))
# fmt: on
