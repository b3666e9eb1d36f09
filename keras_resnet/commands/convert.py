"""usage: keras-resnet convert [--model=NAME] --weights=WEIGHTS --output=FILE.keras

Makes a .keras file of trained weights, with the preprocessing that goes with them. WEIGHTS is a
file (.safetensors, .pth, .pt, .th, .ckpt, .npz, .keras, .weights.h5, .h5 of keras.applications), a
folder that transformers or KerasHub saved, an address hf://OWNER/REPOSITORY[@REVISION][/FILE] or
"imagenet".
Weights of timm, transformers, KerasHub and this project name their network; others need --model.
The number of classes is that of the weights; weights without a classifier make a model without one.
In Python, `import keras_resnet`, then `keras.saving.load_model("FILE.keras")`."""

import warnings
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from keras_resnet.commands.model_flags import (
    define_model_flags,
    model_arguments,
    read_class_names,
)
from keras_resnet.commands.options import (
    check_folder_of,
    define_strings,
    define_weights_names,
)
from keras_resnet.commands.startup import start_keras
from keras_resnet.config import parse_renamings
from keras_resnet.errors import UsageError, UserError
from keras_resnet.printing import printable
from keras_resnet.storage import replacing

SUMMARY = "Make a .keras file of weights from PyTorch, timm, transformers or keras.applications."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --model, --weights, --output, what changes names, and all model arguments."""
    define_strings(
        flags,
        model="Name of the network, such as ResNet50; not needed if the weights name it.",
        weights="A file of weights, a folder of transformers or KerasHub, an hf:// address, or "
        "imagenet.",
        output="The .keras file to write.",
        class_names="A file with the names of the classes: a line for each, or a JSON list.",
    )
    define_weights_names(flags)
    define_model_flags(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Converts, says what it wrote and returns 0."""
    if arguments or not (flags.weights and flags.output):
        raise UsageError("convert takes --weights and --output, and no argument that is no flag")
    output = Path(flags.output)
    if output.suffix != ".keras":
        raise UsageError(f"--output={output}: the name should end with .keras")
    check_folder_of(flags, "output")
    given = model_arguments(flags)
    names = parse_renamings(flags.rename, "--rename")
    class_names = read_class_names(flags.class_names) if flags.class_names else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            start_keras()
            model = _converted(flags, names, given)
        except UserError:
            raise
        except (ImportError, TypeError, ValueError) as error:
            raise UserError(str(error)) from error
    if class_names is not None:
        _check_count(flags.class_names, class_names, model)
        model.class_names = class_names
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            print(f"note: {printable(warning.message)}")
    with replacing(output) as temporary:
        model.save(temporary)
    print(f"{output}: {_describe(model)}")
    return 0


def _check_count(file: str, class_names: list[str], model) -> None:
    outputs = model.output_shape[-1]
    if _has_classifier(model) and len(class_names) != outputs:
        raise UserError(
            f"--class_names={file}: holds {len(class_names)} names, the model has {outputs} classes"
        )


def _converted(flags: absl_flags.FlagValues, names: dict[str, str], given: dict[str, Any]):
    from keras_resnet.models import create_model
    from keras_resnet.weights import classes_of, read_weights, row_of

    weights = read_weights(flags.weights, variant=flags.model, names=names, match=flags.match)
    name = flags.model or row_of(weights).name
    if "classes" not in given and "include_top" not in given:
        classes = classes_of(weights)
        given |= {"include_top": False} if classes is None else {"classes": classes}
    # The input gets the size that the preprocessing of the weights makes.
    sized = "image_size" in given or "input_shape" in given
    if not sized and weights.preprocessing and given.get("include_top", True):
        given["image_size"] = weights.preprocessing.image_size
    return create_model(name, weights=weights, **given)


def _has_classifier(model) -> bool:
    return any(layer.name == "predictions" for layer in model.layers)


def _describe(model) -> str:
    outputs = model.output_shape[-1]
    head = f"{outputs:,} classes" if _has_classifier(model) else "no classifier"
    preprocessing, architecture = model.preprocessing, model.architecture or {}
    name = architecture.get("name", model.name)
    what = f"{name}, {model.count_params():,} parameters, {head}"
    if preprocessing is None:
        return f"{what}, no image preprocessing"
    return (
        f"{what}, {preprocessing.image_size} pixels, {preprocessing.interpolation}, "
        f"crop {preprocessing.crop_ratio}"
    )
