"""The arguments of `create_model` as flags of a command."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from keras_resnet.bounds import parse_json
from keras_resnet.errors import UsageError, UserError


def _numbers(text: str) -> tuple[Any, ...]:
    values = ast.literal_eval(f"({text.strip().strip('()[]')},)")
    if not all(type(value) in (int, float, type(None)) for value in values):
        raise ValueError(text)
    return values


def _sizes(text: str) -> Any:
    """A whole number, several, or several for each stage."""
    return ast.literal_eval(text.strip())


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


# Of each argument: how its text is read, an example of it, and what it is. All of
# `Architecture.__call__` that text can say, but for `weights` and what needs the network first.
_Row = tuple[Callable[[str], Any], str, str]
MODEL_FLAGS: dict[str, _Row] = {
    "include_top": (_truth, "false", "Whether the model has a classifier."),
    "classes": (int, "37", "Number of classes, if not that of the weights."),
    "input_shape": (_numbers, "32,32,3", "Shape of an image: space and channels."),
    "pooling": (str, "avg", "Without classifier: avg or max."),
    "classifier_activation": (str, "linear", "Activation of the classifier; linear for logits."),
    "output_stride": (int, "16", "Pixels of the input for one of the last feature map."),
    "norm_layer": (str, "group", "Which normalization: batch, group, instance or layer."),
    "activation": (str, "silu", "Keras' name of the activation."),
    "data_format": (str, "channels_first", "channels_last or channels_first."),
    "depths": (_numbers, "3,4,6,3", "Blocks of each stage."),
    "widths": (_numbers, "64,128,256,512", "Channels of each stage."),
    "block": (str, "basic", "basic or bottleneck."),
    "preactivation": (_truth, "true", "Normalization before the convolutions (v2)."),
    "stem": (str, "cifar", "cifar, imagenet, deep or deep_strided."),
    "stem_width": (int, "64", "Channels of the stem's output."),
    "zero_pad_pool": (_truth, "false", "Pads the stem's pool with zeros."),
    "shortcut": (str, "A-centered", "Shortcuts A, A-centered, A-pooled, B or D (docs/weights.md)."),
    "groups": (int, "32", "Groups of the 3×3 convolution of a bottleneck."),
    "base_width": (int, "4", "Channels of a group where the stage has 64."),
    "stride_in_1x1": (_truth, "true", "Stride in the first 1×1 convolution of a bottleneck."),
    "stride_in_last_block": (_truth, "false", "Stride in the last block of a stage."),
    "preact_first_shortcut": (_truth, "true", "The first shortcut starts after an activation."),
    "use_bias": (_truth, "true", "Biases on the convolutions."),
    "epsilon": (float, "1e-5", "Epsilon of the normalizations."),
    "norm_groups": (int, "16", "Groups of group normalization."),
    "weight_standardization": (_truth, "true", "Convolves with standardized kernels (BiT)."),
    "antialias": (str, "blur", "What strides against aliasing: off, blur or average."),
    "projection": (str, "first", "Where shortcuts project: auto, shape or first (docs/blocks.md)."),
    "shortcut_norm": (_truth, "false", "Normalizes the projections of the shortcuts."),
    "residual": (_truth, "false", "false makes the plain twin, without shortcuts."),
    "se_ratio": (float, "0.0625", "Relative width of the squeeze-and-excitation gate."),
    "padding": (str, "same", "Padding where there are strides: symmetric (PyTorch), same (Keras)."),
    "block_kernel_size": (_sizes, "1,3,3", "Kernel of the 3×3 convolutions of the blocks."),
    "stage_stride": (_sizes, "1,2,2", "Stride from each stage to the next."),
    "stem_kernel_size": (_sizes, "3,7,7", "Kernel of the stem's convolutions."),
    "stem_stride": (_sizes, "1,2,2", "Stride of the stem's first convolution."),
    "stem_pool_size": (_sizes, "1,3,3", "Size of the stem's pool."),
    "stem_pool_stride": (_sizes, "1,2,2", "Stride of the stem's pool."),
    "stem_pool_padding": (
        str,
        "end",
        "Padding of the stem's pool, or end (Caffe).",
    ),
    "image_size": (int, "32", "Pixels of what the network sees."),
    "crop_ratio": (float, "0.875", "The share of the resized image that is kept."),
    "interpolation": (str, "bicubic", "How images are resized: bilinear or bicubic."),
    "resize": (str, "floor", "Rule for the resized side: round, floor, shortest_edge or plain."),
    "mean": (_numbers, "0.485,0.456,0.406", "Mean of R, G and B in 0..1 to subtract."),
    "std": (_numbers, "0.229,0.224,0.225", "Standard deviation of R, G and B to divide by."),
    "channel_order": (str, "bgr", "Order of the channels: rgb or bgr."),
}


def define_model_flags(flags: absl_flags.FlagValues) -> None:
    """Defines a text flag for each argument; None where it is not given."""
    for name, (_, example, meaning) in MODEL_FLAGS.items():
        help_text = f"{meaning} Example: {example}."
        absl_flags.DEFINE_string(name, None, help_text, flag_values=flags)


def model_arguments(flags: absl_flags.FlagValues) -> dict[str, Any]:
    """What was given, as `create_model` takes it.

    Raises:
        UsageError: for a text that is no such value.
    """
    arguments = {}
    for name, (read, example, _) in MODEL_FLAGS.items():
        text = flags[name].value
        if text is None:
            continue
        try:
            arguments[name] = read(text)
        except (ValueError, SyntaxError, KeyError, TypeError) as error:
            raise UsageError(
                f"--{name}={text}: cannot be read; for example --{name}={example}"
            ) from error
    return arguments


def read_class_names(path: str) -> list[str]:
    """The names in a file: a line for each class, or a JSON list.

    Raises:
        UserError: if there is no such file, or it holds no names.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--class_names={path}: cannot be read ({error})") from error
    if not text.lstrip().startswith("["):
        names = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        try:
            names = parse_json(text)
        except ValueError as error:
            raise UserError(f"--class_names={path}: is no JSON list ({error})") from error
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"--class_names={path}: holds no names, a line for each class")
    return names
