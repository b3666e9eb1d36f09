"""How the libraries name the parameters of a residual network, as rules from our layer names."""

import dataclasses
import re
from collections.abc import Iterable

_OURS = re.compile(r"stem_|stage\d+_block\d+_|final_|predictions$")
_BLOCK = re.compile(r"stage(\d+)_block(\d+)_(.+)")


@dataclasses.dataclass(frozen=True)
class NameScheme:
    """One library's names.

    Attributes:
        title: who names parameters like this, for messages.
        fingerprint: found in a name of every file in this scheme, and of no other.
        whole: the library's name of each of our layers outside the blocks.
        block: prefix of a block's layers, from `stage` (1...), `block` (1...) and the same
            counted from 0 (`stage0`, `block0`) or 2 (`stage2`).
        parts: (pattern, replacement) for our layer names inside a block.
        pooled_parts: as `parts` and before them, in networks with an average pool before the
            shortcut's convolution (ResNet-D).
        separator: between layer and variable.
        variables: the library's name of each kind of variable.
        torch_layout: kernels are out × in × space, instead of Keras' space × in × out.
        classifier_is_conv: the classifier's kernel has as many axes as those of convolutions.
        ignored: found in names that are no parameters.
        spellings: (pattern, replacement) for the file's names, one after the other: how others
            write what the scheme calls by the names above.
        shortcut: found in a spelled name of every parameter of a shortcut.
    """

    title: str
    fingerprint: str
    whole: dict[str, str]
    block: str
    parts: tuple[tuple[str, str], ...]
    separator: str
    variables: dict[str, str]
    pooled_parts: tuple[tuple[str, str], ...] = ()
    torch_layout: bool = False
    classifier_is_conv: bool = False
    ignored: str | None = None
    spellings: tuple[tuple[str, str], ...] = ()
    shortcut: str = "shortcut"

    def spell(self, name: str) -> str:
        """A file's name as this scheme writes it."""
        for pattern, replacement in self.spellings:
            name = re.sub(pattern, replacement, name)
        return name

    def ignores(self, name: str) -> bool:
        """Whether what a file has under this name is no parameter."""
        return self.ignored is not None and re.search(self.ignored, name) is not None

    def layer(self, name: str, pooled: bool = False) -> str | None:
        """The library's name of our layer; None if its networks have no such layer."""
        match = _BLOCK.fullmatch(name)
        if not match:
            return self.whole.get(name)
        stage, block = int(match[1]), int(match[2])
        prefix = self.block.format(
            stage=stage, block=block, stage0=stage - 1, block0=block - 1, stage2=stage + 1
        )
        for pattern, replacement in (*(self.pooled_parts if pooled else ()), *self.parts):
            part = re.fullmatch(pattern, match[3])
            if part:
                return prefix + part.expand(replacement)
        return None

    def variable(self, layer: str, variable: str, pooled: bool = False) -> str | None:
        """The library's name of our layer's variable; None if its networks have no such layer."""
        name = self.layer(layer, pooled)
        if name is None:
            return None
        return f"{name}{self.separator}{self.variables.get(variable, variable)}"

    @property
    def classifier(self) -> str:
        """What the names of the classifier's variables start with."""
        return self.whole["predictions"] + self.separator


# Counters of batch norm and of torch.optim.swa_utils.AveragedModel.
_TORCH_COUNTERS = r"(^|\.)(num_batches_tracked|n_averaged)$"
TORCH_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

TORCHVISION = NameScheme(
    title="torchvision's and timm's ResNet",
    fingerprint=r"^layer_?1\.0\.",
    whole={
        "stem_conv": "conv1",
        "stem_norm": "bn1",
        # Deep stem: a Sequential with an activation after each normalization.
        "stem_conv1": "conv1.0",
        "stem_norm1": "conv1.1",
        "stem_conv2": "conv1.3",
        "stem_norm2": "conv1.4",
        "stem_conv3": "conv1.6",
        "stem_norm3": "bn1",
        # ResNet-RS: a convolution where the max pool was.
        "stem_conv4": "maxpool.0",
        "stem_norm4": "maxpool.1",
        "stem_norm4_after_aa": "maxpool.2",
        "predictions": "fc",
    },
    block="layer{stage}.{block0}.",
    parts=(
        (r"conv(\d)", r"conv\1"),
        (r"norm(\d)", r"bn\1"),
        (r"shortcut_conv", r"downsample.0"),
        (r"shortcut_norm", r"downsample.1"),
        (r"se_reduce", r"se.fc1"),
        (r"se_expand", r"se.fc2"),
    ),
    pooled_parts=(
        (r"shortcut_conv", r"downsample.1"),
        (r"shortcut_norm", r"downsample.2"),
    ),
    separator=".",
    variables=TORCH_VARIABLES,
    torch_layout=True,
    ignored=_TORCH_COUNTERS,
    # The many ResNets in the style of torchvision's: those for CIFAR first of all.
    spellings=(
        (r"^layer_(\d)", r"layer\1"),
        (r"\b(conv|bn|norm)_(\d)\b", r"\1\2"),
        (r"\bnorm(\d)\b", r"bn\1"),
        # torchvision's networks of videos: a convolution and its normalization in one.
        (r"^(layer\d\.\d+)\.conv(\d)\.0\.", r"\1.conv\2."),
        (r"^(layer\d\.\d+)\.conv(\d)\.1\.", r"\1.bn\2."),
        (r"^stem\.(?:conv\.|0\.|conv1\.)", r"conv1."),
        (r"^stem\.(?:bn\.|norm\.|1\.|bn1\.)", r"bn1."),
        (r"\.(?:shortcut|skip|skip_connection|identity_downsample|projection)\.", r".downsample."),
        (r"\.downsample\.conv\d?\.", r".downsample.0."),
        (r"\.downsample\.(?:bn|norm)\d?\.", r".downsample.1."),
        (
            r"^(?:(?:fc|head|classifier|linear)\.\d|head\.fc|last_linear|linear|classifier|head)\."
            r"(weight|bias)$",
            r"fc.\1",
        ),
    ),
    shortcut=r"\.downsample\.",
)

_PREACTIVATION = (
    (r"conv(\d)", r"conv\1"),
    (r"preact_norm", r"norm1"),
    # The normalization after a convolution is counted with the next convolution.
    (r"norm1", r"norm2"),
    (r"norm2", r"norm3"),
    (r"shortcut_conv", r"downsample.conv"),
)
TIMM_V2 = NameScheme(
    title="timm's ResNetV2",
    fingerprint=r"^stages\.0\.blocks\.0\.",
    whole={
        "stem_conv": "stem.conv",
        **{f"stem_{part}{n}": f"stem.{part}{n}" for part in ("conv", "norm") for n in (1, 2, 3)},
        "final_norm": "norm",
        "predictions": "head.fc",
    },
    block="stages.{stage0}.blocks.{block0}.",
    parts=_PREACTIVATION,
    separator=".",
    variables=TORCH_VARIABLES,
    torch_layout=True,
    classifier_is_conv=True,
    ignored=_TORCH_COUNTERS,
    shortcut=r"\.downsample\.",
)

TRANSFORMERS = NameScheme(
    title="transformers' ResNet",
    fingerprint=r"^encoder\.stages\.0\.layers\.0\.(?:layer|shortcut)\.",
    whole={
        "stem_conv": "embedder.embedder.convolution",
        "stem_norm": "embedder.embedder.normalization",
        "predictions": "classifier.1",
    },
    block="encoder.stages.{stage0}.layers.{block0}.",
    parts=(
        (r"conv1", r"layer.0.convolution"),
        (r"conv2", r"layer.1.convolution"),
        (r"conv3", r"layer.2.convolution"),
        (r"norm1", r"layer.0.normalization"),
        (r"norm2", r"layer.1.normalization"),
        (r"norm3", r"layer.2.normalization"),
        (r"shortcut_conv", r"shortcut.convolution"),
        (r"shortcut_norm", r"shortcut.normalization"),
    ),
    separator=".",
    variables=TORCH_VARIABLES,
    torch_layout=True,
    ignored=_TORCH_COUNTERS,
    shortcut=r"\.shortcut\.",
)

TRANSFORMERS_BIT = NameScheme(
    title="transformers' BiT",
    fingerprint=r"^encoder\.stages\.0\.layers\.0\.(?:norm|conv)1\.",
    whole={
        "stem_conv": "embedder.convolution",
        "final_norm": "norm",
        "predictions": "classifier.1",
    },
    block="encoder.stages.{stage0}.layers.{block0}.",
    parts=_PREACTIVATION,
    separator=".",
    variables=TORCH_VARIABLES,
    torch_layout=True,
    shortcut=r"\.downsample\.",
)

# The .npz files of Kolesnikov et al. 2020.
GOOGLE_BIT = NameScheme(
    title="Google's Big Transfer",
    fingerprint=r"^resnet/block1/unit01/",
    whole={
        "stem_conv": "resnet/root_block/standardized_conv2d",
        "final_norm": "resnet/group_norm",
        "predictions": "resnet/head/conv2d",
    },
    block="resnet/block{stage}/unit{block:02d}/",
    parts=(
        (r"conv1", r"a/standardized_conv2d"),
        (r"conv2", r"b/standardized_conv2d"),
        (r"conv3", r"c/standardized_conv2d"),
        (r"preact_norm", r"a/group_norm"),
        (r"norm1", r"b/group_norm"),
        (r"norm2", r"c/group_norm"),
        (r"shortcut_conv", r"a/proj/standardized_conv2d"),
    ),
    separator="/",
    variables={},
    classifier_is_conv=True,
    ignored=r"^global_step$",
    shortcut=r"/proj/",
)

KERAS_APPLICATIONS = NameScheme(
    title="keras.applications",
    fingerprint=r"^conv2_block1_",
    whole={
        "stem_conv": "conv1_conv",
        "stem_norm": "conv1_bn",
        "final_norm": "post_bn",
        "predictions": "predictions",
    },
    # Its stages are counted with the stem as the first.
    shortcut=r"_0_",
    block="conv{stage2}_block{block}_",
    parts=(
        (r"conv(\d)", r"\1_conv"),
        (r"norm(\d)", r"\1_bn"),
        (r"shortcut_conv", r"0_conv"),
        (r"shortcut_norm", r"0_bn"),
        (r"preact_norm", r"preact_bn"),
    ),
    separator="/",
    variables={},
)


KERAS_HUB = NameScheme(
    title="KerasHub's ResNet",
    fingerprint=r"^stack0_block0_",
    whole={
        "stem_conv": "conv1_conv",
        "stem_norm": "conv1_bn",
        **{
            f"stem_{part}{n}": f"conv{n}_{theirs}"
            for part, theirs in (("conv", "conv"), ("norm", "bn"))
            for n in (1, 2, 3)
        },
        "final_norm": "post_bn",
        "predictions": "predictions",
    },
    block="stack{stage0}_block{block0}_",
    parts=(
        (r"conv(\d)", r"\1_conv"),
        (r"norm(\d)", r"\1_bn"),
        (r"shortcut_conv", r"0_conv"),
        (r"shortcut_norm", r"0_bn"),
        (r"preact_norm", r"pre_activation_bn"),
    ),
    separator="/",
    variables={},
    shortcut=r"_0_",
)


class _OwnScheme(NameScheme):
    """Our own names, kept as they are."""

    def layer(self, name: str, pooled: bool = False) -> str:
        return name


OURS = _OwnScheme(
    title="keras_resnet",
    fingerprint=r"^stage1_block1_",
    whole={"predictions": "predictions"},
    block="",
    parts=(),
    separator="/",
    variables={},
)

# Our names in the layouts of PyTorch and Keras: what `keras_resnet.weights.order` gives arrays.
_BY_ORDER_TORCH = _OwnScheme(
    title="order and shape",
    fingerprint=r"^stage1_block1_conv1\.",
    whole={"predictions": "predictions"},
    block="",
    parts=(),
    separator=".",
    variables=TORCH_VARIABLES,
    torch_layout=True,
    ignored=_TORCH_COUNTERS,
)
_BY_ORDER_KERAS = dataclasses.replace(OURS, title="order and shape")


def by_order(names: Iterable[str]) -> NameScheme:
    """Our names in the layout of a file, which the file's own names tell."""
    in_keras = any(name.endswith(("/kernel", "/gamma", "/moving_variance")) for name in names)
    return _BY_ORDER_KERAS if in_keras else _BY_ORDER_TORCH


SCHEMES = (
    OURS,
    TORCHVISION,
    TIMM_V2,
    TRANSFORMERS,
    TRANSFORMERS_BIT,
    GOOGLE_BIT,
    KERAS_APPLICATIONS,
    KERAS_HUB,
)


def is_ours(layer_name: str) -> bool:
    """Whether a layer of this name belongs to a network of `create_model`."""
    return _OURS.match(layer_name) is not None
