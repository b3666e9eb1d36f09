"""usage: keras-resnet show --config=NAME_OR_PATH --output=FILE.png [--images=32]
                         [--config.key=value ...]

Writes a contact sheet: the first training images of the run, augmented and mixed, and the first of
the evaluation split, as the model will see them, with their labels. Prints how often each class
occurs in the batches that were read, and the range of the values before and after normalization.
Needs Pillow, which the extra `plot` brings."""

from pathlib import Path

from absl import flags as absl_flags

from keras_resnet.commands.options import check_folder_of, define_strings, require_config
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import overrides
from keras_resnet.errors import UsageError
from keras_resnet.printing import printable, printable_lines

SUMMARY = "Write a picture of training and evaluation batches with their labels."
_EXAMPLE = "keras-resnet show --config=digits --output=digits.png"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --output, --images and the overrides."""
    overrides.define_config(flags)
    define_strings(flags, output="The picture to write: a .png, .jpg or .webp.")
    absl_flags.DEFINE_integer(
        "images", 32, "Number of images of each split to show.", lower_bound=1, flag_values=flags
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Draws, prints and returns 0."""
    require_config(flags, arguments, _EXAMPLE)
    if not flags.output:
        raise UsageError(f"--output is missing; for example: {_EXAMPLE}")
    output = Path(flags.output)
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--output={output}: the name should end with {', '.join(SUFFIXES)}")
    check_folder_of(flags, "output")
    resolved = overrides.resolve(flags)
    start_tensorflow()
    from keras_resnet.commands.show import batch_samples, contact_sheet

    samples = [
        batch_samples.training_sample(resolved, flags.images),
        batch_samples.evaluation_sample(resolved, flags.images),
    ]
    width, height = contact_sheet.write_sheet(output, [sample.section for sample in samples])
    if samples[0].layout:
        print(f"{printable_lines(samples[-1].layout)}\n")
    for sample in samples:
        print(f"{printable(sample.section.title)}\n")
        print("\n".join(contact_sheet.label_histogram(sample.labels, sample.class_names)), "\n")
        print("\n".join(contact_sheet.value_ranges(sample.pixels, sample.normalized)), "\n")
    print(f"{output}: {width} × {height} pixels")
    return 0
