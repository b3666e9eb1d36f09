"""What `weights="imagenet"` means for each variant."""

from keras_resnet.errors import close_names
from keras_resnet.weights.checkpoint import WeightsError

# Repositories of the Hugging Face hub. The part after the dot is timm's name of the training run,
# which is the version: timm gives another run another name.
HUB: dict[str, str] = {
    "ResNet18": "timm/resnet18.a1_in1k",
    "ResNet34": "timm/resnet34.a1_in1k",
    "ResNet50": "timm/resnet50.a1_in1k",
    "ResNet101": "timm/resnet101.a1h_in1k",
    "ResNet152": "timm/resnet152.a1h_in1k",
    "ResNet18V2": "timm/resnetv2_18.ra4_e3600_r224_in1k",
    "ResNet34V2": "timm/resnetv2_34.ra4_e3600_r224_in1k",
    "ResNet18D": "timm/resnet18d.ra2_in1k",
    "ResNet26D": "timm/resnet26d.bt_in1k",
    "ResNet34D": "timm/resnet34d.ra2_in1k",
    "ResNet50D": "timm/resnet50d.ra2_in1k",
    "ResNet101D": "timm/resnet101d.ra2_in1k",
    "ResNet152D": "timm/resnet152d.ra2_in1k",
    "ResNet200D": "timm/resnet200d.ra2_in1k",
    "ResNeXt50_32x4d": "timm/resnext50_32x4d.a1h_in1k",
    "ResNeXt101_32x8d": "timm/resnext101_32x8d.tv2_in1k",
    "ResNeXt101_64x4d": "timm/resnext101_64x4d.c1_in1k",
    "WideResNet50_2": "timm/wide_resnet50_2.racm_in1k",
    "WideResNet101_2": "timm/wide_resnet101_2.tv2_in1k",
    "SEResNet50": "timm/seresnet50.a1_in1k",
    "ResNetBlur50": "timm/resnetblur50.bt_in1k",
    "ResNetAA50": "timm/resnetaa50.a1h_in1k",
    **{
        f"ResNet{n}_BiT": f"timm/resnetv2_{n}_bit.goog_in21k_ft_in1k"
        for n in ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")
    },
    **{f"ResNetRS{n}": f"timm/resnetrs{n}.tf_in1k" for n in (50, 101, 152, 200, 270, 350, 420)},
}

KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
# File name's start, MD5 with the classifier and without: keras 3.15, applications/resnet.py.
KERAS: dict[str, tuple[str, str, str]] = {
    "ResNet50V1": (
        "resnet50",
        "2cb95161c43110f7111970584f804107",
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
    "ResNet101V1": (
        "resnet101",
        "f1aeb4b969a6efcfb50fad2f0c20cfc5",
        "88cf7a10940856eca736dc7b7e228a21",
    ),
    "ResNet152V1": (
        "resnet152",
        "100835be76be38e30d865e96f2aaae62",
        "ee4c566cf9a93f14d82f913c2dc6dd0c",
    ),
    "ResNet50V2": (
        "resnet50v2",
        "3ef43a0b657b3be2300d5770ece849e0",
        "fac2f116257151a9d068a22e544a4917",
    ),
    "ResNet101V2": (
        "resnet101v2",
        "6343647c601c52e1368623803854d971",
        "c0ed64b8031c3730f411d2eb4eea35b5",
    ),
    "ResNet152V2": (
        "resnet152v2",
        "a49b44d1979771252814e80f8ec446f9",
        "ed17cf2e0169df9d443503ef94b23b33",
    ),
}


def default_weights(variant: str) -> str:
    """The hub address, or the file name at `KERAS_URL`, of a variant's ImageNet weights.

    Raises:
        WeightsError: if there are none, naming the nearest variants that have some.
    """
    if variant in HUB:
        return f"hf://{HUB[variant]}"
    if variant in KERAS:
        return f"{KERAS[variant][0]}_weights_tf_dim_ordering_tf_kernels.h5"
    near = close_names(variant, [*HUB, *KERAS])
    raise WeightsError(
        f"There are no published ImageNet weights for {variant}."
        + (f" There are for {', '.join(near)}." if near else "")
    )
