"""From a row of the table to a Keras model."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_resnet import blocks
from keras_resnet.architectures import Architecture, get_architecture
from keras_resnet.architectures.row import explain_arguments
from keras_resnet.errors import nearest
from keras_resnet.models.resnet import ResNet
from keras_resnet.preprocessing import Preprocessing


@explain_arguments
def create_model(
    name: str,
    *,
    include_top: bool = True,
    weights: Any = None,
    input_tensor: "keras.KerasTensor | None" = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[..., Any] | None = "softmax",
    model_name: str | None = None,
    output_stride: int | None = None,
    zero_init_last_gamma: bool = True,
    norm: Mapping[str, Any] | None = None,
    norm_layer: str | Callable[..., Any] | None = None,
    activation: str | Callable[..., Any] | None = None,
    block: str | Callable[..., Any] | None = None,
    dtype: Any = None,
    rematerialize: bool = False,
    data_format: str | None = None,
    depths: Sequence[int] | None = None,
    widths: Sequence[int] | None = None,
    bottleneck: bool | None = None,
    preactivation: bool | None = None,
    stem: str | None = None,
    stem_width: int | None = None,
    zero_pad_pool: bool | None = None,
    shortcut: str | None = None,
    groups: int | None = None,
    base_width: int | None = None,
    stride_in_1x1: bool | None = None,
    stride_in_last_block: bool | None = None,
    preact_first_shortcut: bool | None = None,
    use_bias: bool | None = None,
    epsilon: float | None = None,
    residual: bool | None = None,
    se_ratio: float | None = None,
    dropout_rate: float | None = None,
    block_dropout_rate: float | None = None,
    drop_path_rate: float | None = None,
    image_size: int | None = None,
    crop_ratio: float | None = None,
    interpolation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channel_order: str | None = None,
    resize: str | None = None,
) -> ResNet:
    """A residual network by name: `create_model("ResNet50", classes=10)`.

    Args:
        name: a name from `keras_resnet.list_models()`.
        model_name: name of the Keras model; default `name` in lower case.
        ...: all other arguments as in `keras_resnet.architectures.Architecture.__call__`, which
            describes them.

    Returns:
        A `ResNet`.

    Raises:
        ValueError: for an argument outside its range, quoting it.
        TypeError: for an argument that does not exist, naming the nearest.
    """
    arguments = {key: value for key, value in locals().items() if key not in ("name", "model_name")}
    return get_architecture(name)(name=model_name or name.lower(), **arguments)


def build_model(
    row: Architecture,
    *,
    include_top: bool,
    weights: Any,
    input_tensor: keras.KerasTensor | None,
    input_shape: Sequence[int | None] | None,
    pooling: str | None,
    classifier_activation: str | Callable[..., Any] | None,
    model_name: str | None,
    output_stride: int | None,
    zero_init_last_gamma: bool,
    norm: Mapping[str, Any] | None,
    dtype: Any,
    rematerialize: bool,
    data_format: str | None,
) -> ResNet:
    """The network of a row; the arguments are those of `Architecture.__call__`."""
    _check(row, pooling, include_top, input_tensor)
    if norm is not None and not isinstance(norm, Mapping):
        raise ValueError(
            f"`norm` is a dict of options, such as {{'synchronized': True}}; received {norm!r}. "
            "Which normalization it is says `norm_layer`."
        )
    plans = plan_blocks(row, output_stride)
    options = {
        "norm": {"epsilon": row.epsilon, **(norm or {})},
        "norm_layer": row.norm_layer,
        "activation": row.activation,
        "data_format": keras.config.image_data_format() if data_format is None else data_format,
        "dtype": keras.dtype_policies.get(dtype) if dtype is not None else None,
    }
    inputs = _input(row, input_tensor, input_shape, include_top, options["data_format"])
    model_input = inputs
    features = _features(row, inputs, plans, zero_init_last_gamma, options)
    top = {"include_top": include_top, "pooling": pooling, "activation": classifier_activation}
    outputs = _head(row, features, options, **top)
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
        inputs = inputs[0] if len(inputs) == 1 else inputs
    model = ResNet(
        inputs,
        outputs,
        name=model_name or row.name.lower(),
        preprocessing=_preprocessing(row, model_input, options["data_format"]),
        rematerialize=rematerialize,
    )
    if weights is not None:
        from keras_resnet.weights import apply_weights

        apply_weights(model, weights, variant=row.name, include_top=include_top)
    return model


def _input(row: Architecture, input_tensor, input_shape, include_top, data_format):
    """The tensor the network starts from, once its shape is found acceptable."""
    if input_tensor is None:
        if input_shape is None:
            size = row.image_size if include_top else None
            input_shape = (size, size, 3) if data_format == "channels_last" else (3, size, size)
        input_tensor = keras.Input(_checked_shape(row, input_shape))
    shape = tuple(input_tensor.shape[1:])
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            "`input_shape` has one, two or three spatial axes and one for the channels, received "
            f"{shape}."
        )
    space = _space(shape, data_format)
    # A video's frames, the first axis of three, may be as few as there are.
    pixels = space[1:] if len(space) == 3 else space
    if any(size is not None and size < row.stride for size in pixels):
        raise ValueError(
            f"{row.name} needs at least {row.stride} pixels along each spatial axis, received the "
            f"shape {shape} ({data_format})."
        )
    return input_tensor


def _checked_shape(row: Architecture, input_shape) -> tuple[int | None, ...]:
    """`input_shape` as a tuple, if it is no slip for that of an image."""
    if isinstance(input_shape, (str, bytes)) or not isinstance(input_shape, Sequence):
        size = input_shape if isinstance(input_shape, int) else row.image_size
        raise ValueError(
            "`input_shape` is a tuple with one number for each axis and one for the channels, such "
            f"as ({size}, {size}, 3); received {input_shape!r}."
        )
    shape = tuple(input_shape)
    if len(shape) == 2 and shape[0] is not None and shape[0] == shape[1]:
        raise ValueError(
            f"`input_shape` is {shape}, a 1-D network of {shape[0]} steps and {shape[1]} channels. "
            f"For images say how many channels they have, ({shape[0]}, {shape[1]}, 3); if you mean "
            f"the 1-D network, pass input_tensor=keras.Input({shape})."
        )
    return shape


def _space(shape: tuple[int | None, ...], data_format: str) -> tuple[int | None, ...]:
    return shape[:-1] if data_format == "channels_last" else shape[1:]


def _preprocessing(row: Architecture, inputs, data_format: str) -> Preprocessing | None:
    """The row's for the size of the network's images; None for what is no image."""
    space = _space(tuple(inputs.shape[1:]), data_format)
    if len(space) != 2:
        return None
    height, width = space
    if height is None or height != width:
        return row.preprocessing
    return row.preprocessing.replace(image_size=height)


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
    plans: list[BlockPlan] = []
    stride_so_far, dilation = row.stem_stride, 1
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
    make, preactivation = _block_of(row), row.preactivation
    x = blocks.stem(
        x,
        row.stem_width,
        row.stem,
        preactivation=preactivation,
        zero_pad_pool=row.zero_pad_pool,
        use_bias=row.use_bias,
        **options,
    )
    for plan in plans:
        arguments = _arguments(row, make, plan, zero_init_last_gamma)
        name = f"stage{plan.stage}_block{plan.block}"
        x = make(x, row.widths[plan.stage - 1], plan.stride, name=name, **arguments, **options)
    return blocks.norm_act(x, name="final", **options) if preactivation else x


def _block_of(row: Architecture) -> Callable[..., keras.KerasTensor]:
    if not isinstance(row.block, str):
        return row.block
    known = blocks.PREACT_BLOCKS if row.preactivation else blocks.BLOCKS
    if row.block not in known:
        raise ValueError(
            f"`block` is one of {', '.join(known)}, or a function; received "
            f"{row.block!r}{nearest(row.block, known)}"
        )
    return known[row.block]


# Argument of a block -> the field of the row that it comes from, where their names differ.
_FIELDS = {"width": "base_width", "dropout_rate": "block_dropout_rate"}


def _arguments(row: Architecture, make, plan: BlockPlan, zero_init_last_gamma) -> dict[str, Any]:
    """What a block is called with: of the arguments of all blocks those that it names.

    Raises:
        ValueError: if the row wants what the block has no argument for.
    """
    width = row.widths[plan.stage - 1]
    inside = int(width * row.base_width / 64) * row.groups
    first = plan.stage == plan.block == 1
    # Argument -> its value, and the value that a block without the argument has.
    wanted = {
        "groups": (row.groups, 1),
        "width": (inside, width),
        "stride_in_1x1": (row.stride_in_1x1, False),
        "dilation": (plan.dilation, 1),
        "first_dilation": (plan.first_dilation, 1),
        "shortcut": (row.shortcut, "B"),
        "residual": (row.residual, True),
        "se_ratio": (row.se_ratio, 0),
        "dropout_rate": (row.block_dropout_rate, 0),
        "drop_path_rate": (row.drop_path_rate * plan.depth_fraction, 0),
        "use_bias": (row.use_bias, False),
    }
    known = inspect.signature(make).parameters
    for argument, (value, without) in wanted.items():
        if argument not in known and value != without:
            field = _FIELDS.get(argument, argument)
            raise ValueError(
                f"`{field}` is {getattr(row, field, value)!r}, but {row.name} has "
                f"{_kind_of(row)} blocks, which have no such choice."
            )
    arguments = {argument: value for argument, (value, _) in wanted.items()}
    arguments["preact_shortcut"] = row.preact_first_shortcut and first
    arguments["zero_init_last_gamma"] = zero_init_last_gamma
    return {argument: value for argument, value in arguments.items() if argument in known}


def _kind_of(row: Architecture) -> str:
    if not isinstance(row.block, str):
        return getattr(row.block, "__name__", repr(row.block))
    return f"pre-activation {row.block}" if row.preactivation else row.block


def _check(row: Architecture, pooling, include_top, input_tensor) -> None:
    """Refuse what no network can have, before anything is built."""
    if isinstance(include_top, keras.KerasTensor):
        raise ValueError(
            f"{row.name} takes a tensor to build on as `input_tensor=`; received it as the first "
            "argument, which is `include_top`."
        )
    if not isinstance(include_top, bool):
        raise ValueError(f"`include_top` is True or False, received {include_top!r}.")
    if input_tensor is not None and not isinstance(input_tensor, keras.KerasTensor):
        raise ValueError(
            "`input_tensor` is a Keras tensor, such as keras.Input(...); received "
            f"{input_tensor!r}."
        )
    if isinstance(row.classes, bool) or not isinstance(row.classes, int) or row.classes < 1:
        raise ValueError(f"`classes` must be a positive integer, received {row.classes!r}.")
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"`pooling` is None, 'avg' or 'max', received {pooling!r}.")
    for key in ("dropout_rate", "block_dropout_rate", "drop_path_rate"):
        rate = getattr(row, key)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f"`{key}` must be at least 0 and less than 1, received {rate!r}.")
    if not isinstance(row.se_ratio, (int, float)) or row.se_ratio < 0:
        raise ValueError(f"`se_ratio` must be 0 (no gate) or positive, received {row.se_ratio!r}.")


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
