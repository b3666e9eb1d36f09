"""usage: keras-resnet report RUN [--output=FILE] [--checkpoint=best] [--config.data.path=DIR]

Writes the report of a training run as one HTML file that opens without a network: what was trained
on what and how, curves, a confusion matrix whose cells show their images, the scores of each class,
mistakes with heat maps, calibration, labels in doubt, costs. A run writes report.html at its end by
itself; this command writes it again, or for a run without one, and evaluates the network once more.

RUN is the work directory. Without --output the file is RUN/report.html. Of a run that is not
finished the newest checkpoint is taken. Overrides are for what may have moved since training, for
example --config.data.path=DIR."""

import sys

import tqdm
from absl import flags as absl_flags

from keras_resnet.commands.options import check_folder_of, define_checkpoint, define_strings
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import KEYS, overrides
from keras_resnet.errors import UsageError
from keras_resnet.printing import printable
from keras_resnet.training.workdir import WorkDir

SUMMARY = "Write the report of a training run: report.html."
_EXAMPLE = "keras-resnet report runs/mine"


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    define_strings(
        flags,
        workdir="Work directory of the run, instead of RUN.",
        output="File to write; by default report.html in the work directory.",
    )
    define_checkpoint(flags)
    overrides.define(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Writes the report and says where it is; returns 0."""
    given = [*arguments, *([flags.workdir] if flags.workdir else [])]
    if len(given) != 1:
        what = "RUN is missing" if not given else f"it takes one RUN, not {len(given)}"
        raise UsageError(f"{what}; for example {_EXAMPLE}")
    check_folder_of(flags, "output")
    folder = WorkDir(given[0])
    folder.read_config()  # before TensorFlow is loaded, to say at once that it is no run
    start_tensorflow()
    from keras_resnet import reports

    changed = {key: flags[overrides.PREFIX + key] for key in KEYS}
    with tqdm.tqdm(unit="image", dynamic_ncols=True, disable=None) as bar:
        found = reports.report(
            folder.path,
            checkpoint=flags.checkpoint,
            overrides={key: flag.value for key, flag in changed.items() if flag.present},
            say=lambda line: print(line, file=sys.stderr),
            progress=bar.update,
        )
    path = flags.output or folder.report
    reports.write(found, path)
    for note in found.notes:
        print(f"note: {printable(note)}")
    print(printable(path))
    return 0
