"""usage: keras-resnet convert --model=NAME --weights=WEIGHTS --output=FILE.keras

Makes a .keras file of trained weights, with the preprocessing that goes with them. WEIGHTS is a
file (.safetensors, .pth, .pt, .keras, .weights.h5, .h5 of keras.applications), an address
hf://OWNER/REPOSITORY[@REVISION][/FILE] or "imagenet". The number of classes is that of the weights;
weights without a classifier make a model without one. In Python, `import keras_resnet`, then
`keras.saving.load_model("FILE.keras")`."""

from pathlib import Path

from absl import flags as absl_flags

from keras_resnet.architectures import get_architecture
from keras_resnet.backend import require_backend
from keras_resnet.commands.options import check_folder_of, define_strings
from keras_resnet.errors import UsageError, UserError
from keras_resnet.storage import replacing

SUMMARY = "Make a .keras file of weights from PyTorch, timm or keras.applications."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --model, --weights and --output."""
    define_strings(
        flags,
        model="Name of the network, such as ResNet50.",
        weights="A file of weights, an hf:// address, or imagenet.",
        output="The .keras file to write.",
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Converts, says what it wrote and returns 0."""
    if arguments or not (flags.model and flags.weights and flags.output):
        raise UsageError("convert takes --model, --weights and --output, and no other argument")
    output = Path(flags.output)
    if output.suffix != ".keras":
        raise UsageError(f"--output={output}: the name should end with .keras")
    check_folder_of(flags, "output")
    try:
        require_backend()
        model = _converted(flags.model, flags.weights)
    except (ImportError, ValueError) as error:
        raise UserError(str(error)) from error
    with replacing(output) as temporary:
        model.save(temporary)
    print(f"{output}: {_describe(flags.model, model)}")
    return 0


def _converted(name: str, source: str):
    from keras_resnet.models import create_model
    from keras_resnet.weights import apply_weights, classes_of, read_weights

    row = get_architecture(name)
    checkpoint = read_weights(source, variant=name)
    classes = classes_of(checkpoint)
    if classes is None:
        model = create_model(name, include_top=False)
        apply_weights(model, checkpoint, variant=name)
        return model
    # The input gets the size that the preprocessing of the weights makes.
    size = (checkpoint.preprocessing or row.preprocessing).image_size
    model = create_model(name, classes=classes, input_shape=_input_shape(size))
    apply_weights(model, checkpoint, variant=name)
    return model


def _input_shape(size: int) -> tuple[int, int, int]:
    import keras

    if keras.config.image_data_format() == "channels_first":
        return (3, size, size)
    return (size, size, 3)


def _describe(name: str, model) -> str:
    classifier = any(layer.name == "predictions" for layer in model.layers)
    head = f"{model.output_shape[-1]:,} classes" if classifier else "no classifier"
    preprocessing = model.preprocessing
    return (
        f"{name}, {model.count_params():,} parameters, {head}, "
        f"{preprocessing.image_size} pixels, {preprocessing.interpolation}, "
        f"crop {preprocessing.crop_ratio}"
    )
