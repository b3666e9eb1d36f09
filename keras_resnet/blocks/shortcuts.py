"""The way around a block's branch, and where both meet (He et al. 2015, section 3.3)."""

import dataclasses

import keras

from keras_resnet.axes import PerAxis, compact
from keras_resnet.blocks.common import Builder

# Option A of He et al. 2015, section 3.3, by where `PadChannels` puts the zeros.
ZERO_SHORTCUTS = {"A": "behind", "A-centered": "centered", "A-pooled": "pooled"}
SHORTCUTS = (*ZERO_SHORTCUTS, "B", "D")
PROJECTIONS = ("auto", "shape", "always")


def check_block(
    filters: int,
    stride: PerAxis,
    shortcut: str,
    residual: bool,
    drop_path_rate: float,
    projection: str,
) -> None:
    """Refuse what no block can do, quoting the value."""
    if projection not in PROJECTIONS:
        raise ValueError(
            "`projection` is 'auto', 'shape' (where channels or stride change) or 'always'; "
            f"received {projection!r}."
        )
    if projection != "auto" and shortcut in ZERO_SHORTCUTS:
        raise ValueError(
            f"`projection` is {projection!r}, but shortcut={shortcut!r} adds zero channels and has "
            "no projection: shortcut='B' or 'D' have."
        )
    if isinstance(filters, bool) or not isinstance(filters, int) or filters < 1:
        raise ValueError(f"`filters` must be a positive integer, received {filters!r}.")
    if shortcut not in SHORTCUTS:
        raise ValueError(
            "`shortcut` is 'A' (subsampling, zero channels behind), 'A-centered' (half of the "
            "zeros in front), 'A-pooled' (the same after an average pool), 'B' (1×1 projection "
            "where the shape changes) or 'D' (average pool, then projection); received "
            f"{shortcut!r}."
        )
    if drop_path_rate and not residual:
        raise ValueError(
            f"`drop_path_rate` is {drop_path_rate!r}, but a block without its shortcut "
            "(`residual=False`) has no path that could be dropped."
        )


@dataclasses.dataclass
class Shortcut:
    """The way around a block's branch.

    Post-activation blocks project wherever the shape changes, and normalize the projection.
    Pre-activation ones project where the number of channels changes, and only subsample otherwise.
    `projection` asks for more.
    """

    x: keras.KerasTensor  # the block's input
    stride: PerAxis
    dilations: tuple[PerAxis, PerAxis]  # of the strided kernel, and of those after it
    kind: str
    projection: str
    use_bias: bool
    preact: keras.KerasTensor | None = None  # `x` normalized and activated; None: post-activation
    preact_identity: bool = False
    normalize: bool = True  # the projection of a post-activation block

    def _projects(self, build: Builder, filters: int, strided: bool) -> bool:
        """Whether the shortcut is more than an identity or a subsampling."""
        if build.channels(self.x) != filters or self.projection == "always":
            return True
        if self.projection == "shape":
            return strided or self.dilations[0] != self.dilations[1]
        return strided and self.preact is None

    def build(self, build: Builder, filters: int, name: str) -> keras.KerasTensor:
        stride, preact = build.per_axis(self.stride, "stride"), self.preact
        strided = max(stride) > 1
        if not self._projects(build, filters, strided):
            x = preact if self.preact_identity else self.x
            if not strided:
                return x
            return build.layer("MaxPooling", 1, strides=stride, name=f"{name}_pool")(x)
        source = self.x if preact is None else preact
        if self.kind in ZERO_SHORTCUTS:
            placement = ZERO_SHORTCUTS[self.kind]
            return build.pad_channels(source, filters, compact(stride), placement, name=name)
        dilated = self._dilated(build, stride)
        if self.kind == "D" and (strided or any(dilated)):
            pool_name = f"{name}_pool"
            source = build.average_pool_for_shortcut(source, stride, dilated, name=pool_name)
            stride = (1,) * build.rank
        if preact is not None:
            conv_name = f"{name}_conv"
            return build.conv(source, filters, 1, stride, use_bias=self.use_bias, name=conv_name)
        options = {"use_bias": self.use_bias, "normalize": self.normalize, "activate": False}
        return build.conv_norm_act(source, filters, 1, stride, **options, name=name)

    def _dilated(self, build: Builder, stride: tuple[int, ...]) -> list[bool]:
        """The axes along which a dilation took the place of the stride."""
        first, then = (build.per_axis(value, "dilation") for value in self.dilations)
        return [s == 1 and a != b for s, a, b in zip(stride, first, then, strict=True)]


def join(build: Builder, y, shortcut: Shortcut | None, se_ratio, drop_path_rate, name, activate):
    """Gate the branch `y`, add the shortcut (None: a plain block), activate if asked."""
    if se_ratio:
        y = build.squeeze_excite(y, se_ratio, name=name)
    if shortcut is not None:
        y = build.drop_path(y, drop_path_rate, name=name)
        side = shortcut.build(build, build.channels(y), f"{name}_shortcut")
        y = build.add(y, side, name=name)
    return build.activate(y, name=f"{name}_out") if activate else y
