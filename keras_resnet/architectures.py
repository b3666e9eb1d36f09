"""The table of variants: a network is a row, `keras_resnet.models` builds it."""

import dataclasses
import fnmatch
from typing import Any

from keras_resnet.errors import did_you_mean

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One variant. Every field can be overridden in `create_model(name, field=value)`.

    Attributes:
        name: the name users type.
        source: what the row follows: paper and section, or the library whose layers it equals.
        depths: number of blocks per stage.
        widths: nominal width of each stage; a bottleneck's output has four times as many channels.
        bottleneck: bottleneck blocks instead of basic ones.
        preactivation: normalization and activation before the convolutions (v2).
        stem: see `keras_resnet.blocks.stem`.
        stem_width: channels of the stem's output.
        zero_pad_pool: see `keras_resnet.blocks.stem`.
        shortcut: "A", "B" or "D", see `keras_resnet.blocks.basic_block`.
        groups, base_width: a bottleneck is `int(width * base_width / 64) * groups` channels wide
            inside, its 3×3 convolution has that many groups (Xie et al. 2017, section 3).
        stride_in_1x1: stride in a bottleneck's first 1×1 convolution (He et al. 2015).
        stride_in_last_block: stride in the last block of a stage instead of the next stage's
            first (keras.applications' v2).
        preact_first_shortcut: the first block's identity shortcut starts after its activation.
        use_bias: biases on the convolutions; with `preactivation` only where no normalization
            follows directly.
        epsilon: epsilon of the normalizations.
        residual: False for the plain twin of the network.
        se_ratio: relative width of the squeeze-and-excitation gate, 0 for none.
        dropout_rate: dropout before the classifier.
        block_dropout_rate: dropout before the last convolution of a pre-activation block.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, linearly.
        classes: number of classes.
        image_size: native input size in pixels; with the fields that follow it is the
            preprocessing of a model whose weights do not bring their own.
        crop_ratio: the image's share of the resized one, at evaluation.
        interpolation: how images are resized.
        mean, std: of pixels scaled to 0..1, in the order of `channel_order`.
        channel_order: "rgb" or "bgr".
    """

    name: str
    source: str
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = True
    preactivation: bool = False
    stem: str = "imagenet"
    stem_width: int = 64
    zero_pad_pool: bool = True
    shortcut: str = "B"
    groups: int = 1
    base_width: int = 64
    stride_in_1x1: bool = False
    stride_in_last_block: bool = False
    preact_first_shortcut: bool = False
    use_bias: bool = False
    epsilon: float = 1e-5
    residual: bool = True
    se_ratio: float = 0.0
    dropout_rate: float = 0.0
    block_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    classes: int = 1000
    image_size: int = 224
    crop_ratio: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channel_order: str = "rgb"

    @property
    def stem_stride(self) -> int:
        return 1 if self.stem == "cifar" else 4

    @property
    def stride(self) -> int:
        """Pixels of the input per pixel of the last feature map, without dilation."""
        return self.stem_stride * 2 ** (len(self.depths) - 1)

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {
            "image_size": self.image_size,
            "crop_ratio": self.crop_ratio,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
            "channel_order": self.channel_order,
        }


DEPTHS = {
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
RS_DEPTHS = {270: (4, 29, 53, 4), 350: (4, 36, 72, 4), 420: (4, 44, 87, 4)}


def _imagenet(pattern: str, layers: int, source: str, **fields) -> Architecture:
    depths = DEPTHS.get(layers) or RS_DEPTHS[layers]
    name = pattern.format(layers)
    return Architecture(name, source, depths, bottleneck=layers not in (18, 34), **fields)


def _v1_5():
    for layers in (18, 34, 50, 101, 152):
        yield _imagenet("ResNet{}", layers, f"torchvision resnet{layers}")
    yield _imagenet("ResNet{}", 200, "timm resnet200")


def _v1():
    """Stride in the first 1×1 convolution, biases everywhere: keras.applications' v1."""
    for layers in (50, 101, 152):
        yield _imagenet(
            "ResNet{}V1",
            layers,
            f"keras.applications ResNet{layers}",
            stride_in_1x1=True,
            use_bias=True,
            epsilon=1.001e-5,
            # "caffe" mode: BGR pixels of 0..255 minus the mean, no scaling.
            mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),
            std=(1 / 255, 1 / 255, 1 / 255),
            channel_order="bgr",
        )


def _v2():
    """keras.applications has 50, 101 and 152; the others are He et al. 2016 as timm has it."""
    for layers in (50, 101, 152):
        yield _imagenet(
            "ResNet{}V2",
            layers,
            f"keras.applications ResNet{layers}V2",
            preactivation=True,
            stride_in_last_block=True,
            use_bias=True,
            epsilon=1.001e-5,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        )
    for layers in (18, 34, 200):
        source = "He et al. 2016, section 5" if layers == 200 else f"timm resnetv2_{layers}"
        yield _imagenet("ResNet{}V2", layers, source, preactivation=True, zero_pad_pool=False)


def _d():
    for layers in (18, 26, 34, 50, 101, 152, 200):
        size = {"image_size": 256, "crop_ratio": 0.95} if layers > 100 else {}
        yield _imagenet(
            "ResNet{}D",
            layers,
            f"timm resnet{layers}d",
            stem="deep",
            shortcut="D",
            interpolation="bicubic",
            **size,
        )


def _resnext_wide_and_se():
    for layers, groups, base_width in ((50, 32, 4), (101, 32, 8), (101, 64, 4)):
        kind = f"{groups}x{base_width}d"
        yield _imagenet(
            f"ResNeXt{{}}_{kind}",
            layers,
            f"torchvision resnext{layers}_{kind}",
            groups=groups,
            base_width=base_width,
        )
    for layers in (50, 101):
        source = f"torchvision wide_resnet{layers}_2"
        yield _imagenet("WideResNet{}_2", layers, source, base_width=128)
    for layers in (18, 34, 50, 101, 152):
        yield _imagenet(
            "SEResNet{}",
            layers,
            f"timm seresnet{layers}",
            se_ratio=1 / 16,
            interpolation="bicubic",
        )


def _rs():
    """Bello et al. 2021, table 1 and appendix; regularization as in the authors' code."""
    for layers, image_size, crop_ratio, dropout_rate, drop_path_rate in (
        (50, 160, 0.91, 0.25, 0.0),
        (101, 192, 0.94, 0.25, 0.0),
        (152, 256, 1.0, 0.25, 0.0),
        (200, 256, 1.0, 0.25, 0.1),
        (270, 256, 1.0, 0.25, 0.1),
        (350, 288, 1.0, 0.4, 0.1),
        (420, 320, 1.0, 0.4, 0.1),
    ):
        yield _imagenet(
            "ResNetRS{}",
            layers,
            f"timm resnetrs{layers}",
            stem="deep_strided",
            shortcut="D",
            se_ratio=0.25,
            dropout_rate=dropout_rate,
            drop_path_rate=drop_path_rate,
            image_size=image_size,
            crop_ratio=crop_ratio,
            interpolation="bicubic",
        )


def _cifar_row(name: str, source: str, blocks: int, **fields) -> Architecture:
    defaults = {
        "widths": (16, 32, 64),
        "bottleneck": False,
        "stem": "cifar",
        "stem_width": 16,
        "classes": 10,
        "image_size": 32,
        "crop_ratio": 1.0,
        "mean": CIFAR_MEAN,
        "std": CIFAR_STD,
    }
    return Architecture(name, source, (blocks,) * 3, **{**defaults, **fields})


def _cifar():
    for layers in (20, 32, 44, 56, 110, 1202):
        source = "He et al. 2015, section 4.2"
        yield _cifar_row(f"CifarResNet{layers}", source, (layers - 2) // 6, shortcut="A")
    source = "He et al. 2016, section 3 and appendix"
    yield _cifar_row(
        "CifarResNet110V2",
        source,
        18,
        preactivation=True,
        shortcut="A",
        preact_first_shortcut=True,
    )
    for layers in (164, 1001):
        yield _cifar_row(
            f"CifarResNet{layers}V2",
            source,
            (layers - 2) // 9,
            preactivation=True,
            bottleneck=True,
            stride_in_1x1=True,
        )
    for layers, factor in ((16, 4), (16, 8), (22, 8), (28, 2), (28, 10), (40, 2), (40, 4)):
        yield _cifar_row(
            f"WideResNet{layers}_{factor}",
            "Zagoruyko and Komodakis 2016, section 2.3",
            (layers - 4) // 6,
            preactivation=True,
            widths=(16 * factor, 32 * factor, 64 * factor),
        )


ARCHITECTURES: dict[str, Architecture] = {
    row.name: row
    for family in (_v1_5, _v1, _v2, _d, _resnext_wide_and_se, _rs, _cifar)
    for row in family()
}


def list_models(pattern: str | None = None) -> list[str]:
    """Names that `create_model` knows, in the table's order.

    Args:
        pattern: keep the names that match it, case-insensitive, with the shell's wildcards
            (`"*V2"`, `"cifar*"`); None keeps all.
    """
    names = list(ARCHITECTURES)
    if pattern is None:
        return names
    return [name for name in names if fnmatch.fnmatch(name.lower(), pattern.lower())]


def get_architecture(name: str, **overrides) -> Architecture:
    """The row of that name, with fields replaced.

    Raises:
        ValueError: for an unknown name or field, naming the nearest ones.
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        hint = " keras_resnet.list_models() has the names."
        raise ValueError(f"There is no model {name!r}.{did_you_mean(name, ARCHITECTURES) or hint}")
    fields = {field.name for field in dataclasses.fields(Architecture)} - {"name", "source"}
    for key in overrides:
        if key not in fields:
            # Beside the fields the arguments that people know by other names.
            hint = did_you_mean(key, [*sorted(fields), "weights", "input_shape", "pooling"])
            raise TypeError(f"create_model takes no argument {key!r}.{hint}")
    for key in ("depths", "widths"):
        if key in overrides:
            overrides[key] = _positive_integers(key, overrides[key])
    row = dataclasses.replace(ARCHITECTURES[name], **overrides)
    if len(row.depths) != len(row.widths):
        raise ValueError(
            "`depths` and `widths` need one number per stage each, received "
            f"depths={row.depths} and widths={row.widths}."
        )
    return row


def _positive_integers(key: str, values) -> tuple[int, ...]:
    values = tuple(values)
    if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(f"`{key}` must hold a positive integer per stage, received {values!r}.")
    return values
