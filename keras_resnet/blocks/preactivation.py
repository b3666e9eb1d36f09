"""Residual blocks with normalization and activation before the convolutions (He et al. 2016)."""

import keras

from keras_resnet.blocks.common import Builder, block_name, check_block
from keras_resnet.blocks.postactivation import EXPANSION


def preact_basic_block(
    x,
    filters: int,
    stride: int = 1,
    *,
    dilation: int = 1,
    first_dilation: int | None = None,
    shortcut: str = "B",
    preact_shortcut: bool = False,
    residual: bool = True,
    dropout_rate: float = 0.0,
    se_ratio: float = 0.0,
    drop_path_rate: float = 0.0,
    use_bias: bool = False,
    name: str | None = None,
    **layer_options,
):
    """Two 3×3 convolutions, each after a normalization and an activation, and a shortcut.

    He et al., "Identity Mappings in Deep Residual Networks" (2016), figure 1 (b); the block of
    Zagoruyko and Komodakis, "Wide Residual Networks" (2016), too. A shortcut that changes the
    number of channels starts after the first activation; one that only has a stride subsamples.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: number of channels of both convolutions and of the output.
        stride: stride of the first convolution; n pixels become ceil(n / stride).
        dilation: spacing of the taps of the kernels after the place of the stride.
        first_dilation: spacing of the taps of the strided kernel itself; None is `dilation`.
        shortcut: what changes the number of channels: "A" appends zero channels, "B" is a 1×1
            convolution, "D" the same after an average pool that takes over the stride.
        preact_shortcut: let an identity shortcut start after the first activation too, as the
            paper has it for a network's first block (section 4.1, "special attention").
        residual: False leaves the shortcut and the sum out.
        dropout_rate: dropout before the last convolution (Zagoruyko 2016, section 2.4).
        se_ratio: width of the squeeze-and-excitation gate relative to the channels; 0: none.
        drop_path_rate: probability of dropping the branch for an example while training.
        use_bias: biases on the convolutions that no normalization follows (the last one and the
            shortcut's).
        name: prefix of the layers' names.
        **layer_options: `norm`, `activation`, `data_format`, `dtype` as in
            `keras_resnet.blocks.common.LayerOptions`.

    Returns:
        A Keras tensor with `filters` channels, neither normalized nor activated.

    Raises:
        ValueError: for an argument outside the ranges above.
    """
    check_block(filters, stride, shortcut, residual, drop_path_rate)
    name = block_name(name, "preact_basic_block")
    first_dilation = first_dilation or dilation
    build = Builder(x, layer_options)
    preact = build.norm_act(x, name=f"{name}_preact")
    y = build.conv_norm_act(preact, filters, 3, stride, dilation=first_dilation, name=name, index=1)
    y = _dropout(build, y, dropout_rate, name)
    y = build.conv(y, filters, 3, dilation=dilation, use_bias=use_bias, name=f"{name}_conv2")
    dilated = dilation != first_dilation
    source = (x, preact, stride, dilated, shortcut, preact_shortcut, use_bias)
    return _join(build, y, source if residual else None, se_ratio, drop_path_rate, name)


def preact_bottleneck_block(
    x,
    filters: int,
    stride: int = 1,
    *,
    groups: int = 1,
    width: int | None = None,
    stride_in_1x1: bool = False,
    dilation: int = 1,
    first_dilation: int | None = None,
    shortcut: str = "B",
    preact_shortcut: bool = False,
    residual: bool = True,
    dropout_rate: float = 0.0,
    se_ratio: float = 0.0,
    drop_path_rate: float = 0.0,
    use_bias: bool = False,
    name: str | None = None,
    **layer_options,
):
    """1×1, 3×3 and 1×1 convolution, each after a normalization and an activation, and a shortcut.

    He et al. 2016, section 4.1.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: nominal width; the output has `4 * filters` channels.
        stride: stride of the 3×3 convolution, or of the first 1×1 convolution if
            `stride_in_1x1` (the paper's authors' code).
        groups: groups of the 3×3 convolution.
        width: channels inside the block; None is `filters`.
        dilation: see `preact_basic_block`, as for all arguments not listed here.

    Returns:
        A Keras tensor with `4 * filters` channels, neither normalized nor activated.

    Raises:
        ValueError: for an argument outside the ranges above.
    """
    check_block(filters, stride, shortcut, residual, drop_path_rate)
    name = block_name(name, "preact_bottleneck_block")
    first_dilation = first_dilation or dilation
    width = width or filters
    build = Builder(x, layer_options)
    strides = (stride, 1) if stride_in_1x1 else (1, stride)
    preact = build.norm_act(x, name=f"{name}_preact")
    y = build.conv_norm_act(preact, width, 1, strides[0], name=name, index=1)
    y = build.conv_norm_act(
        y,
        width,
        3,
        strides[1],
        dilation=dilation if stride_in_1x1 else first_dilation,
        groups=groups,
        name=name,
        index=2,
    )
    y = _dropout(build, y, dropout_rate, name)
    y = build.conv(y, EXPANSION * filters, 1, use_bias=use_bias, name=f"{name}_conv3")
    dilated = dilation != first_dilation
    source = (x, preact, stride, dilated, shortcut, preact_shortcut, use_bias)
    return _join(build, y, source if residual else None, se_ratio, drop_path_rate, name)


def _dropout(build: Builder, y, rate, name):
    layer = keras.layers.Dropout(rate, dtype=build.options.dtype, name=f"{name}_dropout")
    return layer(y) if rate else y


def _join(build: Builder, y, source, se_ratio, drop_path_rate, name):
    """Gate the branch `y` and add the shortcut made from `source` (None: plain)."""
    if se_ratio:
        y = build.squeeze_excite(y, se_ratio, name=name)
    if source is None:
        return y
    y = build.drop_path(y, drop_path_rate, name=name)
    return build.add(y, _shortcut(build, *source, build.channels(y), name=name), name=name)


def _shortcut(
    build: Builder, x, preact, stride, dilated, kind, preact_identity, use_bias, filters, *, name
):
    name = f"{name}_shortcut"
    if build.channels(x) == filters:
        x = preact if preact_identity else x
        if stride == 1:
            return x
        return build.layer("MaxPooling", 1, strides=stride, name=f"{name}_pool")(x)
    if kind == "A":
        return build.pad_channels(preact, filters, stride, name=name)
    if kind == "D" and (stride > 1 or dilated):
        preact = build.average_pool_for_shortcut(preact, stride, name=f"{name}_pool")
        stride = 1
    return build.conv(preact, filters, 1, stride, use_bias=use_bias, name=f"{name}_conv")
