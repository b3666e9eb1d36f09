"""The network as it is needed for inference: normalizations folded, layers of training gone."""

import keras
import numpy as np

from keras_resnet.blocks.normalization import is_normalization
from keras_resnet.layers import BlurPool, StochasticDepth, keras_internals
from keras_resnet.layers.standardized_conv import PLAIN_CONVOLUTIONS

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_AVERAGE_POOLS = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
)
_ONLY_IN_TRAINING = (keras.layers.Dropout, StochasticDepth)
# 16 bits are too few for statistics and for what is averaged over the whole image.
_FLOAT32_LAYERS = (
    keras.layers.Dense,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    # Pixels, before they are scaled.
    keras.layers.Rescaling,
    keras.layers.Normalization,
)


def fold_batch_normalization(model: keras.Model) -> keras.Model:
    """A copy of `model` for inference, without the normalizations that follow a convolution.

    A convolution and the normalization of its output are one affine map of the input:
    gamma / sqrt(variance + epsilon) goes into the kernel, the rest into a bias (Jacob et al. 2018,
    section 3.2), computed in float64. Outputs equal those of `model` in inference to rounding. A
    low-pass filter between them leaves constants alone, and so changes nothing of this. A
    normalization that comes first, as at the start of a pre-activation block, has no convolution
    to go into and stays. Dropout and stochastic depth are left out. Convolutions with weight
    standardization become plain ones with the standardized kernel.

    Args:
        model: a functional model of any rank, as `keras_resnet.create_model` makes them.

    Returns:
        A model of the same class; the layers that remain keep their names.
    """
    return inference_copy(model)


def inference_copy(
    model: keras.Model,
    *,
    fold: bool = True,
    precision: str = "float32",
    channels_last: bool = False,
) -> keras.Model:
    """As `fold_batch_normalization`, in a precision of choice and with folding as an option.

    Args:
        model: a functional model.
        fold: False keeps the normalizations, those of kernels, too.
        precision: "float32", or "bfloat16" for bfloat16 kernels and arithmetic; statistics, the
            pool over the image and the classifier stay in float32. A classifier's kernel and
            everything in "float32" is what the model has, to the bit, where nothing is folded.
        channels_last: turn a "channels_first" network around, which TensorFlow cannot run on a CPU.
            Kernels have the same layout in both.

    Raises:
        ValueError: the model is no functional one.
    """
    if not keras_internals.is_functional(model):
        raise ValueError(f"only functional models can be exported, {model.name!r} is none")
    folded = _foldable_pairs(model) if fold else {}
    norms = {norm.name for norm in folded.values()}
    turned = channels_last and is_channels_first(model)

    def clone(layer):
        if layer.name in norms or isinstance(layer, _ONLY_IN_TRAINING):
            return keras.layers.Identity(name=layer.name)
        plain = PLAIN_CONVOLUTIONS.get(type(layer)) if fold else None
        config = layer.plain_config() if plain else layer.get_config()
        config["dtype"] = _policy(layer, precision)
        if isinstance(layer, keras.layers.Activation):
            config["activation"] = layer.activation  # a function that is not registered, too
        if layer.name in folded:
            config["use_bias"] = True
        if turned:
            _turn(layer, config)
        return (plain or type(layer)).from_config(config)

    def call(layer, *args, **kwargs):
        if isinstance(layer, keras.layers.Identity):
            return args[0]
        return layer(*args, **kwargs)

    inputs = _turned_input(model) if turned else None
    copy = keras.models.clone_model(
        model, input_tensors=inputs, clone_function=clone, call_function=call
    )
    for layer in copy.layers:
        if layer.name in folded:
            convolution = model.get_layer(layer.name)
            layer.set_weights(_folded_weights(convolution, folded[layer.name]))
        elif layer.weights:
            original = model.get_layer(layer.name)
            layer.set_weights(_weights(original) if fold else original.get_weights())
    return copy


def is_channels_first(model: keras.Model) -> bool:
    """Whether the layers of a model have their channels before the spatial axes."""
    return any(getattr(layer, "data_format", None) == "channels_first" for layer in model.layers)


def _turned_input(model: keras.Model):
    (tensor,) = model.inputs
    channels, *space = tensor.shape[1:]
    turned = keras.Input((*space, channels), dtype=tensor.dtype, name=tensor.name)
    return keras.tree.pack_sequence_as(model.input, [turned])


def _turn(layer, config: dict) -> None:
    if "data_format" in config:
        config["data_format"] = "channels_last"
    elif is_normalization(layer) and "axis" in config:
        config["axis"] = -1


def _policy(layer, precision: str) -> str:
    if precision == "float32" or isinstance(layer, _FLOAT32_LAYERS):
        return "float32"
    # Its variables stay in float32; inputs and outputs are bfloat16.
    return f"mixed_{precision}" if is_normalization(layer) else precision


def _foldable_pairs(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Name of a convolution -> the normalization that alone reads its linear output."""
    pairs = {}
    outputs = {id(tensor) for tensor in model.outputs}
    readers = readers_of(model)
    for layer in model.layers:
        if not isinstance(layer, _CONVOLUTIONS) or keras_internals.number_of_calls(layer) != 1:
            continue
        if layer.activation is not keras.activations.linear or id(layer.output) in outputs:
            continue
        following = readers.get(id(layer.output), [])
        while len(following) == 1 and _averages(following[0], outputs):
            following = readers.get(id(following[0].output), [])
        if len(following) == 1 and _normalizes_channels(following[0], layer):
            pairs[layer.name] = following[0]
    return pairs


def _averages(layer, outputs: set[int]) -> bool:
    """Whether a layer gives means of its input, of weights with the sum 1, for one reader."""
    if not isinstance(layer, (BlurPool, *_AVERAGE_POOLS)):
        return False
    return keras_internals.number_of_calls(layer) == 1 and id(layer.output) not in outputs


def readers_of(model: keras.Model) -> dict[int, list]:
    """Id of a Keras tensor -> the layers of `model` that read it."""
    readers: dict[int, list] = {}
    for node in keras_internals.nodes_in_running_order(model):
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node.operation)
    return readers


def _normalizes_channels(layer, convolution) -> bool:
    if not isinstance(layer, keras.layers.BatchNormalization):
        return False
    if keras_internals.number_of_calls(layer) != 1:
        return False
    rank = len(convolution.output.shape)
    channels = rank - 1 if convolution.data_format == "channels_last" else 1
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    return axis % rank == channels


def _kernel(convolution):
    """What a convolution convolves with."""
    standardized = type(convolution) in PLAIN_CONVOLUTIONS
    return convolution.standardized_kernel() if standardized else convolution.kernel


def _weights(layer) -> list[np.ndarray]:
    """A layer's weights; of a standardized convolution those of the plain one in its place."""
    weights = layer.get_weights()
    if type(layer) in PLAIN_CONVOLUTIONS:
        weights[0] = keras.ops.convert_to_numpy(_kernel(layer))
    return weights


def _folded_weights(convolution, norm) -> list[np.ndarray]:
    """Kernel and bias of both layers together."""

    def numbers(variable, default=0.0):
        if variable is None:
            return np.float64(default)
        return keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32")).astype(np.float64)

    gamma = numbers(norm.gamma if norm.scale else None, 1.0)
    beta = numbers(norm.beta if norm.center else None)
    factor = gamma / np.sqrt(numbers(norm.moving_variance) + norm.epsilon)
    bias = numbers(convolution.bias if convolution.use_bias else None)
    kernel = numbers(_kernel(convolution)) * factor  # filters are the kernel's last axis, always
    bias = beta + (bias - numbers(norm.moving_mean)) * factor
    return [kernel.astype(np.float32), bias.astype(np.float32)]
