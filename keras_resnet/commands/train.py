"""usage: keras-resnet train --data=PHOTOS --workdir=DIR [--weights=FILE] [--config.key=value ...]
       keras-resnet train --config=NAME_OR_PATH --workdir=DIR [--config.key=value ...]

Trains a network. The same command again resumes from the newest checkpoint; so does --workdir
alone, with the config that the run began with.

--data is a folder of class folders, alone or below train, test, val or their like, or a table
(.csv, .tsv, .jsonl) of paths and labels, one or several an image. Network, image size, batch,
epochs and rates are chosen for these images and this machine; five lines say what was chosen, why,
and how to change it. The best checkpoint is chosen by images that are not trained on, and others,
never looked at before, are reported at the end. With --weights the classifier trains first, then
all layers.

It leaves in DIR:

  config.json       every key of the config, and what was changed when the run was resumed
  dataset.json      class names and sizes of the splits
  splits.csv        which image is in which split, where they were cut from a folder
  train.log         what it says, with the time of each line
  metrics.jsonl     a line for each report of training and each evaluation
  tensorboard/      the same for TensorBoard
  checkpoints/      the newest checkpoints and the best one
  model.keras       the trained network with its preprocessing and class names
  curves.png        loss and accuracy over the epochs
  confusion.png     which class is taken for which (of one label an image)
  classes.csv       the accuracy of each class; of several labels average precision, F1, threshold
  result.json       accuracy (of several labels mAP and F1), loss and images/s"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict

from keras_resnet.commands.options import (
    define_strings,
    define_weights_names,
    refuse_arguments,
)
from keras_resnet.commands.startup import start_engine
from keras_resnet.config import check, merge, overrides, parse_renamings
from keras_resnet.errors import UsageError
from keras_resnet.storage import absolute
from keras_resnet.training.workdir import WorkDir

SUMMARY = "Train a network on photos or by a config; the same command again resumes."
_EXAMPLE = "keras-resnet train --config=digits --workdir=runs/digits"
_OF_DATA = ("weights", "match", "rename", "split", "minutes")

# The config of a run that begins, and lines on how it came about.
_Begin = Callable[[], tuple[ConfigDict, Iterable[str]]]


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --data and what goes with it, --config, --workdir and the overrides."""
    define_data_flags(flags)
    overrides.define_config(flags)


def define_data_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --workdir, --data and what goes with it."""
    define_strings(
        flags,
        workdir="Folder for everything the run leaves, here or gs://BUCKET/FOLDER.",
        data="Folder of class folders, alone or below splits, or a table of paths and labels.",
        weights="With --data: trained weights to start from (a file, hf://OWNER/REPOSITORY or the "
        "work directory of a finished run).",
    )
    define_weights_names(flags, "With --weights: ")
    for name, default, meaning in (
        ("split", 0.2, "With --data: share held out of images that lie in no splits."),
        ("minutes", 60.0, "With --data: about how long training may take."),
    ):
        absl_flags.DEFINE_float(name, default, meaning, flag_values=flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Trains; returns 0."""
    refuse_arguments(arguments, _EXAMPLE)
    if flags.config and flags.data:
        raise UsageError("it takes --config or --data, not both; --config.key=value sets any key")
    if not flags.data:
        for name in _OF_DATA:
            if flags[name].present:
                raise UsageError(f"--{name} goes with --data=PHOTOS")
    if not flags.config and not flags.data and not is_begun(flags):
        raise UsageError(
            "--config is missing, or --data=PHOTOS; for example: keras-resnet train --data=photos "
            f"--workdir=runs/photos, or {_EXAMPLE}"
        )
    if not flags.workdir:
        raise UsageError(f"--workdir is missing; for example: {_EXAMPLE}")
    if flags.config:
        config = overrides.resolve(flags)
        return _train(flags, config.engine, lambda: (config, ()))
    return train_on_data(flags)


def train_on_data(flags: absl_flags.FlagValues) -> int:
    """Trains on --data, or goes on in --workdir as the run there began; returns 0.

    So what is chosen for the images is chosen once, whatever it would be today.
    """
    if not is_begun(flags):
        engine = overrides.given(flags).get("engine", "auto")
        return _train(flags, engine, functools.partial(_plan, flags))
    config = WorkDir(flags.workdir).read_config()
    values = {**_of_weights(flags), **overrides.given(flags)}
    if flags.data:
        values.setdefault("data.path", absolute(flags.data))
    config = check(merge(config, values, "the command line"))
    return _train(flags, config.engine, lambda: (config, ()))


def _plan(flags: absl_flags.FlagValues) -> tuple[ConfigDict, Iterable[str]]:
    """Chooses the config for --data; loads TensorFlow."""
    from keras_resnet.training import api

    chosen = api.plan(
        flags.data,
        split=flags.split,
        minutes=flags.minutes,
        overrides={**_of_weights(flags), **overrides.given(flags)},
    )
    return chosen.config, (*chosen.lines, *chosen.warnings)


def _of_weights(flags: absl_flags.FlagValues) -> dict[str, Any]:
    """The config keys that --weights and what goes with it are short for.

    Raises:
        UsageError: what goes with it is given alone.
    """
    values = {
        key: flags[name].value
        for name, key in (("weights", "model.weights"), ("match", "model.weights_match"))
        if flags[name].present
    }
    if flags.rename:
        parse_renamings(flags.rename, "--rename")
        values["model.weights_rename"] = tuple(flags.rename)
    named = "model.weights" in values or flags[f"{overrides.PREFIX}model.weights"].present
    if values and not named and not is_begun(flags):
        name = "rename" if flags.rename else "match"
        raise UsageError(f"--{name} goes with --weights=FILE")
    return values


def _train(flags: absl_flags.FlagValues, engine: str, begin: _Begin) -> int:
    """Starts the engine and trains with what `begin` returns; returns 0."""
    start_engine(engine)
    from keras_resnet.training import run as training_run
    from keras_resnet.training.say import Say

    say = Say()
    config, lines = begin()
    for line in lines:
        say(line)
    training_run.train(config, flags.workdir, say)
    say.check_output()
    return 0


def is_begun(flags: absl_flags.FlagValues) -> bool:
    """Returns whether --workdir names one in which a run has begun."""
    return bool(flags.workdir) and WorkDir(flags.workdir).is_begun()
