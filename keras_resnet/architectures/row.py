"""A row of the table of networks, which builds its network when it is called."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_resnet.architectures.arguments import explain_arguments
from keras_resnet.axes import PerAxis, PerStage, frozen
from keras_resnet.errors import did_you_mean
from keras_resnet.preprocessing import Preprocessing

if TYPE_CHECKING:
    import keras

    from keras_resnet.models.resnet import ResNet

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A network as data: called, it builds the Keras model.

    `keras_resnet.ResNet50(classes=10)` is the network of that row with ten classes, and
    `keras_resnet.ResNet50.depths` is what the row says. Networks of your own:
    `dataclasses.replace(keras_resnet.ResNet50, name="Mine", depths=(1, 2, 2, 1))()`.

    Attributes:
        name: the name users type.
        source: paper and section that the row follows.
        depths: number of blocks per stage.
        widths: nominal width of each stage; a bottleneck's output has four times as many channels.
        library, reference: the library that has the same network, layer by layer and parameter by
            parameter, and its name there; "" if there is none.
        block: "basic", "bottleneck", or a function that is called as those of
            `keras_resnet.blocks` are: see `keras_resnet.create_model`.
        norm_layer, activation: see `keras_resnet.blocks.options.LayerOptions`.
        preactivation: normalization and activation before the convolutions (v2).
        stem: see `keras_resnet.blocks.stem`.
        stem_width: channels of the stem's output.
        zero_pad_pool: see `keras_resnet.blocks.stem`.
        shortcut: "A", "A-centered", "A-pooled", "B" or "D", see
            `keras_resnet.blocks.basic_block`.
        groups, base_width: a bottleneck is `int(width * base_width / 64) * groups` channels wide
            inside, its 3×3 convolution has that many groups (Xie et al. 2017, section 3).
        stride_in_1x1: stride in a bottleneck's first 1×1 convolution (He et al. 2015).
        stride_in_last_block: stride in the last block of a stage instead of the next stage's
            first (keras.applications' v2).
        preact_first_shortcut: the first block's identity shortcut starts after its activation.
        use_bias: biases on the convolutions; with `preactivation` only where no normalization
            follows directly.
        epsilon: epsilon of the normalizations.
        norm_groups: groups of group normalization; the most that divide the channels, too.
        weight_standardization, antialias: see `keras_resnet.blocks.options.LayerOptions`.
        projection: "auto" or "shape", see `keras_resnet.blocks.basic_block` and
            `preact_basic_block`, or "first": "always" in the first block of each stage.
        shortcut_norm: normalize the projections of post-activation blocks.
        residual: False for the plain twin of the network.
        zero_init_last_gamma: start each post-activation block as the identity (Goyal et al. 2017,
            section 5.1, for batches of thousands); He et al. 2015 do not.
        kernel_initializer: see `keras_resnet.blocks.options.KERNEL_INITIALIZERS`.
        classifier_initializer: see `keras_resnet.models.head.CLASSIFIER_INITIALIZERS`.
        se_ratio: relative width of the squeeze-and-excitation gate, 0 for none.
        dropout_rate: dropout before the classifier.
        block_dropout_rate: dropout before the last convolution of a pre-activation block.
        drop_path_rate: stochastic depth of the last block; earlier ones have less, linearly.
        classes: number of classes.
        image_size: native input size in pixels; with the fields that follow it is the
            preprocessing of a model whose weights do not bring their own.
        crop_ratio: the image's share of the resized one, at evaluation.
        interpolation: how images are resized.
        mean, std: of pixels scaled to 0..1, in the order of `channel_order`.
        channel_order: "rgb" or "bgr".
        resize: the rule for the sides of the resized image, see `keras_resnet.preprocessing`.
        padding: what strided kernels and pools find around their input, "symmetric" (PyTorch's) or
            "same" (Keras'), see `keras_resnet.blocks.options.LayerOptions`.
        block_kernel_size: of the blocks' spatial convolutions; None is 3.
        stage_stride: from each stage to the next.
        stem_kernel_size, stem_stride, stem_pool_size, stem_pool_stride, stem_pool_padding: see
            `keras_resnet.blocks.stem`.
    """

    name: str
    source: str
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    library: str = ""
    reference: str = ""
    block: str | Callable[..., Any] = "bottleneck"
    norm_layer: Any = "batch"
    activation: Any = "relu"
    preactivation: bool = False
    stem: str = "imagenet"
    stem_width: int = 64
    zero_pad_pool: bool = True
    shortcut: str = "B"
    groups: int = 1
    base_width: int = 64
    stride_in_1x1: bool = False
    stride_in_last_block: bool = False
    preact_first_shortcut: bool = False
    use_bias: bool = False
    epsilon: float = 1e-5
    norm_groups: int = 32
    weight_standardization: bool = False
    antialias: str = "off"
    projection: str = "auto"
    shortcut_norm: bool = True
    residual: bool = True
    zero_init_last_gamma: bool = True
    kernel_initializer: Any = "fan_out"
    classifier_initializer: Any = "fan_in"
    se_ratio: float = 0.0
    dropout_rate: float = 0.0
    block_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    classes: int = 1000
    image_size: int = 224
    crop_ratio: float = 0.875
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    channel_order: str = "rgb"
    resize: str = "round"
    padding: str = "symmetric"
    block_kernel_size: PerStage | None = None
    stage_stride: PerStage = 2
    stem_kernel_size: PerAxis | None = None
    stem_stride: PerAxis | None = None
    stem_pool_size: PerAxis | None = None
    stem_pool_stride: PerAxis | None = None
    stem_pool_padding: str | None = None

    @property
    def bottleneck(self) -> bool:
        """Whether its blocks are the bottlenecks of He et al. 2015."""
        return self.block == "bottleneck"

    @property
    def as_in(self) -> str:
        """Where to find the same network: a library and the name there, or the paper."""
        return f"{self.library} {self.reference}" if self.library else self.source

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image becomes an input, where the weights do not say otherwise."""
        return Preprocessing.from_fields_of(self)

    @explain_arguments
    def __call__(
        self,
        include_top: bool = True,
        weights: Any = None,
        input_tensor: "keras.KerasTensor | None" = None,
        input_shape: Sequence[int | None] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | Callable[..., Any] | None = "softmax",
        *,
        name: str | None = None,
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
    ) -> "ResNet":
        """Builds the network. The first arguments are those of keras.applications.

        Where the default is None, it is what the row says, unless noted otherwise.

        Args:
            include_top: end with global average pooling and a classifier.
            weights: None for random weights, or what `keras_resnet.weights` loads: "imagenet", a
                path, "hf://...", or what `read_weights` returned. Fields that the file names and
                the caller does not (depths, widths, the kind of shortcut) are the file's.
            input_tensor: Keras tensor to build on, instead of a new input.
            input_shape: (*space, channels), or (channels, *space) for "channels_first"; one, two
                or three spatial axes make a 1-D, 2-D or 3-D network. None for an axis leaves its
                size open. Default: three channels at the variant's native size, any size without
                top.
            pooling: without top: None gives the last feature map, "avg" and "max" pool it.
            classes: number of classes; default as in the table (1000, CIFAR: 10).
            classifier_activation: activation of the classifier; None gives logits.
            name: name of the Keras model; default: the row's in lower case.
            output_stride: pixels of the input per pixel of the last feature map: 32, 16 or 8
                (CIFAR: 4, 2 or 1); strides beyond it become dilations, as in torchvision's
                `replace_stride_with_dilation`.
            zero_init_last_gamma: start each post-activation block as the identity (Goyal et al.
                2017, section 5.1). The ImageNet networks do, the CIFAR networks do not.
            kernel_initializer: "fan_out", He et al. 2015 ("Delving Deep into Rectifiers"),
                normal with the variance 2 / (taps * output channels); "fan_in", uniform with the
                variance 1 / (3 * taps * input channels), as PyTorch starts a convolution; or what
                Keras takes.
            classifier_initializer: "fan_in", uniform with the standard deviation
                1 / sqrt(3 * features), as PyTorch starts a linear layer; "normal", the standard
                deviation 0.01 of Goyal et al. 2017 for 2,048 features; or what Keras takes.
            norm: options of the normalizations: `momentum`, `epsilon`, `synchronized`.
            norm_layer: which normalization: "batch", "group", "instance", "layer", a Keras layer
                class, or a function from a name to a new layer of that name.
            activation: name of a Keras activation, a function of a tensor, or a Keras layer class.
            block: "basic", "bottleneck", or a function that is called as
                `block(x, filters, stride, name=..., **options)` and returns a Keras tensor. It is
                given those of the built-in blocks' arguments that it names, and `norm`,
                `norm_layer`, `activation`, `data_format` and `dtype`, to be passed on to the
                functions of `keras_resnet.blocks`. The names of its layers start with `name` and
                an underscore.
            dtype: dtype policy of the layers, such as "mixed_bfloat16"; None is the global one.
                The classifier computes in float32 if the policy is a mixed one.
            rematerialize: recompute each block in the backward pass instead of keeping its
                activations: less memory, more time.
            data_format: "channels_last" or "channels_first"; None is Keras' global setting.
            depths: number of blocks per stage.
            widths: nominal width of each stage; a bottleneck's output has four times as many
                channels.
            bottleneck: True is `block="bottleneck"`, False is `block="basic"`.
            preactivation: normalization and activation before the convolutions (v2).
            stem: "cifar", "imagenet", "deep" or "deep_strided", see `keras_resnet.blocks.stem`.
            stem_width: channels of the stem's output.
            zero_pad_pool: pad the stem's pool with zeros instead of minus infinity.
            shortcut: "A", "A-centered", "A-pooled", "B" or "D", see
                `keras_resnet.blocks.basic_block`.
            groups: groups of a bottleneck's 3×3 convolution.
            base_width: a bottleneck is `int(width * base_width / 64) * groups` channels wide.
            stride_in_1x1: stride in a bottleneck's first 1×1 convolution.
            stride_in_last_block: stride in a stage's last block, not in the next one's first.
            preact_first_shortcut: the first block's identity shortcut starts after its activation.
            use_bias: biases on the convolutions.
            epsilon: epsilon of the normalizations.
            norm_groups: groups of group normalization (`norm_layer="group"`); the most that
                divide the channels, too.
            weight_standardization: convolve with kernels of zero mean and unit variance for each
                filter (Qiao et al. 2019), as Big Transfer does.
            antialias: what strides in the place of a block's branch and of the stem's pool:
                "off", those themselves; "blur", a low-pass filter (Zhang 2019; timm's
                `resnetblur`); "average", an average pool (timm's `resnetaa`).
            projection: where shortcuts are projections. "auto": where the shape changes, in
                pre-activation networks only where the number of channels does. "shape": where
                channels or stride change. "first": the same, and in the first block of each stage.
            shortcut_norm: normalize the projections of post-activation blocks.
            residual: False for the plain twin of the network.
            se_ratio: relative width of the squeeze-and-excitation gate, 0 for none.
            dropout_rate: dropout before the classifier.
            block_dropout_rate: dropout before a pre-activation block's last convolution.
            drop_path_rate: stochastic depth of the last block; earlier ones have less, linearly.
            image_size: native input size in pixels, for `input_shape` and `preprocessing`.
            crop_ratio: the image's share of the resized one, at evaluation.
            interpolation: how images are resized.
            mean: mean of pixels scaled to 0..1, in the order of `channel_order`.
            std: their standard deviation.
            channel_order: "rgb" or "bgr".
            resize: the rule for the sides of the resized image: "round", "floor", "shortest_edge"
                or "plain", see `keras_resnet.preprocessing.Preprocessing`.
            padding: what strided kernels and pools find around their input: "symmetric", as many
                pixels before it as after it (PyTorch, keras.applications), or "same", Keras' and
                TensorFlow's padding of that name, which has more of them at the end.
            block_kernel_size: of the blocks' 3×3 convolutions: a number, one for each spatial
                axis, such as (1, 3, 3), or a sequence of such sequences, one for each stage. Odd,
                unless `padding="same"`.
            stage_stride: from each stage to the next, likewise. With an entry for each stage the
                first one is the stride of the first stage, which otherwise has none.
            stem_kernel_size: of the stem's convolutions, a number or one for each spatial axis.
            stem_stride: of its first convolution, likewise.
            stem_pool_size: of its pool's window, likewise.
            stem_pool_stride: of its pool (deep_strided: of its last convolution), likewise.
            stem_pool_padding: "symmetric"; "same"; or "end", pixels at the end only, as in Caffe
                and in PyTorch's `ceil_mode=True`. None is `padding`.

        Returns:
            A `ResNet`. Its input is a float tensor, normalized with `model.preprocessing`; its
            output has shape (batch, classes), or that of the features.

        Raises:
            ValueError: for an argument outside the ranges above, quoting it.
            TypeError: for an argument that does not exist, naming the nearest.
        """
        arguments = {key: value for key, value in locals().items() if key != "self"}
        # Here and not above: a look at the table does not load Keras.
        from keras_resnet.models.builder import build_model

        if not isinstance(include_top, bool):
            raise TypeError(_no_truth(self.name, include_top))
        given = {key for key, value in arguments.items() if value is not None}
        fields = arguments.keys() & CHANGEABLE
        row = self.changed(**{key: arguments.pop(key) for key in fields})
        return build_model(row, given=given, model_name=arguments.pop("name"), **arguments)

    def changed(self, **fields: Any) -> "Architecture":
        """This row with other fields; None keeps the row's own.

        Args:
            **fields: fields of `Architecture`; `bottleneck` (bool) is another way to say
                `block="bottleneck"` or `block="basic"`.

        Raises:
            TypeError: for an unknown field, naming the nearest.
            ValueError: for values that cannot be.
        """
        for key in fields:
            if key not in CHANGEABLE:
                near = did_you_mean(key, [*CHANGEABLE, "input_shape", "pooling", "weights"])
                raise TypeError(f"create_model takes no argument {key!r}.{near}")
        fields = {key: value for key, value in fields.items() if value is not None}
        if "bottleneck" in fields:
            bottleneck = fields.pop("bottleneck")
            if "block" in fields:
                raise ValueError(
                    f"`block` and `bottleneck` say the same: leave bottleneck={bottleneck!r} out."
                )
            fields["block"] = "bottleneck" if bottleneck else "basic"
        fields = {key: frozen(value) for key, value in fields.items()}
        for key in ("depths", "widths"):
            if key in fields:
                fields[key] = _positive_integers(key, fields[key])
        row = dataclasses.replace(self, **fields)
        if len(row.depths) != len(row.widths):
            raise ValueError(
                "`depths` and `widths` need one number per stage each, received "
                f"depths={row.depths} and widths={row.widths}."
            )
        return row

    def __post_init__(self) -> None:
        # What help() prints, and what functions have that stand in the place of a row.
        same = f"; layer by layer {self.as_in}" if self.library else ""
        title = f"{self.name}: {self.source}{same}"
        documentation = inspect.cleandoc(type(self).__call__.__doc__ or "")
        object.__setattr__(self, "__doc__", f"{title}.\n\n{documentation}")
        object.__setattr__(self, "__name__", self.name)


def _no_truth(name: str, include_top: Any) -> str:
    message = f"`include_top` of {name} is True or False, received"
    if getattr(include_top, "shape", ()) == ():  # NumPy's truth values have one, too
        return f"{message} {include_top!r}."
    # The call of other packages.
    shape = tuple(include_top.shape)
    return f"{message} a tensor of shape {shape}. To build on it: {name}(input_tensor=...)."


# What is changed in a row; the others are what it is known by.
CHANGEABLE = {field.name for field in dataclasses.fields(Architecture)} | {"bottleneck"}
CHANGEABLE -= {"name", "source", "library", "reference"}


def _positive_integers(key: str, values: Sequence[Any]) -> tuple[int, ...]:
    values = tuple(values)
    if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise ValueError(f"`{key}` must hold a positive integer per stage, received {values!r}.")
    return values
