"""usage: keras-resnet train --config=NAME_OR_PATH --workdir=DIR [--config.key=value ...]

Leaves in DIR: config.json, dataset.json, metrics.jsonl, TensorBoard events, checkpoints/,
model.keras, curves.png and result.json. The same command again resumes from the newest
checkpoint."""

from absl import flags as absl_flags

from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import overrides
from keras_resnet.errors import UsageError

SUMMARY = "Train a network; the same command again resumes."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --workdir and the overrides."""
    overrides.define_config(flags)
    absl_flags.DEFINE_string(
        "workdir",
        None,
        "folder for everything the run leaves, here or gs://BUCKET/FOLDER",
        flag_values=flags,
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Trains; returns 0."""
    if arguments:
        raise UsageError(f"unexpected argument {arguments[0]!r}; a config goes in --config=NAME")
    for name in ("config", "workdir"):
        if not flags[name].value:
            example = "--config=digits --workdir=runs/digits"
            raise UsageError(f"--{name} is missing; for example: keras-resnet train {example}")
    resolved = overrides.resolve(flags)
    start_tensorflow()
    from keras_resnet.training import run as training_run

    training_run.train(resolved, flags.workdir)
    return 0
