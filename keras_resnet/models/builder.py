"""From a row of the table to a Keras model."""

import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras

from keras_resnet import blocks
from keras_resnet.architectures import Architecture, get_architecture
from keras_resnet.architectures.arguments import explain_arguments
from keras_resnet.architectures.description import describe
from keras_resnet.axes import PerAxis, PerStage
from keras_resnet.errors import nearest
from keras_resnet.models.head import make_head
from keras_resnet.models.inputs import default_shape, make_input, preprocessing_for
from keras_resnet.models.plans import BlockPlan, plan_blocks
from keras_resnet.models.resnet import ResNet
from keras_resnet.preprocessing import Preprocessing


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
    kernel_initializer: str | Callable[..., Any] | None = None,
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
    norm_groups: int | None = None,
    weight_standardization: bool | None = None,
    antialias: str | None = None,
    projection: str | None = None,
    shortcut_norm: bool | None = None,
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
    padding: str | None = None,
    block_kernel_size: PerStage | None = None,
    stage_stride: PerStage | None = None,
    stem_kernel_size: PerAxis | None = None,
    stem_stride: PerAxis | None = None,
    stem_pool_size: PerAxis | None = None,
    stem_pool_stride: PerAxis | None = None,
    stem_pool_padding: str | None = None,
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
    data_format = keras.config.image_data_format() if data_format is None else data_format
    options = _layer_options(row, norm, data_format, dtype)
    shape = input_shape
    if shape is None:
        shape = default_shape(row, include_top, channels, data_format)
    inputs = make_input(row, input_tensor, shape, data_format)
    plans = plan_blocks(row, len(inputs.shape) - 2, output_stride)
    preprocessing = preprocessing_for(row, inputs, data_format)
    features = _features(row, inputs, plans, options)
    top = {"include_top": include_top, "pooling": pooling, "activation": classifier_activation}
    outputs = make_head(row, features, options, **top)
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
        inputs = inputs[0] if len(inputs) == 1 else inputs
    model = ResNet(
        inputs,
        outputs,
        name=model_name or row.name.lower(),
        preprocessing=preprocessing,
        architecture=describe(row),
        rematerialize=rematerialize,
    )
    if weights is not None:
        known = {"shortcut", "padding", "stem_pool_padding", "antialias"}
        apply_weights(model, weights, variant=row.name, given=known)
        if input_shape is not None or input_tensor is not None:
            own.pop("image_size", None)  # the input's
        if own and model.preprocessing is not None:
            model.preprocessing = model.preprocessing.replace(**own)
    return model


def _layer_options(row: Architecture, norm, data_format: str, dtype) -> dict[str, Any]:
    """What `keras_resnet.blocks.options.LayerOptions` is made of."""
    options = {
        "norm": {"epsilon": row.epsilon, "groups": row.norm_groups, **(norm or {})},
        "norm_layer": row.norm_layer,
        "activation": row.activation,
        "data_format": data_format,
        "dtype": keras.dtype_policies.get(dtype) if dtype is not None else None,
    }
    # Blocks of the caller's own need not know these otherwise.
    if row.padding != "symmetric":
        options["padding"] = row.padding
    if row.weight_standardization:
        options["weight_standardization"] = True
    if row.kernel_initializer != "fan_out":
        options["kernel_initializer"] = row.kernel_initializer
    if row.antialias != "off":
        options["antialias"] = row.antialias
    return options


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
        kernel_size=row.stem_kernel_size,
        stride=row.stem_stride,
        pool_size=row.stem_pool_size,
        pool_stride=row.stem_pool_stride,
        pool_padding=row.stem_pool_padding,
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
_FIELDS = {
    "width": "base_width",
    "dropout_rate": "block_dropout_rate",
    "kernel_size": "block_kernel_size",
}


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
        "kernel_size": (plan.kernel_size, None),
        "dilation": (plan.dilation, 1),
        "first_dilation": (plan.first_dilation, 1),
        "shortcut": (row.shortcut, "B"),
        "residual": (row.residual, True),
        "se_ratio": (row.se_ratio, 0),
        "dropout_rate": (row.block_dropout_rate, 0),
        "drop_path_rate": (row.drop_path_rate * plan.depth_fraction, 0),
        "use_bias": (row.use_bias, False),
        "projection": (_projection(row, plan), "auto"),
        "shortcut_norm": (row.shortcut_norm or row.preactivation, True),
    }
    known = inspect.signature(make).parameters
    for argument, (value, without) in wanted.items():
        if argument not in known and value != without:
            field = _FIELDS.get(argument, argument)
            raise ValueError(
                f"`{field}` is {getattr(row, field, value)!r}, but {row.name} has "
                f"{_kind_of(row)} blocks, which have no such choice."
            )
    # None leaves a kernel size to the block.
    arguments = {argument: value for argument, (value, _) in wanted.items() if value is not None}
    arguments["preact_shortcut"] = row.preact_first_shortcut and first
    arguments["zero_init_last_gamma"] = row.zero_init_last_gamma
    return {argument: value for argument, value in arguments.items() if argument in known}


def _projection(row: Architecture, plan: BlockPlan) -> str:
    if row.projection != "first":
        return row.projection
    return "always" if plan.block == 1 else "shape"


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
    if isinstance(row.norm_groups, bool) or not (
        isinstance(row.norm_groups, int) and row.norm_groups > 0
    ):
        raise ValueError(f"`norm_groups` must be a positive integer, received {row.norm_groups!r}.")
    if row.projection not in ("auto", "shape", "first"):
        raise ValueError(
            f"`projection` is 'auto', 'shape' or 'first', received {row.projection!r}."
        )
    for key in ("weight_standardization", "shortcut_norm"):
        if not isinstance(value := getattr(row, key), bool):
            raise ValueError(f"`{key}` is True or False, received {value!r}.")
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"`pooling` is None, 'avg' or 'max', received {pooling!r}.")
    for key in ("dropout_rate", "block_dropout_rate", "drop_path_rate"):
        rate = getattr(row, key)
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
            raise ValueError(f"`{key}` must be at least 0 and less than 1, received {rate!r}.")
    if not isinstance(row.se_ratio, (int, float)) or row.se_ratio < 0:
        raise ValueError(f"`se_ratio` must be 0 (no gate) or positive, received {row.se_ratio!r}.")
