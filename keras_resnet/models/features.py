"""Feature maps of a residual network by level, and the feature pyramid on top of them."""

import re
from collections.abc import Sequence
from typing import Any

import keras

from keras_resnet.architectures import ARCHITECTURES
from keras_resnet.architectures.description import fields_of
from keras_resnet.axes import PerAxis, compact, frozen, per_axis
from keras_resnet.blocks.common import Builder
from keras_resnet.layers.keras_internals import run_through_graph
from keras_resnet.models.resnet import ResNet

BLOCK_END = re.compile(r"stage(\d+)_block(\d+)_")
ACTIVATION = re.compile(r"_(act\d*|out)$")  # layer names are API


def feature_extractor(model: keras.Model) -> ResNet:
    """The model's feature maps: the output of every stage, as a dict.

    The keys are `C2` for the first stage, `C3` for the second and so on, as Lin et al. 2017
    (section 3) name the stages of an ImageNet ResNet, whose level k has a stride of 2**k; with an
    `output_stride` the last levels share a resolution. A CIFAR network has three stages, `C2` to
    `C4`, of the strides 1, 2 and 4.

    A level is what the stage's last block returns: activated in post-activation networks; a bare
    sum in pre-activation ones, but for the last level, which is taken after the network's final
    normalization and activation. Where the stride is in a stage's last block (keras.applications'
    v2), the level is the input of that block, the last tensor of its resolution.

    Works on any variant, rank and output stride, with and without top, and on a loaded or cloned
    model: it goes by the names of the layers. Layers and weights are shared with `model`.

    Args:
        model: a model of this package, or one whose layers have the names it gives.

    Returns:
        A `ResNet` whose output is a dict of Keras tensors, finest level first.

    Raises:
        ValueError: if `model` has no residual blocks of that naming.
    """
    stages: dict[int, dict[int, list[keras.layers.Layer]]] = {}
    for layer in model.layers:
        match = BLOCK_END.match(layer.name)
        if match:
            stage = int(match.group(1))
            stages.setdefault(stage, {}).setdefault(int(match.group(2)), []).append(layer)
    if not stages:
        raise ValueError(
            f"The model {model.name!r} has no layers named 'stage1_block1_...': it is no network "
            "of keras_resnet."
        )
    lasts = {stage: blocks[max(blocks)] for stage, blocks in sorted(stages.items())}
    outputs = {f"C{stage + 1}": _output(model, lasts, stage) for stage in lasts}
    return ResNet(
        model.inputs[0] if len(model.inputs) == 1 else model.inputs,
        outputs,
        name=f"{model.name}_features",
        preprocessing=getattr(model, "preprocessing", None),
        rematerialize=getattr(model, "rematerialize", False),
    )


def _output(model, lasts: dict[int, list[keras.layers.Layer]], stage: int) -> keras.KerasTensor:
    """Of a stage, from the layers of every stage's last block in the order they run in."""
    if stage == max(lasts) and any(layer.name == "final_act" for layer in model.layers):
        return model.get_layer("final_act").output
    if _strides_come_last(model, lasts) and _is_strided(lasts[stage]):
        return lasts[stage][0].input
    return lasts[stage][-1].output


def _strides_come_last(model, lasts: dict[int, list[keras.layers.Layer]]) -> bool:
    fields = fields_of(getattr(model, "architecture", None))
    if fields:
        own = ARCHITECTURES[fields["name"]].stride_in_last_block
        return bool(fields.get("stride_in_last_block", own))
    # The first stage has the stem's resolution, unless strides come in last blocks.
    return _is_strided(lasts[min(lasts)])


def _is_strided(layers: list[keras.layers.Layer]) -> bool:
    strides = [getattr(layer, "strides", 1) for layer in layers]
    return any(max(s) > 1 if isinstance(s, (tuple, list)) else s > 1 for s in strides)


def feature_pyramid(
    model: keras.Model,
    filters: int = 256,
    *,
    levels: tuple[int, int] = (2, 6),
    coarse: str = "pool",
    name: str | None = None,
) -> ResNet:
    """Add a feature pyramid network to a model.

    Lin et al., "Feature Pyramid Networks for Object Detection" (2017), section 3: 1×1
    convolutions bring each level to `filters` channels, each is added to the next coarser one,
    upsampled by the nearest neighbor, and a 3×3 convolution follows. No activations.

    Args:
        model: as for `feature_extractor`.
        filters: channels of every level.
        levels: finest and coarsest level; (2, 6) is the paper's, (3, 7) RetinaNet's. Levels
            beyond the network's last one are made as `coarse` says.
        coarse: "pool": a stride-2 subsampling of the last level (Lin et al. 2017, footnote 3);
            "conv": 3×3 convolutions of stride 2 from the last feature map of the network, with its
            activation between them (RetinaNet, with a ReLU: Lin et al., "Focal Loss", 2017, section
            4, footnote 2).
        name: name of the model.

    Returns:
        A `ResNet` whose output is a dict of Keras tensors `P2`, `P3`, ..., finest first.

    Raises:
        ValueError: for levels the network does not have, or an unknown `coarse`.
    """
    features = feature_extractor(model)
    maps = {int(key[1:]): tensor for key, tensor in features.output.items()}
    if not (isinstance(levels, Sequence) and len(levels) == 2):
        raise ValueError(
            "`levels` are two numbers, the finest and the coarsest level, such as (2, 6); "
            f"received {levels!r}."
        )
    finest, coarsest = levels
    if not min(maps) <= finest <= max(maps) or coarsest < finest:
        raise ValueError(
            f"`levels` are the finest and the coarsest one, the finest between {min(maps)} and "
            f"{max(maps)} for the model {model.name!r}; received {levels!r}."
        )
    if coarse not in ("pool", "conv"):
        raise ValueError(f"`coarse` is 'pool' or 'conv', received {coarse!r}.")
    build = _builder_like(model, next(iter(maps.values())))
    last = min(max(maps), coarsest)
    maps = {k: maps[k] for k in maps if k >= finest}
    sizes = _sizes_of_levels(features, build)
    pyramid = _top_down(build, {k: maps[k] for k in maps if k <= last}, sizes, filters)
    # Axes that the network never strides from level to level are not strided beyond it either.
    ends = sizes[min(sizes)], sizes[max(sizes)]
    stride = tuple(1 if fine == coarse else 2 for fine, coarse in zip(*ends, strict=True))
    if max(stride) == 1:
        stride = (2,) * build.rank
    _add_coarse_levels(
        build, model, pyramid, maps[max(maps)], (last, coarsest), stride, filters, coarse
    )
    outputs = {f"P{k}": pyramid[k] for k in sorted(pyramid)}
    return ResNet(
        features.inputs[0] if len(features.inputs) == 1 else features.inputs,
        outputs,
        name=name or f"{model.name}_pyramid",
        preprocessing=features.preprocessing,
        rematerialize=features.rematerialize,
    )


def _builder_like(model, tensor) -> Builder:
    """Layers in the data format and dtype policy of the model's own convolutions."""
    conv = next(layer for layer in model.layers if hasattr(layer, "kernel_size"))
    return Builder(tensor, {"data_format": conv.data_format, "dtype": conv.dtype_policy})


def _activation_like(build: Builder, model, name: str) -> keras.layers.Layer:
    """A layer like the network's first activation; a ReLU where none is found by its name."""
    layer = next((layer for layer in model.layers if ACTIVATION.search(layer.name)), None)
    if layer is None:
        return keras.layers.Activation("relu", dtype=build.options.dtype, name=name)
    config = {**layer.get_config(), "name": name}
    if isinstance(layer, keras.layers.Activation):
        config["activation"] = layer.activation  # a function that is not registered, too
    return type(layer).from_config(config)


def _top_down(build: Builder, maps: dict, sizes: dict, filters: int) -> dict:
    pyramid, above = {}, None
    for level in sorted(maps, reverse=True):
        x = build.conv(maps[level], filters, 1, use_bias=True, name=f"fpn_lateral{level}")
        if above is not None:
            pairs = zip(sizes[level], sizes[level + 1], strict=True)
            factors = [round(fine / coarse) for fine, coarse in pairs]
            if max(factors) > 1:
                above = UpsampleLike(
                    build.options.data_format,
                    compact(factors),
                    dtype=build.options.dtype,
                    name=f"fpn_up{level}",
                )([above, x])
            x = build.add(x, above, name=f"fpn{level}")
        above = x
        pyramid[level] = build.conv(x, filters, 3, use_bias=True, name=f"P{level}")
    return pyramid


def _sizes_of_levels(features: ResNet, build: Builder) -> dict[int, tuple[int, ...]]:
    """Sizes of each level for an input of 1024 pixels along every axis."""
    shape = [1024 if size is None else size for size in features.inputs[0].shape]
    first = 1 if build.axis == -1 else 2
    for axis in range(first, first + build.rank):
        shape[axis] = 1024
    shape[0] = 1
    example = keras.KerasTensor(tuple(shape))
    outputs = run_through_graph(features, [example], lambda layer: layer.compute_output_spec)
    sizes = [tensor.shape[first : first + build.rank] for tensor in keras.tree.flatten(outputs)]
    return {int(key[1:]): size for key, size in zip(features.output, sizes, strict=True)}


def _add_coarse_levels(
    build: Builder,
    model,
    pyramid: dict,
    last_map,
    levels: tuple[int, int],
    stride: tuple[int, ...],
    filters: int,
    coarse: str,
) -> None:
    x = last_map
    last, coarsest = levels
    for level in range(last + 1, coarsest + 1):
        if coarse == "pool":
            pool = build.layer("MaxPooling", 1, strides=stride, name=f"P{level}")
            pyramid[level] = pool(pyramid[level - 1])
            continue
        if level > last + 1:
            x = _activation_like(build, model, f"fpn_act{level}")(x)
        x = build.conv(x, filters, 3, stride=stride, use_bias=True, name=f"P{level}")
        pyramid[level] = x


@keras.saving.register_keras_serializable(package="keras_resnet")
class UpsampleLike(keras.layers.Layer):
    """Repeat each pixel of the first tensor `factors` times, cropped to the second's size.

    Input: two float tensors of rank 3, 4 or 5, the first smaller by `factors` (rounded up) along
    the spatial axes. Output: the first one's channels at the second one's size.

    Args:
        data_format: "channels_last" or "channels_first"; None takes Keras' global setting.
        factors: a number for all spatial axes, or one for each.
    """

    def __init__(self, data_format: str | None = None, factors: PerAxis = 2, **kwargs: Any):
        super().__init__(**kwargs)
        self.factors = frozen(factors)
        self.data_format = data_format or keras.config.image_data_format()
        self.built = True

    def _axes(self, rank: int) -> range:
        return range(1, rank - 1) if self.data_format == "channels_last" else range(2, rank)

    def call(self, inputs):
        coarse, fine = inputs
        sizes = keras.ops.shape(fine)
        rank = len(coarse.shape)
        factors = per_axis(self.factors, rank - 2, "factors")
        for axis, factor in zip(self._axes(rank), factors, strict=True):
            if factor == 1:
                continue
            repeated = keras.ops.repeat(coarse, factor, axis=axis)
            ends = [slice(sizes[i]) if i == axis else slice(None) for i in range(rank)]
            coarse = repeated[tuple(ends)]
        return coarse

    def compute_output_shape(self, input_shape):
        coarse, fine = (list(shape) for shape in input_shape)
        for axis in self._axes(len(coarse)):
            coarse[axis] = fine[axis]
        return tuple(coarse)

    def get_config(self):
        return {
            **super().get_config(),
            "data_format": self.data_format,
            "factors": self.factors,
        }
