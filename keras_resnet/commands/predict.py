"""usage: keras-resnet predict --workdir=DIR [--top=5] [--json] IMAGE...

Prints the most probable classes of each image, from the newest checkpoint. With --json: one JSON
object a line, with "image" and "predictions", a list of {"class", "class_id", "probability"}."""

import json
from pathlib import Path

from absl import flags as absl_flags

from keras_resnet.errors import UsageError, UserError

SUMMARY = "Classify image files with the newest checkpoint of a work directory."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --workdir, --top and --json."""
    absl_flags.DEFINE_string("workdir", None, "work directory of a training run", flag_values=flags)
    absl_flags.DEFINE_integer("top", 5, "classes to print", lower_bound=1, flag_values=flags)
    absl_flags.DEFINE_boolean("json", False, "print JSON lines", flag_values=flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Predicts and prints; returns 0."""
    from keras_resnet import backend
    from keras_resnet.workdir import WorkDir

    if not flags.workdir:
        raise UsageError("--workdir=DIR is missing")
    if not arguments:
        raise UsageError("name one image file or more")
    workdir = WorkDir(flags.workdir)
    config = workdir.read_config()
    for path in arguments:
        if not Path(path).is_file():
            raise UserError(f"{path}: {'is a folder' if Path(path).is_dir() else 'no such file'}")
    backend.require_tensorflow()
    from keras_resnet.training import run as training_run

    for path, rows in training_run.predict(config, workdir, arguments, top=flags.top):
        if flags.json:
            print(json.dumps({"image": path, "predictions": rows}))
        else:
            print(_table(path, rows))
    return 0


def _table(path: str, rows: list[dict]) -> str:
    width = max(len(row["class"]) for row in rows)
    lines = [f"  {row['class']:<{width}}  {row['probability']:7.2%}" for row in rows]
    return "\n".join([path, *lines])
