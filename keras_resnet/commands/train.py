"""usage: keras-resnet train --config=NAME_OR_PATH --workdir=DIR [--config.key=value ...]

Trains a network. The same command again resumes from the newest checkpoint; so does --workdir
alone, with the config that the run began with. It leaves in DIR:

  config.json       every key of the config, and what was changed when the run was resumed
  dataset.json      class names and sizes of the splits
  train.log         what it says, with the time of each line
  metrics.jsonl     a line for each report of training and each evaluation
  tensorboard/      the same for TensorBoard
  checkpoints/      the newest checkpoints and the best one
  model.keras       the trained network with its preprocessing and class names
  curves.png        loss and accuracy over the epochs
  confusion.png     which class is taken for which; classes.csv has the accuracy of each
  result.json       accuracy, loss and images/s"""

from absl import flags as absl_flags

from keras_resnet.commands.options import refuse_arguments, require_config
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import check, overrides
from keras_resnet.errors import UsageError
from keras_resnet.training.workdir import WorkDir

SUMMARY = "Train a network; the same command again resumes."
_EXAMPLE = "keras-resnet train --config=digits --workdir=runs/digits"


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --workdir and the overrides."""
    overrides.define_config(flags)
    absl_flags.DEFINE_string(
        "workdir",
        None,
        "Folder for everything the run leaves, here or gs://BUCKET/FOLDER.",
        flag_values=flags,
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Trains; returns 0."""
    refuse_arguments(arguments, _EXAMPLE)
    recorded = WorkDir(flags.workdir) if flags.workdir and not flags.config else None
    if recorded is not None and recorded.is_begun():
        config = check(overrides.apply(recorded.read_config(), flags))
    else:
        require_config(flags, arguments, _EXAMPLE)
        if not flags.workdir:
            raise UsageError(f"--workdir is missing; for example: {_EXAMPLE}")
        config = overrides.resolve(flags)
    start_tensorflow()
    from keras_resnet.training import run as training_run
    from keras_resnet.training.say import Say

    say = Say()
    training_run.train(config, flags.workdir, say)
    say.check_output()
    return 0
