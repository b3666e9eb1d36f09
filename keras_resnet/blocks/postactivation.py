"""Residual blocks with the activation after the sum (He et al. 2015)."""

from keras_resnet.blocks.common import Builder, block_name, check_block

EXPANSION = 4  # He et al. 2015, section 4.1: a bottleneck's output has 4 times its width


def basic_block(
    x,
    filters: int,
    stride: int = 1,
    *,
    dilation: int = 1,
    first_dilation: int | None = None,
    shortcut: str = "B",
    residual: bool = True,
    se_ratio: float = 0.0,
    drop_path_rate: float = 0.0,
    zero_init_last_gamma: bool = True,
    use_bias: bool = False,
    name: str | None = None,
    **layer_options,
):
    """Two 3×3 convolutions and a shortcut: He et al., "Deep Residual Learning" (2015), figure 2.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: number of channels of both convolutions and of the output.
        stride: stride of the first convolution; n pixels become ceil(n / stride).
        dilation: spacing of the taps of the kernels after the place of the stride.
        first_dilation: spacing of the taps of the strided kernel itself; None is `dilation`.
            Where a dilation replaces a stride, this is the dilation of the stage before.
        shortcut: what the shortcut does where the shape changes: "A" subsamples and appends zero
            channels, "B" is a 1×1 convolution (both: He et al. 2015, section 3.3), "D" an average
            pool before an unstrided 1×1 convolution (He et al. 2019, section 4.2).
        residual: False leaves the shortcut and the sum out: a block of the paper's plain networks.
        se_ratio: width of the squeeze-and-excitation gate relative to the channels; 0: none.
        drop_path_rate: probability of dropping the branch for an example while training.
        zero_init_last_gamma: start the last normalization's gamma at 0, so that the block starts
            as the identity (Goyal et al. 2017, section 5.1). Without effect if not `residual`.
        use_bias: whether the convolutions have biases.
        name: prefix of the layers' names.
        **layer_options: `norm`, `activation`, `data_format`, `dtype` as in
            `keras_resnet.blocks.common.LayerOptions`.

    Returns:
        A Keras tensor with `filters` channels.

    Raises:
        ValueError: for an argument outside the ranges above.
    """
    check_block(filters, stride, shortcut, residual, drop_path_rate)
    name = block_name(name, "basic_block")
    first_dilation = first_dilation or dilation
    build = Builder(x, layer_options)
    y = build.conv_norm_act(
        x, filters, 3, stride, dilation=first_dilation, use_bias=use_bias, name=name, index=1
    )
    y = build.conv_norm_act(
        y,
        filters,
        3,
        dilation=dilation,
        use_bias=use_bias,
        zero_gamma=zero_init_last_gamma and residual,
        activate=False,
        name=name,
        index=2,
    )
    dilated = dilation != first_dilation
    source = (x, stride, dilated, shortcut, use_bias) if residual else None
    return _join(build, y, source, se_ratio, drop_path_rate, name)


def bottleneck_block(
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
    residual: bool = True,
    se_ratio: float = 0.0,
    drop_path_rate: float = 0.0,
    zero_init_last_gamma: bool = True,
    use_bias: bool = False,
    name: str | None = None,
    **layer_options,
):
    """1×1, 3×3 and 1×1 convolution and a shortcut: He et al. 2015, figure 5.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: nominal width; the output has `4 * filters` channels.
        stride: stride of the 3×3 convolution (v1.5, Goyal et al. 2017, section 5.1), or of the
            first 1×1 convolution if `stride_in_1x1` (the paper of 2015).
        groups: groups of the 3×3 convolution (ResNeXt, Xie et al. 2017).
        width: channels inside the block; None is `filters`. ResNeXt and wide nets have more.
        dilation: see `basic_block`, as for all arguments not listed here.

    Returns:
        A Keras tensor with `4 * filters` channels.

    Raises:
        ValueError: for an argument outside the ranges above.
    """
    check_block(filters, stride, shortcut, residual, drop_path_rate)
    name = block_name(name, "bottleneck_block")
    first_dilation = first_dilation or dilation
    width = width or filters
    build = Builder(x, layer_options)
    strides = (stride, 1) if stride_in_1x1 else (1, stride)
    y = build.conv_norm_act(x, width, 1, strides[0], use_bias=use_bias, name=name, index=1)
    y = build.conv_norm_act(
        y,
        width,
        3,
        strides[1],
        dilation=dilation if stride_in_1x1 else first_dilation,
        groups=groups,
        use_bias=use_bias,
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
    dilated = dilation != first_dilation
    source = (x, stride, dilated, shortcut, use_bias) if residual else None
    return _join(build, y, source, se_ratio, drop_path_rate, name)


def _join(build: Builder, y, source, se_ratio, drop_path_rate, name):
    """Gate the branch `y`, add the shortcut made from `source` (None: plain), activate."""
    if se_ratio:
        y = build.squeeze_excite(y, se_ratio, name=name)
    if source is not None:
        y = build.drop_path(y, drop_path_rate, name=name)
        y = build.add(y, _shortcut(build, *source, build.channels(y), name=name), name=name)
    return build.activate(y, name=f"{name}_out")


def _shortcut(build: Builder, x, stride, dilated, kind, use_bias, filters, *, name):
    if stride == 1 and build.channels(x) == filters:
        return x
    name = f"{name}_shortcut"
    if kind == "A":
        return build.pad_channels(x, filters, stride, name=name)
    if kind == "D" and (stride > 1 or dilated):
        x = build.average_pool_for_shortcut(x, stride, name=f"{name}_pool")
        stride = 1
    return build.conv_norm_act(x, filters, 1, stride, use_bias=use_bias, activate=False, name=name)
