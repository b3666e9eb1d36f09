"""What every block is made of: convolution, normalization, activation, shortcut, squeeze."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_resnet.axes import PerAxis, compact, per_axis
from keras_resnet.blocks.normalization import class_of, make_layer, make_normalization
from keras_resnet.blocks.options import LayerOptions
from keras_resnet.layers import BlurPool, PadChannels, StochasticDepth
from keras_resnet.layers.standardized_conv import STANDARDIZED_CONVOLUTIONS
from keras_resnet.layers.subsampling_conv import SUBSAMPLING_CONVOLUTIONS, corrupts_memory


class Builder:
    """Applies layers of the right rank to tensors; `options` as in `LayerOptions`."""

    def __init__(self, x: keras.KerasTensor, options: Mapping[str, Any]):
        if len(x.shape) not in (3, 4, 5):
            raise ValueError(
                "A block takes a tensor of rank 3, 4 or 5 (batch, 1 to 3 spatial axes, channels); "
                f"received the shape {tuple(x.shape)}."
            )
        self.options = LayerOptions(**options)
        self.rank = len(x.shape) - 2
        self.axis = -1 if self.options.data_format == "channels_last" else 1
        if x.shape[self.axis] is None:
            raise ValueError(
                f"The number of channels (axis {self.axis}) must be known, received the shape "
                f"{tuple(x.shape)}."
            )

    def channels(self, x) -> int:
        return x.shape[self.axis]

    def per_axis(self, value, argument: str) -> tuple[int, ...]:
        """A number for each spatial axis."""
        return per_axis(value, self.rank, argument)

    def layer(self, kind: str, *args, **kwargs):
        """A Keras layer that exists once per rank, such as `Conv1D`, `Conv2D`, `Conv3D`."""
        cls = getattr(keras.layers, f"{kind}{self.rank}D")
        options = self.options
        return cls(*args, data_format=options.data_format, dtype=options.dtype, **kwargs)

    def conv(
        self,
        x,
        filters,
        kernel_size,
        stride=1,
        dilation=1,
        groups=1,
        use_bias=False,
        *,
        standardized=None,
        name,
    ):
        """Convolution, padded as `LayerOptions.padding` says.

        Keras' "same" pads an even size with stride 2 on one side only, which shifts the grid by
        a pixel against every weight file that comes from PyTorch; for "symmetric", PyTorch's
        `padding=dilation*(k//2)`, a strided kernel is padded by a layer of its own. Kernels are
        drawn as `LayerOptions.kernel_initializer` says, and standardized if the options say so,
        unless `standardized` is False.
        """
        options = self.options
        kernel = self.per_axis(kernel_size, "kernel_size")
        strides = self.per_axis(stride, "stride")
        dilations = self.per_axis(dilation, "dilation")
        self._check_kernel(kernel, strides, dilations)
        symmetric = options.padding == "symmetric"
        if symmetric and max(strides) > 1 and max(kernel) > 1:
            border = [d * (k // 2) for k, d in zip(kernel, dilations, strict=True)]
            x = self.layer("ZeroPadding", compact(border), name=f"{name}_pad")(x)
        make = getattr(keras.layers, f"Conv{self.rank}D")
        if options.weight_standardization and standardized is not False:
            make = STANDARDIZED_CONVOLUTIONS[self.rank]
        elif corrupts_memory(kernel, strides, self.channels(x)):
            make = SUBSAMPLING_CONVOLUTIONS[self.rank]
        return make(
            filters,
            kernel,
            strides=strides,
            padding="valid" if symmetric and max(strides) > 1 else "same",
            data_format=options.data_format,
            dilation_rate=dilations,
            groups=groups,
            use_bias=use_bias,
            kernel_initializer=options.make_kernel_initializer(),
            dtype=options.dtype,
            name=name,
        )(x)

    def _check_kernel(self, kernel, strides, dilations) -> None:
        if self.options.padding == "symmetric" and any(size % 2 == 0 for size in kernel):
            raise ValueError(
                f"`kernel_size` is {compact(kernel)!r}: an even kernel has no middle for symmetric "
                "padding. padding='same' takes it."
            )
        if max(kernel) > 1 and max(strides) > 1 and max(dilations) > 1:
            raise ValueError(
                f"A kernel cannot have the stride {compact(strides)!r} and the dilation "
                f"{compact(dilations)!r} at once: take an `output_stride` (or a `dilation`) with "
                "which no stage needs both."
            )

    def normalize(self, x, *, zero_gamma=False, name):
        options = self.options
        return make_normalization(
            options.norm_layer,
            channels=self.channels(x),
            axis=self.axis,
            norm=options.norm or {},
            zero_gamma=zero_gamma,
            dtype=options.dtype,
            name=name,
        )(x)

    def activate(self, x, *, name):
        activation, dtype = self.options.activation, self.options.dtype
        if not isinstance(activation, str) and class_of(activation) is not None:
            return make_layer("activation", activation, dtype=dtype, name=name)(x)
        return keras.layers.Activation(activation, dtype=dtype, name=name)(x)

    def conv_norm_act(
        self,
        x,
        filters,
        kernel_size,
        stride=1,
        *,
        dilation=1,
        groups=1,
        use_bias=False,
        normalize=True,
        zero_gamma=False,
        activate=True,
        antialiased=None,
        name,
        index="",
    ):
        """Layers `{name}_conv{index}` and, if asked, `{name}_norm{index}`, `{name}_act{index}`.

        Where a block strides, `antialiased` are its dilations, before and after the place of the
        stride: with an `antialias` a layer `{name}_aa` at the end strides in the convolution's
        place.
        """
        conv_name = f"{name}_conv{index}"
        smooth = antialiased is not None and self.options.antialias != "off"
        steps = 1 if smooth else stride
        x = self.conv(x, filters, kernel_size, steps, dilation, groups, use_bias, name=conv_name)
        if normalize:
            x = self.normalize(x, zero_gamma=zero_gamma, name=f"{name}_norm{index}")
        if activate:
            x = self.activate(x, name=f"{name}_act{index}")
        return self.antialias(x, stride, antialiased, name=f"{name}_aa") if smooth else x

    def antialias(self, x, stride, dilations=None, *, name):
        """The low-pass filter of `LayerOptions.antialias` that subsamples by `stride`, as in timm.

        In a block, whose `dilations` these are, windows that reach over the border average what is
        inside, as those of shortcut D, so that sizes agree; without (in a stem) they are left out.
        Along axes where a dilation took the place of the stride (where both differ) the blur has
        stride 1, and nothing is averaged.
        """
        options = self.options
        strides = self.per_axis(stride, "stride")
        if options.antialias == "average":
            if max(strides) == 1:
                return x
            padding = "valid" if dilations is None and options.padding == "symmetric" else "same"
            pool = self.layer(
                "AveragePooling", strides, strides=strides, padding=padding, name=name
            )
            return pool(x)
        before, after = (self.per_axis(value, "dilation") for value in dilations or (1, 1))
        replaced = [b // a for a, b in zip(before, after, strict=True)]
        sizes = [2 * max(each) - 1 for each in zip(strides, replaced, strict=True)]
        if max(sizes) == 1:
            return x
        return BlurPool(
            compact(strides),
            compact(sizes),
            options.padding,
            options.data_format,
            dtype=options.dtype,
            name=name,
        )(x)

    def norm_act(self, x, *, name):
        """Layers `{name}_norm` and `{name}_act`."""
        return self.activate(self.normalize(x, name=f"{name}_norm"), name=f"{name}_act")

    def pad_channels(self, x, filters, stride, placement, *, name):
        """Shortcut option A of He et al. 2015, section 3.3: subsample, add zero channels."""
        options = self.options
        return PadChannels(
            filters,
            stride,
            data_format=options.data_format,
            placement=placement,
            dtype=options.dtype,
            name=name,
        )(x)

    def average_pool_for_shortcut(self, x, strides, dilated, *, name):
        """The pooling before the projection of ResNet-D (He et al. 2019, section 4.2).

        Windows that reach over the border average what is inside. Along the axes where dilation
        took the place of the stride (`dilated`), windows of 2 with stride 1 follow on a border of
        zeros, as in timm; with Keras' padding they average what is inside.
        """
        if max(strides) > 1:
            pool = self.layer("AveragePooling", strides, strides=strides, padding="same", name=name)
            x, name = pool(x), f"{name}_dilated"
        if not any(dilated):
            return x
        window = [2 if axis else 1 for axis in dilated]
        if self.options.padding == "same":
            return self.layer("AveragePooling", window, strides=1, padding="same", name=name)(x)
        border = tuple((0, size - 1) for size in window)
        pad = self.layer("ZeroPadding", border if self.rank > 1 else border[0], name=f"{name}_pad")
        return self.layer("AveragePooling", window, strides=1, name=name)(pad(x))

    def squeeze_excite(self, x, ratio, *, name):
        """Gate the channels (Hu et al. 2018, section 3).

        The bottleneck has `channels * ratio` units, rounded to a multiple of 8 and at least 8,
        with biases, as in timm's `SEModule`.
        """
        channels = self.channels(x)
        reduced = max(8, int(channels * ratio + 4) // 8 * 8)
        gate = self.layer("GlobalAveragePooling", keepdims=True, name=f"{name}_se_pool")(x)
        plain = {"use_bias": True, "standardized": False}
        gate = self.conv(gate, reduced, 1, **plain, name=f"{name}_se_reduce")
        gate = self.activate(gate, name=f"{name}_se_act")
        gate = self.conv(gate, channels, 1, **plain, name=f"{name}_se_expand")
        dtype = self.options.dtype
        gate = keras.layers.Activation("sigmoid", dtype=dtype, name=f"{name}_se_gate")(gate)
        return keras.layers.Multiply(dtype=dtype, name=f"{name}_se_scale")([x, gate])

    def drop_path(self, x, rate, *, name):
        layer = StochasticDepth(rate, dtype=self.options.dtype, name=f"{name}_drop_path")
        return layer(x) if rate else x

    def add(self, branch, shortcut, *, name):
        return keras.layers.Add(dtype=self.options.dtype, name=f"{name}_add")([branch, shortcut])


def block_name(name: str | None, kind: str) -> str:
    """The prefix of a block's layers: the caller's, or a fresh one such as `basic_block_2`."""
    return name or f"{kind}_{keras.backend.get_uid(kind)}"


def conv_norm_act(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: PerAxis = 3,
    stride: PerAxis = 1,
    *,
    dilation: PerAxis = 1,
    groups: int = 1,
    use_bias: bool = False,
    name: str | None = None,
    **layer_options: Any,
) -> keras.KerasTensor:
    """Convolution, normalization and activation.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: number of output channels.
        kernel_size: kernel size, a number or one for each spatial axis; odd unless `padding` is
            "same".
        stride: stride, likewise; n pixels become ceil(n / stride).
        dilation: spacing of the kernel's taps, likewise.
        groups: number of groups of channels that are convolved apart.
        use_bias: whether the convolution has a bias.
        name: prefix of the layers `_conv`, `_norm` and `_act`.
        **layer_options: as in `LayerOptions`.

    Returns:
        A Keras tensor with `filters` channels.
    """
    name = block_name(name, "conv_norm_act")
    return Builder(x, layer_options).conv_norm_act(
        x,
        filters,
        kernel_size,
        stride,
        dilation=dilation,
        groups=groups,
        use_bias=use_bias,
        name=name,
    )


def norm_act(
    x: keras.KerasTensor, *, name: str | None = None, **layer_options: Any
) -> keras.KerasTensor:
    """Normalization and activation: the end of a pre-activation network.

    Args:
        x: Keras tensor of rank 3, 4 or 5.
        name: prefix of the layers `_norm` and `_act`.
        **layer_options: as in `LayerOptions`.

    Returns:
        A Keras tensor of the shape of `x`.
    """
    return Builder(x, layer_options).norm_act(x, name=block_name(name, "norm_act"))
