"""Stems: the layers between the input and the first residual block."""

from typing import Any

import keras

from keras_resnet.blocks.common import Builder, block_name
from keras_resnet.layers import PaddedMaxPool

STEMS = ("cifar", "imagenet", "deep", "deep_strided")


def stem(
    x: keras.KerasTensor,
    filters: int = 64,
    kind: str = "imagenet",
    *,
    preactivation: bool = False,
    zero_pad_pool: bool = True,
    use_bias: bool = False,
    name: str | None = "stem",
    **layer_options: Any,
) -> keras.KerasTensor:
    """The layers before the first block.

    Args:
        x: Keras tensor of rank 3, 4 or 5: batch, 1 to 3 spatial axes, channels.
        filters: number of channels of the output.
        kind: "cifar": one 3×3 convolution (He et al. 2015, section 4.2); "imagenet": a 7×7
            convolution and a max pool of 3, each with stride 2 (section 4.1); "deep": three 3×3
            convolutions, the first two with half the filters, in the place of the 7×7 one
            (He et al. 2019, section 4.2); "deep_strided": the same with a fourth 3×3 convolution
            of stride 2 in the place of the pool (Bello et al. 2021, section 4.1).
        preactivation: end with the bare convolution (and pool), whose normalization and
            activation are the first block's (He et al. 2016).
        zero_pad_pool: pad the pool with zeros; False pads with minus infinity, which differs in
            a pre-activation network only.
        use_bias: whether the convolutions have biases.
        name: prefix of the layers' names.
        **layer_options: as in `keras_resnet.blocks.common.LayerOptions`.

    Returns:
        A Keras tensor with `filters` channels, at the resolution of the input ("cifar") or a
        quarter of it.

    Raises:
        ValueError: for an unknown `kind`.
    """
    if kind not in STEMS:
        raise ValueError(f"`kind` of a stem is one of {', '.join(STEMS)}; received {kind!r}.")
    name = block_name(name, "stem")
    build = Builder(x, layer_options)
    specs: list[tuple[int, int, int, int | str]]  # filters, kernel size, stride, index
    if kind in ("cifar", "imagenet"):
        specs = [(filters, 3, 1, "") if kind == "cifar" else (filters, 7, 2, "")]
    else:
        specs = [(filters // 2, 3, 2, 1), (filters // 2, 3, 1, 2), (filters, 3, 1, 3)]
        if kind == "deep_strided":
            specs.append((filters, 3, 2, 4))
    for width, kernel_size, stride, index in specs:
        if preactivation and index == specs[-1][-1]:
            conv_name = f"{name}_conv{index}"
            x = build.conv(x, width, kernel_size, stride, use_bias=use_bias, name=conv_name)
        else:
            x = build.conv_norm_act(
                x, width, kernel_size, stride, use_bias=use_bias, name=name, index=index
            )
    return _pool(build, x, zero_pad_pool, name) if kind in ("imagenet", "deep") else x


def _pool(build: Builder, x, zero_pad, name):
    options = build.options
    return PaddedMaxPool(zero_pad, options.data_format, dtype=options.dtype, name=f"{name}_pool")(x)
