"""usage: keras-resnet compare RUN [RUN ...] [--output=FOLDER|FILE.png] [--format=text|csv|json]
                            [--curves=metric|error] [--panels=KEY]

Puts runs side by side: their results, what differs in their configs, and their curves. Runs that
differ in the seed alone are one group, with mean and standard deviation. RUN is a work directory, a
folder that holds some, or a pattern of those; a run that is not finished is shown as far as it is.

--output=FOLDER writes comparison.png, comparison.csv and comparison.json there, --output=FILE.png
the picture alone: bold lines are held-out images, thin ones training, with error bars over the
seeds. The picture needs matplotlib, which the extra `plot` brings."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from keras_resnet.commands.options import check_folder_of, define_strings
from keras_resnet.errors import UsageError, UserError, did_you_mean
from keras_resnet.storage import write_text

if TYPE_CHECKING:
    from keras_resnet.training.comparison import Comparison

SUMMARY = "Put runs side by side: a table of results and configs, a picture of curves."
_EXAMPLE = "keras-resnet compare runs/plain20-* runs/resnet20-* --output=comparison.png"
_PICTURES = (".png", ".pdf", ".svg")
_OTHER_FILES = (".jpg", ".jpeg", ".webp", ".gif", ".csv", ".json", ".txt", ".html", ".md")


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    define_strings(
        flags,
        output="Folder for picture, CSV and JSON, or a .png, .pdf or .svg for the picture alone.",
        panels="Key of the config, such as model.residual: the picture has a panel for each of its "
        "values.",
    )
    absl_flags.DEFINE_enum(
        "format",
        "text",
        ["text", "csv", "json"],
        "How to print it: text for people, csv with a line for each run, or json with the curves.",
        flag_values=flags,
    )
    absl_flags.DEFINE_enum(
        "curves",
        "metric",
        ["metric", "error"],
        "What the picture shows: the metric (top-1 accuracy), or the error, 100 % less that.",
        flag_values=flags,
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Compares, prints and writes; returns 0."""
    if not arguments:
        raise UsageError(f"RUN is missing; for example: {_EXAMPLE}")
    output = Path(flags.output) if flags.output else None
    _check_output(flags, output)
    if flags.panels:
        from keras_resnet.config import KEYS

        if flags.panels not in KEYS:
            hint = did_you_mean(flags.panels, KEYS)
            raise UsageError(f"--panels={flags.panels} is no key of a config.{hint}")
    from keras_resnet.training.comparison import compare

    found = compare(arguments)
    if flags.format == "text":
        print(found.table())
    elif flags.format == "csv":
        print(found.to_csv(), end="")
    else:
        print(json.dumps(found.to_dict(), indent=2))
    if flags.format != "text":
        for note in found.notes:
            print(f"note: {note}", file=sys.stderr)
    if output is not None:
        for line in _write(found, output, flags):
            print(line, file=sys.stdout if flags.format == "text" else sys.stderr)
    return 0


def _check_output(flags: absl_flags.FlagValues, output: Path | None) -> None:
    check_folder_of(flags, "output")
    if output is None or output.is_dir() or output.suffix in _PICTURES:
        return
    pictures = ", ".join(_PICTURES)
    if output.suffix.lower() in _OTHER_FILES:
        raise UsageError(
            f"--output={output}: name a folder, or a picture that ends with {pictures}, not "
            f"{output.suffix}; --format=csv and --format=json print the figures"
        )
    if output.exists():
        raise UserError(
            f"--output={output}: is a file; name a folder, or a picture that ends with {pictures}"
        )


def _write(found: "Comparison", output: Path, flags: absl_flags.FlagValues) -> list[str]:
    """Writes what --output asks for; returns lines that say what."""
    alone = output.suffix in _PICTURES and not output.is_dir()
    names = []
    if not alone:
        output.mkdir(exist_ok=True)
        write_text(output / "comparison.csv", found.to_csv())
        write_text(output / "comparison.json", json.dumps(found.to_dict(), indent=2) + "\n")
        names = ["comparison.csv", "comparison.json"]
    picture = output if alone else output / "comparison.png"
    lines = [""]
    try:
        found.draw(picture, flags.curves, flags.panels)
        names.insert(0, picture.name)
    except ImportError as error:  # the rest is as good without
        lines.append(str(error))
    return lines + ([f"{picture.parent}: {', '.join(names)}"] if names else [])
