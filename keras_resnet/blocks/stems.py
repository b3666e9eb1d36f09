"""Stems: the layers between the input and the first residual block."""

from typing import Any

import keras

from keras_resnet.axes import PerAxis, compact, per_axis
from keras_resnet.blocks.common import Builder, block_name
from keras_resnet.layers import PaddedMaxPool

# Kernel size, stride of the first convolution, and of the pool or of what takes its place.
_DEFAULTS = {
    "cifar": (3, 1, None),
    "imagenet": (7, 2, 2),
    "deep": (3, 2, 2),
    "deep_strided": (3, 2, 2),
}
STEMS = tuple(_DEFAULTS)
POOLED_STEMS = ("imagenet", "deep")


def stem(
    x: keras.KerasTensor,
    filters: int = 64,
    kind: str = "imagenet",
    *,
    preactivation: bool = False,
    zero_pad_pool: bool = True,
    use_bias: bool = False,
    kernel_size: PerAxis | None = None,
    stride: PerAxis | None = None,
    pool_size: PerAxis | None = None,
    pool_stride: PerAxis | None = None,
    pool_padding: str | None = None,
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
            a pre-activation network only. The borders "same" and "end" of a pool never win.
        use_bias: whether the convolutions have biases.
        kernel_size: of the convolutions, a number or one for each spatial axis; None as above.
        stride: of the first convolution, likewise.
        pool_size: of the pool's window, likewise.
        pool_stride: of the pool, or of the fourth convolution in its place, likewise.
        pool_padding: "symmetric", "same" or "end" (Caffe's), see
            `keras_resnet.layers.PaddedMaxPool`; None as the convolutions' `padding`.
        name: prefix of the layers' names.
        **layer_options: as in `keras_resnet.blocks.options.LayerOptions`.

    Returns:
        A Keras tensor with `filters` channels, with the strides above at the resolution of the
        input ("cifar") or a quarter of it.

    Raises:
        ValueError: for an unknown `kind`, or an argument outside the ranges above.
    """
    build = Builder(x, layer_options)
    first, later = stem_strides(kind, stride, pool_stride, build.rank)
    if kind not in POOLED_STEMS and (pool_size is not None or pool_padding is not None):
        raise ValueError(f"The stem {kind!r} has no pool whose size or padding could be chosen.")
    name = block_name(name, "stem")
    size = _DEFAULTS[kind][0] if kernel_size is None else kernel_size
    specs: list[tuple[int, PerAxis, int | str]]  # filters, stride, index
    if kind in ("cifar", "imagenet"):
        specs = [(filters, first, "")]
    else:
        specs = [(filters // 2, first, 1), (filters // 2, 1, 2), (filters, 1, 3)]
        if kind == "deep_strided":
            specs.append((filters, later, 4))
    smooth = build.options.antialias != "off"
    for width, step, index in specs:
        bare = preactivation and index == specs[-1][-1]
        in_place_of_pool = smooth and index == 4
        steps = 1 if in_place_of_pool else step
        x = build.conv(x, width, size, steps, use_bias=use_bias, name=f"{name}_conv{index}")
        if in_place_of_pool:  # before the normalization, as in timm
            x = build.antialias(x, step, name=f"{name}_aa")
        if not bare:
            x = build.activate(
                build.normalize(x, name=f"{name}_norm{index}"), name=f"{name}_act{index}"
            )
    if kind not in POOLED_STEMS:
        return x
    return _pool(build, x, zero_pad_pool, pool_size, later, pool_padding, name)


def _pool(build: Builder, x, zero_pad, size, strides, padding, name):
    """The pool at a stem's end; the arguments are those of `stem`."""
    options = build.options
    smooth = options.antialias == "blur" and max(strides) > 1
    if options.antialias == "average":
        if size is not None or padding is not None:
            raise ValueError(
                "`antialias` is 'average', with which a stem has an average pool of the size of "
                "its stride, and no max pool: leave its size and padding out; received "
                f"{size!r} and {padding!r}."
            )
        return build.antialias(x, strides, name=f"{name}_aa")
    if smooth and padding == "end":
        raise ValueError(
            "`pool_padding` of a stem is 'end', which says where a strided pool ends; with "
            "antialias='blur' the max pool has stride 1: take 'symmetric' or 'same'."
        )
    x = PaddedMaxPool(
        zero_pad,
        options.data_format,
        pool_size=3 if size is None else size,
        strides=1 if smooth else compact(strides),
        padding=padding or options.padding,
        dtype=options.dtype,
        name=f"{name}_pool",
    )(x)
    return build.antialias(x, strides, name=f"{name}_aa") if smooth else x


def stem_strides(
    kind: str, stride: PerAxis | None, pool_stride: PerAxis | None, rank: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Strides of a stem's first convolution and of its pool (or what is there instead).

    Args:
        kind, stride, pool_stride: as for `stem`.
        rank: number of spatial axes.

    Raises:
        ValueError: as `stem`.
    """
    if kind not in STEMS:
        raise ValueError(f"`kind` of a stem is one of {', '.join(STEMS)}; received {kind!r}.")
    _, first, later = _DEFAULTS[kind]
    if later is None and pool_stride is not None:
        raise ValueError(f"The stem {kind!r} has no pool, received a stride of {pool_stride!r}.")
    return (
        per_axis(first if stride is None else stride, rank, "stem_stride"),
        per_axis((later or 1) if pool_stride is None else pool_stride, rank, "stem_pool_stride"),
    )
