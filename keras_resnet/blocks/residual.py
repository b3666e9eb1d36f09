"""Residual blocks: activation after the sum (He et al. 2015) or before the convolutions (2016)."""

from collections.abc import Callable
from typing import Any

import keras

from keras_resnet.axes import PerAxis
from keras_resnet.blocks.common import Builder, block_name
from keras_resnet.blocks.shortcuts import Shortcut, check_block, join

EXPANSION = 4  # He et al. 2015, section 4.1: a bottleneck's output has 4 times its width


def basic_block(
    x: keras.KerasTensor,
    filters: int,
    stride: PerAxis = 1,
    *,
    kernel_size: PerAxis = 3,
    dilation: PerAxis = 1,
    first_dilation: PerAxis | None = None,
    shortcut: str = "B",
    residual: bool = True,
    se_ratio: float = 0.0,
    drop_path_rate: float = 0.0,
    zero_init_last_gamma: bool = True,
    use_bias: bool = False,
    projection: str = "auto",
    shortcut_norm: bool = True,
    name: str | None = None,
    **layer_options: Any,
) -> keras.KerasTensor:
    """Two 3×3 convolutions and a shortcut: He et al., "Deep Residual Learning" (2015), figure 2.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: number of channels of both convolutions and of the output.
        stride: stride of the first convolution, a number or one for each spatial axis; n pixels
            become ceil(n / stride).
        kernel_size: of both convolutions, likewise; odd unless `padding` is "same".
        dilation: spacing of the taps of the kernels after the place of the stride, likewise.
        first_dilation: spacing of the taps of the strided kernel itself; None is `dilation`.
            Where a dilation replaces a stride, this is the dilation of the stage before.
        shortcut: what the shortcut does where the shape changes: "A" subsamples and appends zero
            channels, "B" is a 1×1 convolution (both: He et al. 2015, section 3.3), "D" an average
            pool before an unstrided 1×1 convolution (He et al. 2019, section 4.2). "A-centered"
            puts half of the zero channels in front, "A-pooled" does so after an average pool in
            place of the subsampling: what many PyTorch ports of option A do.
        residual: False leaves the shortcut and the sum out: a block of the paper's plain networks.
        se_ratio: width of the squeeze-and-excitation gate relative to the channels; 0: none.
        drop_path_rate: probability of dropping the branch for an example while training.
        zero_init_last_gamma: start the last normalization's gamma at 0, so that the block starts
            as the identity (Goyal et al. 2017, section 5.1). Without effect if not `residual`.
        use_bias: whether the convolutions have biases.
        projection: where the shortcut is a projection: "auto" and "shape" have one where the
            number of channels or the stride changes, "always" in any case, as KerasHub's
            ResNet-vd has it in a network's first block.
        shortcut_norm: normalize the projection.
        name: prefix of the layers' names.
        **layer_options: as in `keras_resnet.blocks.options.LayerOptions`.

    Returns:
        A Keras tensor with `filters` channels.

    Raises:
        ValueError: for an argument outside the ranges above.
    """
    check_block(filters, stride, shortcut, residual, drop_path_rate, projection)
    name = block_name(name, "basic_block")
    first_dilation = first_dilation or dilation
    dilations = (first_dilation, dilation)
    build = Builder(x, layer_options)
    y = build.conv_norm_act(
        x,
        filters,
        kernel_size,
        stride,
        dilation=first_dilation,
        use_bias=use_bias,
        antialiased=dilations,
        name=name,
        index=1,
    )
    y = build.conv_norm_act(
        y,
        filters,
        kernel_size,
        dilation=dilation,
        use_bias=use_bias,
        zero_gamma=zero_init_last_gamma and residual,
        activate=False,
        name=name,
        index=2,
    )
    side = Shortcut(x, stride, dilations, shortcut, projection, use_bias, normalize=shortcut_norm)
    return join(build, y, side if residual else None, se_ratio, drop_path_rate, name, activate=True)


def bottleneck_block(
    x: keras.KerasTensor,
    filters: int,
    stride: PerAxis = 1,
    *,
    kernel_size: PerAxis = 3,
    groups: int = 1,
    width: int | None = None,
    stride_in_1x1: bool = False,
    dilation: PerAxis = 1,
    first_dilation: PerAxis | None = None,
    shortcut: str = "B",
    residual: bool = True,
    se_ratio: float = 0.0,
    drop_path_rate: float = 0.0,
    zero_init_last_gamma: bool = True,
    use_bias: bool = False,
    projection: str = "auto",
    shortcut_norm: bool = True,
    name: str | None = None,
    **layer_options: Any,
) -> keras.KerasTensor:
    """1×1, 3×3 and 1×1 convolution and a shortcut: He et al. 2015, figure 5.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: nominal width; the output has `4 * filters` channels.
        stride: stride of the 3×3 convolution (v1.5, Goyal et al. 2017, section 5.1), or of the
            first 1×1 convolution if `stride_in_1x1` (the paper of 2015).
        kernel_size: of the 3×3 convolution, a number or one for each spatial axis.
        groups: groups of the 3×3 convolution (ResNeXt, Xie et al. 2017).
        width: channels inside the block; None is `filters`. ResNeXt and wide nets have more.
        dilation: see `basic_block`, as for all arguments not listed here.

    Returns:
        A Keras tensor with `4 * filters` channels.

    Raises:
        ValueError: for an argument outside the ranges above.
    """
    check_block(filters, stride, shortcut, residual, drop_path_rate, projection)
    name = block_name(name, "bottleneck_block")
    first_dilation = first_dilation or dilation
    dilations = (first_dilation, dilation)
    width = width or filters
    build = Builder(x, layer_options)
    strides = (stride, 1) if stride_in_1x1 else (1, stride)
    places = (dilations, None) if stride_in_1x1 else (None, dilations)
    y = build.conv_norm_act(
        x, width, 1, strides[0], use_bias=use_bias, antialiased=places[0], name=name, index=1
    )
    y = build.conv_norm_act(
        y,
        width,
        kernel_size,
        strides[1],
        dilation=dilation if stride_in_1x1 else first_dilation,
        groups=groups,
        use_bias=use_bias,
        antialiased=places[1],
        name=name,
        index=2,
    )
    y = build.conv_norm_act(
        y,
        EXPANSION * filters,
        1,
        use_bias=use_bias,
        zero_gamma=zero_init_last_gamma and residual,
        activate=False,
        name=name,
        index=3,
    )
    side = Shortcut(x, stride, dilations, shortcut, projection, use_bias, normalize=shortcut_norm)
    return join(build, y, side if residual else None, se_ratio, drop_path_rate, name, activate=True)


def preact_basic_block(
    x: keras.KerasTensor,
    filters: int,
    stride: PerAxis = 1,
    *,
    kernel_size: PerAxis = 3,
    dilation: PerAxis = 1,
    first_dilation: PerAxis | None = None,
    shortcut: str = "B",
    preact_shortcut: bool = False,
    residual: bool = True,
    dropout_rate: float = 0.0,
    se_ratio: float = 0.0,
    drop_path_rate: float = 0.0,
    use_bias: bool = False,
    projection: str = "auto",
    name: str | None = None,
    **layer_options: Any,
) -> keras.KerasTensor:
    """Two 3×3 convolutions, each after a normalization and an activation, and a shortcut.

    He et al., "Identity Mappings in Deep Residual Networks" (2016), figure 1 (b); the block of
    Zagoruyko and Komodakis, "Wide Residual Networks" (2016), too. A shortcut that changes the
    number of channels starts after the first activation; one that only has a stride subsamples.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: number of channels of both convolutions and of the output.
        stride: stride of the first convolution, a number or one for each spatial axis; n pixels
            become ceil(n / stride).
        kernel_size: of both convolutions, likewise; odd unless `padding` is "same".
        dilation: spacing of the taps of the kernels after the place of the stride, likewise.
        first_dilation: spacing of the taps of the strided kernel itself; None is `dilation`.
        shortcut: what changes the number of channels: "A" appends zero channels ("A-centered" and
            "A-pooled" as in `basic_block`), "B" is a 1×1 convolution, "D" the same after an
            average pool that takes over the stride.
        preact_shortcut: let an identity shortcut start after the first activation too, as the
            paper has it for a network's first block (section 4.1, "special attention").
        residual: False leaves the shortcut and the sum out.
        dropout_rate: dropout before the last convolution (Zagoruyko 2016, section 2.4).
        se_ratio: width of the squeeze-and-excitation gate relative to the channels; 0: none.
        drop_path_rate: probability of dropping the branch for an example while training.
        use_bias: biases on the convolutions that no normalization follows (the last one and the
            shortcut's).
        projection: where the shortcut is a projection: "auto" has one where the number of channels
            changes, "shape" where the stride changes, too (timm), "always" in any case, as Big
            Transfer has it in the first block of each stage.
        name: prefix of the layers' names.
        **layer_options: as in `keras_resnet.blocks.options.LayerOptions`.

    Returns:
        A Keras tensor with `filters` channels, neither normalized nor activated.

    Raises:
        ValueError: for an argument outside the ranges above.
    """
    check_block(filters, stride, shortcut, residual, drop_path_rate, projection)
    name = block_name(name, "preact_basic_block")
    first_dilation = first_dilation or dilation
    dilations = (first_dilation, dilation)
    build = Builder(x, layer_options)
    preact = build.norm_act(x, name=f"{name}_preact")
    y = build.conv_norm_act(
        preact,
        filters,
        kernel_size,
        stride,
        dilation=first_dilation,
        antialiased=dilations,
        name=name,
        index=1,
    )
    y = _dropout(build, y, dropout_rate, name)
    y = build.conv(
        y, filters, kernel_size, dilation=dilation, use_bias=use_bias, name=f"{name}_conv2"
    )
    ways = (preact, preact_shortcut)
    side = Shortcut(x, stride, dilations, shortcut, projection, use_bias, *ways)
    return join(
        build, y, side if residual else None, se_ratio, drop_path_rate, name, activate=False
    )


def preact_bottleneck_block(
    x: keras.KerasTensor,
    filters: int,
    stride: PerAxis = 1,
    *,
    kernel_size: PerAxis = 3,
    groups: int = 1,
    width: int | None = None,
    stride_in_1x1: bool = False,
    dilation: PerAxis = 1,
    first_dilation: PerAxis | None = None,
    shortcut: str = "B",
    preact_shortcut: bool = False,
    residual: bool = True,
    dropout_rate: float = 0.0,
    se_ratio: float = 0.0,
    drop_path_rate: float = 0.0,
    use_bias: bool = False,
    projection: str = "auto",
    name: str | None = None,
    **layer_options: Any,
) -> keras.KerasTensor:
    """1×1, 3×3 and 1×1 convolution, each after a normalization and an activation, and a shortcut.

    He et al. 2016, section 4.1.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: nominal width; the output has `4 * filters` channels.
        stride: stride of the 3×3 convolution, or of the first 1×1 convolution if
            `stride_in_1x1` (the paper's authors' code).
        kernel_size: of the 3×3 convolution, a number or one for each spatial axis.
        groups: groups of the 3×3 convolution.
        width: channels inside the block; None is `filters`.
        dilation: see `preact_basic_block`, as for all arguments not listed here.

    Returns:
        A Keras tensor with `4 * filters` channels, neither normalized nor activated.

    Raises:
        ValueError: for an argument outside the ranges above.
    """
    check_block(filters, stride, shortcut, residual, drop_path_rate, projection)
    name = block_name(name, "preact_bottleneck_block")
    first_dilation = first_dilation or dilation
    dilations = (first_dilation, dilation)
    width = width or filters
    build = Builder(x, layer_options)
    strides = (stride, 1) if stride_in_1x1 else (1, stride)
    places = (dilations, None) if stride_in_1x1 else (None, dilations)
    preact = build.norm_act(x, name=f"{name}_preact")
    y = build.conv_norm_act(preact, width, 1, strides[0], antialiased=places[0], name=name, index=1)
    y = build.conv_norm_act(
        y,
        width,
        kernel_size,
        strides[1],
        dilation=dilation if stride_in_1x1 else first_dilation,
        groups=groups,
        antialiased=places[1],
        name=name,
        index=2,
    )
    y = _dropout(build, y, dropout_rate, name)
    y = build.conv(y, EXPANSION * filters, 1, use_bias=use_bias, name=f"{name}_conv3")
    ways = (preact, preact_shortcut)
    side = Shortcut(x, stride, dilations, shortcut, projection, use_bias, *ways)
    return join(
        build, y, side if residual else None, se_ratio, drop_path_rate, name, activate=False
    )


# What `create_model(block=...)` and the table call by name; a new block is a line here.
BLOCKS: dict[str, Callable[..., keras.KerasTensor]] = {
    "basic": basic_block,
    "bottleneck": bottleneck_block,
}
# The same in pre-activation networks.
PREACT_BLOCKS: dict[str, Callable[..., keras.KerasTensor]] = {
    "basic": preact_basic_block,
    "bottleneck": preact_bottleneck_block,
}


def _dropout(build: Builder, y, rate, name):
    layer = keras.layers.Dropout(rate, dtype=build.options.dtype, name=f"{name}_dropout")
    return layer(y) if rate else y
