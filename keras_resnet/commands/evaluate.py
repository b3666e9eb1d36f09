"""usage: keras-resnet evaluate --workdir=DIR [--checkpoint=best] [--json] [--config.key=value ...]

Restores the newest checkpoint, or the best, and counts every example of the evaluation split once.
Overrides are for what may have moved since training, for example --config.data.path=DIR."""

import json

from absl import flags as absl_flags

from keras_resnet.config import overrides
from keras_resnet.errors import UsageError

SUMMARY = "Evaluate the newest or the best checkpoint of a work directory."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --workdir, --json and the overrides."""
    absl_flags.DEFINE_string("workdir", None, "work directory of a training run", flag_values=flags)
    absl_flags.DEFINE_enum(
        "checkpoint",
        "newest",
        ["newest", "best"],
        "best: the one with the highest top-1 in evaluation",
        flag_values=flags,
    )
    absl_flags.DEFINE_boolean("json", False, "print one JSON object", flag_values=flags)
    overrides.define(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Evaluates and prints; returns 0."""
    from keras_resnet import backend, config
    from keras_resnet.training.workdir import WorkDir

    if arguments or not flags.workdir:
        raise UsageError("it takes --workdir=DIR and no other argument")
    workdir = WorkDir(flags.workdir)
    resolved = config.check(overrides.apply(workdir.read_config(), flags))
    backend.require_tensorflow()
    from keras_resnet.training import evaluation

    result = evaluation.evaluate(resolved, workdir, flags.checkpoint)
    if flags.json:
        print(json.dumps(result))
    else:
        print(evaluation.describe_result(result))
    return 0
