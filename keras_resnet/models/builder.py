"""From a row of the table to a Keras model."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_resnet import blocks
from keras_resnet.architectures import Architecture, get_architecture
from keras_resnet.models.resnet import ResNet


def create_model(
    name: str,
    *,
    include_top: bool = True,
    weights: str | None = None,
    input_tensor=None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | None = "softmax",
    model_name: str | None = None,
    output_stride: int | None = None,
    zero_init_last_gamma: bool = True,
    norm: Mapping[str, Any] | None = None,
    dtype: Any = None,
    rematerialize: bool = False,
    data_format: str | None = None,
    **overrides,
) -> ResNet:
    """A residual network by name.

    Args:
        name: a name from `keras_resnet.list_models()`.
        include_top: end with global average pooling and a classifier.
        weights: None for random weights, or what `keras_resnet.weights` loads: "imagenet", a
            path, "hf://..." .
        input_tensor: Keras tensor to build on, instead of a new input.
        input_shape: (*space, channels), or (channels, *space) for "channels_first"; one, two or
            three spatial axes make a 1-D, 2-D or 3-D network. None for an axis leaves its size
            open. Default: three channels at the variant's native size, any size without top.
        pooling: without top: None gives the last feature map, "avg" and "max" pool it.
        classes: number of classes; default as in the table (1000, CIFAR: 10).
        classifier_activation: activation of the classifier; None gives logits.
        model_name: name of the Keras model; default `name` in lower case.
        output_stride: pixels of the input per pixel of the last feature map: 32, 16 or 8 (CIFAR:
            4, 2 or 1); strides beyond it become dilations, as in torchvision's
            `replace_stride_with_dilation`.
        zero_init_last_gamma: start each post-activation block as the identity (Goyal et al.
            2017, section 5.1).
        norm: options of the batch normalizations: `momentum`, `epsilon`, `synchronized`.
        dtype: dtype policy of the layers, such as "mixed_bfloat16"; None is the global one. The
            classifier computes in float32 if the policy is a mixed one.
        rematerialize: recompute each block in the backward pass instead of keeping its
            activations: less memory, more time.
        data_format: "channels_last" or "channels_first"; None is Keras' global setting.
        **overrides: fields of `keras_resnet.architectures.Architecture`: `depths`, `widths`,
            `se_ratio`, `dropout_rate`, `drop_path_rate`, `shortcut`, `residual` (False: the
            plain twin) and others.

    Returns:
        A `ResNet`. Its input is a float tensor, normalized with `model.preprocessing`; its
        output has shape (batch, classes), or that of the features.

    Raises:
        ValueError: for an argument outside the ranges above, quoting it.
        TypeError: for an argument that does not exist, naming the nearest.
    """
    if classes is not None:
        overrides["classes"] = classes
    row = get_architecture(name, **overrides)
    _check(row, pooling)
    plans = plan_blocks(row, output_stride)
    options = {
        "norm": {"epsilon": row.epsilon, **(norm or {})},
        "data_format": keras.config.image_data_format() if data_format is None else data_format,
        "dtype": keras.dtype_policies.get(dtype) if dtype is not None else None,
    }
    inputs = _input(row, input_tensor, input_shape, include_top, options["data_format"])
    features = _features(row, inputs, plans, zero_init_last_gamma, options)
    top = {"include_top": include_top, "pooling": pooling, "activation": classifier_activation}
    outputs = _head(row, features, options, **top)
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
        inputs = inputs[0] if len(inputs) == 1 else inputs
    model = ResNet(
        inputs,
        outputs,
        name=model_name or name.lower(),
        preprocessing=row.preprocessing,
        rematerialize=rematerialize,
    )
    if weights is not None:
        from keras_resnet.weights import apply_weights

        apply_weights(model, weights, variant=name, include_top=include_top)
    return model


def _input(row: Architecture, input_tensor, input_shape, include_top, data_format):
    """The tensor the network starts from, once its shape is found acceptable."""
    if input_tensor is None:
        if input_shape is None:
            size = row.image_size if include_top else None
            input_shape = (size, size, 3) if data_format == "channels_last" else (3, size, size)
        input_tensor = keras.Input(tuple(input_shape))
    shape = tuple(input_tensor.shape[1:])
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            "`input_shape` has one, two or three spatial axes and one for the channels, received "
            f"{shape}."
        )
    space = shape[:-1] if data_format == "channels_last" else shape[1:]
    if any(size is not None and size < row.stride for size in space):
        raise ValueError(
            f"{row.name} needs at least {row.stride} pixels along each spatial axis, received the "
            f"shape {shape} ({data_format})."
        )
    return input_tensor


@dataclasses.dataclass(frozen=True)
class BlockPlan:
    """Where a block stands: its stage and number (from 1), stride and dilations."""

    stage: int
    block: int
    stride: int
    first_dilation: int
    dilation: int
    depth_fraction: float  # 0 for the first block of the network, 1 for the last


def plan_blocks(row: Architecture, output_stride: int | None = None) -> list[BlockPlan]:
    """Strides and dilations of all blocks.

    Strides beyond `output_stride` become dilations: the convolution that loses its stride keeps
    the dilation of what came before, everything after it has twice as much (torchvision's
    `replace_stride_with_dilation`), so the outputs of the strided network are a subset of those
    of the dilated one.

    Raises:
        ValueError: for an `output_stride` that the network cannot have.
    """
    allowed = [row.stride // d for d in (1, 2, 4) if row.stride // d >= row.stem_stride]
    if output_stride is not None and output_stride not in allowed:
        raise ValueError(
            f"`output_stride` of {row.name} is {', '.join(map(str, allowed[:-1]))} or "
            f"{allowed[-1]}, received {output_stride!r}."
        )
    target = output_stride or row.stride
    plans, stride_so_far, dilation = [], row.stem_stride, 1
    count = sum(row.depths)
    for stage, depth in enumerate(row.depths, start=1):
        last_stage = stage == len(row.depths)
        for block in range(1, depth + 1):
            if row.stride_in_last_block:
                stride = 2 if block == depth and not last_stage else 1
            else:
                stride = 2 if block == 1 and stage > 1 else 1
            first_dilation = dilation
            if stride > 1 and stride_so_far >= target:
                dilation *= stride
                stride = 1
            stride_so_far *= stride
            fraction = len(plans) / max(count - 1, 1)
            plans.append(BlockPlan(stage, block, stride, first_dilation, dilation, fraction))
    return plans


def _features(row: Architecture, x, plans, zero_init_last_gamma, options):
    x = blocks.stem(
        x,
        row.stem_width,
        row.stem,
        preactivation=row.preactivation,
        zero_pad_pool=row.zero_pad_pool,
        use_bias=row.use_bias,
        **options,
    )
    for plan in plans:
        x = _block(row, x, plan, zero_init_last_gamma, options)
    return blocks.norm_act(x, name="final", **options) if row.preactivation else x


def _block(row: Architecture, x, plan: BlockPlan, zero_init_last_gamma, options):
    width = row.widths[plan.stage - 1]
    kwargs = {
        "dilation": plan.dilation,
        "first_dilation": plan.first_dilation,
        "shortcut": row.shortcut,
        "residual": row.residual,
        "se_ratio": row.se_ratio,
        "drop_path_rate": row.drop_path_rate * plan.depth_fraction,
        "use_bias": row.use_bias,
        "name": f"stage{plan.stage}_block{plan.block}",
        **options,
    }
    if row.bottleneck:
        kwargs["groups"] = row.groups
        kwargs["width"] = int(width * row.base_width / 64) * row.groups
        kwargs["stride_in_1x1"] = row.stride_in_1x1
    if not row.preactivation:
        make = blocks.bottleneck_block if row.bottleneck else blocks.basic_block
        return make(x, width, plan.stride, zero_init_last_gamma=zero_init_last_gamma, **kwargs)
    make = blocks.preact_bottleneck_block if row.bottleneck else blocks.preact_basic_block
    first = plan.stage == plan.block == 1
    kwargs["preact_shortcut"] = row.preact_first_shortcut and first
    return make(x, width, plan.stride, dropout_rate=row.block_dropout_rate, **kwargs)


def _check(row: Architecture, pooling) -> None:
    """Refuse what no network can have, before anything is built."""
    if isinstance(row.classes, bool) or not isinstance(row.classes, int) or row.classes < 1:
        raise ValueError(f"`classes` must be a positive integer, received {row.classes!r}.")
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"`pooling` is None, 'avg' or 'max', received {pooling!r}.")
    for key in ("dropout_rate", "block_dropout_rate", "drop_path_rate"):
        rate = getattr(row, key)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f"`{key}` must be at least 0 and less than 1, received {rate!r}.")
    if row.block_dropout_rate and not row.preactivation:
        raise ValueError(
            f"`block_dropout_rate` is {row.block_dropout_rate!r}, but only the blocks of "
            f"pre-activation networks have a dropout, and {row.name} is none."
        )
    if not isinstance(row.se_ratio, (int, float)) or row.se_ratio < 0:
        raise ValueError(f"`se_ratio` must be 0 (no gate) or positive, received {row.se_ratio!r}.")
    for key, plain in (("groups", 1), ("base_width", 64), ("stride_in_1x1", False)):
        if not row.bottleneck and getattr(row, key) != plain:
            raise ValueError(
                f"`{key}` is {getattr(row, key)!r}, but {row.name} has basic blocks, which have "
                "no such choice."
            )


def _head(row: Architecture, x, options, *, include_top, pooling, activation):
    """Pooling, dropout and classifier, or the pooling asked for without them."""
    if include_top:
        pooling = "avg"
    if pooling is None:
        return x
    kind = "GlobalAveragePooling" if pooling == "avg" else "GlobalMaxPooling"
    layer = getattr(keras.layers, f"{kind}{len(x.shape) - 2}D")
    dtype = options["dtype"]
    x = layer(data_format=options["data_format"], dtype=dtype, name="pool")(x)
    if not include_top:
        return x
    if row.dropout_rate:
        x = keras.layers.Dropout(row.dropout_rate, dtype=dtype, name="dropout")(x)
    return keras.layers.Dense(
        row.classes,
        activation=activation,
        # Goyal et al. 2017, section 5.1: a zero-mean Gaussian of standard deviation 0.01.
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        dtype=_classifier_dtype(dtype),
        name="predictions",
    )(x)


def _classifier_dtype(dtype):
    """Softmax and loss lose too much in 16 bits: the variables' dtype under a mixed policy."""
    policy = dtype or keras.config.dtype_policy()
    if policy.compute_dtype != policy.variable_dtype:
        return policy.variable_dtype
    return dtype
