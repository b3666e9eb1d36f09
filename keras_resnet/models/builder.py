"""From a row of the table to a Keras model."""

import dataclasses
import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras

from keras_resnet import blocks
from keras_resnet.architectures import Architecture, get_architecture
from keras_resnet.architectures.description import describe
from keras_resnet.architectures.row import explain_arguments
from keras_resnet.errors import nearest
from keras_resnet.models.resnet import ResNet
from keras_resnet.preprocessing import Preprocessing

# How the classifier starts. A fixed deviation fits one number of features only: 0.01 is right for
# the 2,048 of ResNet-50, and a seventh of what 64 features want.
CLASSIFIER_INITIALIZERS: dict[str, Callable[[], keras.Initializer]] = {
    # PyTorch's torch.nn.Linear: uniform between ±1 / sqrt(features).
    "fan_in": lambda: keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
    # Goyal et al. 2017, section 5.1: a zero-mean Gaussian of standard deviation 0.01.
    "normal": lambda: keras.initializers.RandomNormal(stddev=0.01),
}


@explain_arguments
def create_model(
    name: str | None = None,
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
    zero_init_last_gamma: bool | None = None,
    classifier_initializer: str | Callable[..., Any] | None = None,
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
        name: a name from `keras_resnet.list_models()`. None takes what `weights` say: those of
            this project, timm and transformers name their network and its number of classes.
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
    if name is None:
        return _create_what_weights_name(model_name, arguments)
    return get_architecture(name)(name=model_name or name.lower(), **arguments)


def _create_what_weights_name(model_name: str | None, arguments: dict[str, Any]) -> ResNet:
    from keras_resnet.weights import classes_of, read_weights, row_of

    weights = arguments["weights"]
    if weights is None:
        raise ValueError(
            "create_model needs a name of keras_resnet.list_models(), or weights= that name their "
            "network."
        )
    if isinstance(weights, (str, os.PathLike)):
        weights = arguments["weights"] = read_weights(weights)
    row = row_of(weights)
    if arguments["include_top"] and arguments["classes"] is None:
        classes = classes_of(weights)
        arguments["classes"] = classes
        arguments["include_top"] = classes is not None
    if arguments["image_size"] is None and weights.preprocessing is not None:
        arguments["image_size"] = weights.preprocessing.image_size
    name = row.name
    return get_architecture(name)(name=model_name or name.lower(), **arguments)


def build_model(
    row: Architecture,
    *,
    given: Collection[str],
    include_top: bool,
    weights: Any,
    input_tensor: keras.KerasTensor | None,
    input_shape: Sequence[int | None] | None,
    pooling: str | None,
    classifier_activation: str | Callable[..., Any] | None,
    model_name: str | None,
    output_stride: int | None,
    norm: Mapping[str, Any] | None,
    dtype: Any,
    rematerialize: bool,
    data_format: str | None,
) -> ResNet:
    """The network of a row; the arguments are those of `Architecture.__call__`.

    `given` names those that were not left to the row or the weights.
    """
    _check(row, pooling, input_tensor, norm)
    # What the caller says of preprocessing, the weights do not overrule.
    own = {key: getattr(row, key) for key in Preprocessing.names() if key in given}
    channels = 3
    if weights is not None:
        from keras_resnet.weights import Checkpoint, apply_weights, network_for, read_weights

        if not isinstance(weights, Checkpoint):
            weights = read_weights(weights, variant=row.name, include_top=include_top)
        row = network_for(row, weights, given)
        channels = weights.channels or channels
    plans = plan_blocks(row, output_stride)
    options = {
        "norm": {"epsilon": row.epsilon, **(norm or {})},
        "norm_layer": row.norm_layer,
        "activation": row.activation,
        "data_format": keras.config.image_data_format() if data_format is None else data_format,
        "dtype": keras.dtype_policies.get(dtype) if dtype is not None else None,
    }
    shape = input_shape
    if input_tensor is None and shape is None:
        size = row.image_size if include_top else None
        last = options["data_format"] == "channels_last"
        shape = (size, size, channels) if last else (channels, size, size)
    inputs = _input(row, input_tensor, shape, options["data_format"])
    model_input = inputs
    features = _features(row, inputs, plans, options)
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
        architecture=describe(row),
        rematerialize=rematerialize,
    )
    if weights is not None:
        apply_weights(model, weights, variant=row.name, given={"shortcut"})
        if input_shape is not None or input_tensor is not None:
            own.pop("image_size", None)  # the input's
        if own and model.preprocessing is not None:
            model.preprocessing = model.preprocessing.replace(**own)
    return model


def _input(row: Architecture, input_tensor, input_shape, data_format):
    """The tensor the network starts from, once its shape is found acceptable."""
    if input_tensor is None:
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


def _features(row: Architecture, x, plans, options):
    make, preactivation = _block_of(row), row.preactivation
    _check_options_of(make, options)
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
        arguments = _arguments(row, make, plan)
        name = f"stage{plan.stage}_block{plan.block}"
        rank = len(x.shape)
        x = make(x, row.widths[plan.stage - 1], plan.stride, name=name, **arguments, **options)
        if not isinstance(x, keras.KerasTensor) or len(x.shape) != rank:
            raise ValueError(
                f"`block` {_kind_of(row)} returned {x!r} as {name}; a block returns a Keras tensor "
                f"of the rank of its input, {rank}."
            )
    return blocks.norm_act(x, name="final", **options) if preactivation else x


def _block_of(row: Architecture) -> Callable[..., keras.KerasTensor]:
    if not isinstance(row.block, str):
        if isinstance(row.block, type) or not callable(row.block):
            raise ValueError(
                "`block` is a name, or a function of a tensor, filters and a stride that returns a "
                f"tensor; received {row.block!r}."
            )
        return row.block
    known = blocks.PREACT_BLOCKS if row.preactivation else blocks.BLOCKS
    if row.block not in known:
        raise ValueError(
            f"`block` is one of {', '.join(known)}, or a function; received "
            f"{row.block!r}{nearest(row.block, known)}"
        )
    return known[row.block]


def _check_options_of(make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = inspect.signature(make).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    if missing := [option for option in ("name", *options) if option not in known]:
        raise ValueError(
            f"`block`={make!r} does not take {', '.join(missing)}: a block is a function "
            "(x, filters, stride, *, name, **options), whose options it hands on to its layers."
        )


# Argument of a block -> the field of the row that it comes from, where their names differ.
_FIELDS = {"width": "base_width", "dropout_rate": "block_dropout_rate"}


def _arguments(row: Architecture, make, plan: BlockPlan) -> dict[str, Any]:
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
    arguments["zero_init_last_gamma"] = row.zero_init_last_gamma
    return {argument: value for argument, value in arguments.items() if argument in known}


def _kind_of(row: Architecture) -> str:
    if not isinstance(row.block, str):
        return getattr(row.block, "__name__", repr(row.block))
    return f"pre-activation {row.block}" if row.preactivation else row.block


def _check(row: Architecture, pooling, input_tensor, norm) -> None:
    """Refuse what no network can have, before anything is built."""
    if input_tensor is not None and not isinstance(input_tensor, keras.KerasTensor):
        raise ValueError(
            "`input_tensor` is a Keras tensor, such as keras.Input(...); received "
            f"{input_tensor!r}."
        )
    if norm is not None and not isinstance(norm, Mapping):
        raise ValueError(
            f"`norm` is a dict of options, such as {{'synchronized': True}}; received {norm!r}. "
            "Which normalization it is says `norm_layer`."
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
        kernel_initializer=_classifier_initializer(row),
        dtype=_classifier_dtype(dtype),
        name="predictions",
    )(x)


def _classifier_initializer(row: Architecture):
    wanted = row.classifier_initializer
    if isinstance(wanted, str) and wanted in CLASSIFIER_INITIALIZERS:
        return CLASSIFIER_INITIALIZERS[wanted]()
    try:
        return keras.initializers.get(wanted)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`classifier_initializer` is {', '.join(map(repr, CLASSIFIER_INITIALIZERS))} or an "
            f"initializer of Keras; received {wanted!r}"
            f"{nearest(wanted, CLASSIFIER_INITIALIZERS)}"
        ) from error


def _classifier_dtype(dtype):
    """Softmax and loss lose too much in 16 bits: the variables' dtype under a mixed policy."""
    policy = dtype or keras.config.dtype_policy()
    if policy.compute_dtype != policy.variable_dtype:
        return policy.variable_dtype
    return dtype
