"""usage: keras-resnet find-lr (--config=NAME_OR_PATH | --workdir=DIR) [--plot=FILE.png]
                            [--json=FILE] [--csv=FILE] [--config.key=value ...]

Trains for a hundred steps with a learning rate that rises until the loss explodes, and suggests one
for config.optimizer.learning_rate: a third of the rate with the lowest smoothed loss (Smith 2017),
and a cautious one half way down the longest fall of that loss. It takes the data, batch size,
optimizer and loss of a config, or of the run in --workdir, of which it reads the config and changes
nothing."""

from pathlib import Path

import tqdm
from absl import flags as absl_flags

from keras_resnet.commands.options import (
    check_folder_of,
    define_strings,
    refuse_arguments,
    require_config,
    write_json,
)
from keras_resnet.commands.startup import start_engine
from keras_resnet.config import check, overrides
from keras_resnet.errors import UsageError
from keras_resnet.training.workdir import WorkDir

SUMMARY = "Find a learning rate: a curve and a number."
_EXAMPLE = "keras-resnet find-lr --config=digits --plot=rates.png"


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config, --workdir, the range, the files and the overrides."""
    overrides.define_config(flags)
    define_strings(
        flags,
        workdir="Work directory of a run whose config counts; nothing in it is changed.",
        plot="File to draw the curve to, as PNG.",
        json="File to write the figures to, as JSON.",
        csv="File to write the learning rate and the losses of each step to, as CSV.",
    )
    for name, default, meaning in (
        ("start", 1e-7, "Learning rate of the first step."),
        ("end", 10.0, "Learning rate of the last step, if it comes to that."),
    ):
        absl_flags.DEFINE_float(name, default, meaning, flag_values=flags)
    absl_flags.DEFINE_integer(
        "steps", 100, "Largest number of steps to train.", lower_bound=20, flag_values=flags
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Trains, prints, writes; returns 0."""
    refuse_arguments(arguments, _EXAMPLE)
    check_folder_of(flags, "plot", "json", "csv")
    if flags.config and flags.workdir:
        raise UsageError("it takes --config or --workdir, not both")
    workdir = WorkDir(flags.workdir) if flags.workdir else None
    if workdir is not None:
        config = check(overrides.apply(workdir.read_config_for_one(), flags))
    else:
        require_config(flags, arguments, _EXAMPLE)
        config = overrides.resolve(flags)
    start_engine(config.engine)
    from keras_resnet.training.learning_rate_finder import find_learning_rate

    with tqdm.tqdm(total=flags.steps, unit="step", dynamic_ncols=True, disable=None) as bar:
        curve = find_learning_rate(
            config,
            workdir,
            start=flags.start,
            end=flags.end,
            steps=flags.steps,
            progress=bar.update,
        )
    if not curve.is_chief:
        return 0
    write_json(flags.json, curve.to_dict())
    if flags.csv:
        Path(flags.csv).write_text(curve.table())
    if flags.plot:
        curve.draw(Path(flags.plot), f"{config.model.name}, batches of {config.batch_size}")
    last, lowest = len(curve.rates) - 1, min(curve.smoothed)
    print(
        f"{last + 1} steps, learning rate {curve.rates[0]:.3g} to {curve.rates[last]:.3g}; "
        f"smoothed loss {curve.smoothed[0]:.3f}, lowest {lowest:.3f}, last {curve.smoothed[-1]:.3f}"
    )
    if curve.suggestion is None:
        print(
            "no suggestion: the loss did not fall for long; look at the curve (--plot), or take "
            "other --start, --end and --steps"
        )
        return 0
    print(f"--config.optimizer.learning_rate={curve.suggestion:.2g}")
    print(
        f"a cautious one is {curve.cautious:.2g}; the config has {config.optimizer.learning_rate:g}"
    )
    return 0
