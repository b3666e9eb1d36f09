"""usage: keras-resnet evaluate --workdir=DIR [--checkpoint=best] [--json] [--config.key=value ...]

Restores the newest checkpoint, or the best, and counts every example of the evaluation split once.
Overrides are for what may have moved since training, for example --config.data.path=DIR."""

import json

from absl import flags as absl_flags

from keras_resnet.commands.options import define_json_switch, define_strings
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.config import check, overrides
from keras_resnet.errors import UsageError
from keras_resnet.training.workdir import WorkDir

SUMMARY = "Evaluate the newest or the best checkpoint of a work directory."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --workdir, --checkpoint, --json and the overrides."""
    define_strings(flags, workdir="Work directory of a training run.")
    absl_flags.DEFINE_enum(
        "checkpoint",
        "newest",
        ["newest", "best"],
        "Which checkpoint to evaluate; best: the one with the highest top-1 so far.",
        flag_values=flags,
    )
    define_json_switch(flags)
    overrides.define(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Evaluates and prints; returns 0."""
    if arguments or not flags.workdir:
        raise UsageError("evaluate takes --workdir=DIR and no other argument")
    workdir = WorkDir(flags.workdir)
    resolved = check(overrides.apply(workdir.read_config(), flags))
    start_tensorflow()
    from keras_resnet.training import evaluation

    result = evaluation.evaluate(resolved, workdir, flags.checkpoint)
    if flags.json:
        print(json.dumps(result))
    else:
        classes = len(workdir.read_dataset()["classes"])
        print(evaluation.describe_result(result, classes))
    return 0
