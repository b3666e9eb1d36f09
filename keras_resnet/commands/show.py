"""usage: keras-resnet show --config=NAME_OR_PATH --output=FILE.png [--images=32]
                         [--config.key=value ...]

Writes a contact sheet: the first training images of the run, augmented and mixed, and the first of
the evaluation split, as the model will see them, with their labels. Prints how often each class
occurs in the batches that were read, and the range of the values before and after normalization.
Needs Pillow, which the extra `plot` brings."""

from pathlib import Path

from absl import flags as absl_flags

from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import overrides
from keras_resnet.errors import UsageError, UserError

SUMMARY = "Write a picture of training and evaluation batches with their labels."
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --output, --images and the overrides."""
    overrides.define_config(flags)
    absl_flags.DEFINE_string("output", None, "the picture to write, a .png", flag_values=flags)
    absl_flags.DEFINE_integer(
        "images", 32, "images of each split to show", lower_bound=1, flag_values=flags
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Draws, prints and returns 0."""
    if arguments or not (flags.config and flags.output):
        raise UsageError(
            "it takes --config=NAME and --output=FILE.png, and no other argument; for example: "
            "keras-resnet show --config=digits --output=digits.png"
        )
    output = Path(flags.output)
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--output={output}: the name should end with {', '.join(SUFFIXES)}")
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: there is no folder {output.parent}")
    resolved = overrides.resolve(flags)
    start_tensorflow()
    from keras_resnet.commands import batch_samples, contact_sheet

    samples = [
        batch_samples.training_sample(resolved, flags.images),
        batch_samples.evaluation_sample(resolved, flags.images),
    ]
    width, height = contact_sheet.write_sheet(output, [sample.section for sample in samples])
    for sample in samples:
        print(f"{sample.section.title}\n")
        print("\n".join(contact_sheet.label_histogram(sample.labels, sample.class_names)), "\n")
        print("\n".join(contact_sheet.value_ranges(sample.pixels, sample.normalized)), "\n")
    print(f"{output}: {width} × {height} pixels")
    return 0
