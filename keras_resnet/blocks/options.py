"""How the layers of a block are made: the keyword arguments that all blocks share."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_resnet.blocks.normalization import NORM_DEFAULTS, NormLayer, check_norm, class_of
from keras_resnet.errors import nearest

Activation = str | Callable[..., Any] | type[keras.layers.Layer]

# What strided kernels and pools find around their input.
PADDINGS = ("symmetric", "same")

# How the kernels of convolutions start. Before a normalization their size says how large the first
# steps are, not what the network computes: those of "fan_in" are 2.4 times smaller.
KERNEL_INITIALIZERS: dict[str, Callable[[], keras.Initializer]] = {
    # He et al. 2015, "Delving Deep into Rectifiers", section 2.2, backward form, as torchvision.
    "fan_out": lambda: keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
    # PyTorch's torch.nn.Conv2d: uniform between ±1 / sqrt(taps * channels of the input).
    "fan_in": lambda: keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
}
# What a network does against aliasing where it strides.
ANTIALIASES = ("off", "blur", "average")


@dataclasses.dataclass(frozen=True)
class LayerOptions:
    """How the layers of a block are made; the keyword arguments that all blocks share.

    Attributes:
        norm: options of the normalizations: `momentum` (default 0.9), `epsilon` (1e-5),
            `synchronized` (False) and `groups` (32; the most that divide the channels, too),
            each may be left out.
        norm_layer: which normalization: a name of `keras_resnet.blocks.NORM_LAYERS` ("batch",
            "group", "instance", "layer"); a Keras layer class, or a `functools.partial` of one,
            which is called with `name` and those of `axis`, `epsilon`, `momentum`, `synchronized`,
            `gamma_initializer` and `dtype` that it takes and the partial leaves open; or a
            function that is given a name and returns a new layer of that name, used as it is.
        activation: name of a Keras activation, a function of a tensor, or a Keras layer class
            such as `keras.layers.PReLU`, or a `functools.partial` of one. Register your own
            functions and classes with `keras.saving.register_keras_serializable`, or `.keras`
            files cannot be loaded.
        data_format: "channels_last" or "channels_first"; None takes
            `keras.config.image_data_format()`.
        dtype: dtype or dtype policy of every layer; None takes the global policy.
        padding: "symmetric": strided kernels have as many pixels before the input as after it, as
            in PyTorch and keras.applications; "same": Keras' and TensorFlow's padding of that
            name, which has one more at the end where the number is odd.
        weight_standardization: convolve with kernels of zero mean and unit variance for each
            filter (Qiao et al. 2019), except in squeeze-and-excitation gates.
        kernel_initializer: how the kernels of convolutions start: a name of
            `KERNEL_INITIALIZERS`, "fan_out" (He et al. 2015) or "fan_in" (PyTorch's default), or
            an initializer of Keras, each convolution drawing numbers of its own.
        antialias: what takes over the stride of a block's branch, after the activation of the
            convolution that would have it, and of the stem's pool: "off", nothing; "blur", a
            `keras_resnet.layers.BlurPool` (Zhang 2019), in the stem after a max pool of stride 1;
            "average", an average pool of the stride's size, in the stem instead of the max pool.
            As in timm; the stem's first convolution and shortcuts keep their strides.
    """

    norm: Mapping[str, Any] | None = None
    norm_layer: NormLayer = "batch"
    activation: Activation = "relu"
    data_format: str | None = None
    dtype: Any = None
    padding: str = "symmetric"
    weight_standardization: bool = False
    kernel_initializer: Any = "fan_out"
    antialias: str = "off"

    def __post_init__(self) -> None:
        if self.padding not in PADDINGS:
            raise ValueError(
                "`padding` is 'symmetric' (PyTorch's) or 'same' (Keras' for strides: more at the "
                f"end); received {self.padding!r}."
            )
        if self.antialias not in ANTIALIASES:
            raise ValueError(
                "`antialias` is 'off', 'blur' (a low-pass filter where the network strides) or "
                "'average' (an average pool there); received "
                f"{self.antialias!r}{nearest(self.antialias, ANTIALIASES)}"
            )
        check_norm(self.norm_layer, self.norm or {})
        data_format = self.data_format or keras.config.image_data_format()
        if data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                "`data_format` is 'channels_last', 'channels_first' or None, received "
                f"{self.data_format!r}."
            )
        if not isinstance(self.weight_standardization, bool):
            raise ValueError(
                "`weight_standardization` is True or False, received "
                f"{self.weight_standardization!r}."
            )
        if isinstance(self.activation, keras.layers.Layer):
            raise ValueError(
                "`activation` makes a new layer for each place: pass the class, "
                f"{type(self.activation).__name__}, instead of {self.activation!r}."
            )
        _check_activation(self.activation)
        # Of the names none is made here: each initializer draws a seed when it is made.
        if self.kernel_initializer not in tuple(KERNEL_INITIALIZERS):
            self.make_kernel_initializer()
        object.__setattr__(self, "norm", {**NORM_DEFAULTS, **(self.norm or {})})
        object.__setattr__(self, "data_format", data_format)

    def make_kernel_initializer(self) -> Any:
        """A new initializer for the kernel of one convolution."""
        return initializer(self.kernel_initializer, KERNEL_INITIALIZERS, "kernel_initializer")


def initializer(
    wanted: Any, named: Mapping[str, Callable[[], keras.Initializer]], argument: str
) -> Any:
    """A new initializer: one of `named`, or what Keras makes of `wanted`.

    Raises:
        ValueError: for what is neither, quoting it; `argument` is its name.
    """
    if isinstance(wanted, str) and wanted in named:
        return named[wanted]()
    try:
        found = keras.initializers.get(wanted)
        if found is None:
            raise ValueError("no initializer")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"`{argument}` is {', '.join(map(repr, named))} or an initializer of Keras; received "
            f"{wanted!r}{nearest(wanted, named)}"
        ) from error
    # An instance draws the same numbers each time.
    return found.clone() if isinstance(found, keras.Initializer) else found


def _check_activation(activation: Any) -> None:
    if isinstance(kind := class_of(activation), type):
        if not issubclass(kind, keras.layers.Layer):
            raise ValueError(f"`activation` as a class is one of a Keras layer, received {kind}.")
        return
    try:
        keras.activations.get(activation)
    except (ValueError, TypeError) as error:
        known = [name for name, value in vars(keras.activations).items() if callable(value)]
        raise ValueError(
            "`activation` is the name of a Keras activation, a function of a tensor or a Keras "
            f"layer class; received {activation!r}{nearest(activation, known)}"
        ) from error
