"""What several commands ask of their flags, and the text of a command's help."""

import contextlib
import json
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from absl import flags as absl_flags

from keras_resnet.errors import UsageError, UserError
from keras_resnet.flips import TTA
from keras_resnet.printing import printable

if TYPE_CHECKING:
    from keras_resnet.calibration import Unknown

_WIDTH = 100
CONFIG_HELP = (
    "--config.KEY=VALUE sets any key of the config, such as --config.batch_size=64; "
    "`keras-resnet config` lists the keys with their values, choices and meaning."
)


def define_strings(flags: absl_flags.FlagValues, **helps: str) -> None:
    """Defines text flags without a default, by name."""
    for name, meaning in helps.items():
        absl_flags.DEFINE_string(name, None, meaning, flag_values=flags)


def define_weights_names(flags: absl_flags.FlagValues, before: str = "") -> None:
    """Defines --rename and --match, for weights whose names no library here has given."""
    absl_flags.DEFINE_multi_string(
        "rename",
        [],
        f"{before}REGEX=NEW: what a regular expression finds in the names of the file of weights, "
        "and what takes its place. Can be given again; an empty NEW for the whole name leaves an "
        "array out.",
        flag_values=flags,
    )
    absl_flags.DEFINE_enum(
        "match",
        "names",
        ["names", "order"],
        f"{before}order puts the arrays of weights to their places by order and shape, whatever "
        "they are called.",
        flag_values=flags,
    )


def define_json_switch(flags: absl_flags.FlagValues) -> None:
    """Defines --json for commands that print one object."""
    absl_flags.DEFINE_boolean(
        "json", False, "Print one JSON object instead of text.", flag_values=flags
    )


def define_checkpoint(flags: absl_flags.FlagValues) -> None:
    """Defines --checkpoint for commands that take the network of a work directory."""
    absl_flags.DEFINE_enum(
        "checkpoint",
        None,
        ["newest", "best"],
        "Which checkpoint of --workdir to take; best: the one with the highest top-1 or mAP. "
        "Without it, the one that config.checkpoint.model says: newest, unless it was changed.",
        flag_values=flags,
    )


def check_checkpoint(flags: absl_flags.FlagValues) -> None:
    """Raises UsageError where --checkpoint stands without --workdir."""
    if flags.checkpoint and not flags.workdir:
        raise UsageError(f"--checkpoint={flags.checkpoint} goes with --workdir")


def define_calibration(flags: absl_flags.FlagValues, unknown: str) -> None:
    """Defines --calibrated and --unknown, of which `unknown` says what it does here."""
    absl_flags.DEFINE_boolean(
        "calibrated",
        False,
        "Divide the logits by the temperature that was fitted on held-out images (docs/calibration)"
        ", so that of the answers with a probability of 80% about 80% are right.",
        flag_values=flags,
    )
    absl_flags.DEFINE_string(
        "unknown",
        None,
        f"{unknown} Either the share of the images to answer, such as 90%, or a calibrated "
        "probability, such as 0.7. It makes probabilities calibrated, too.",
        flag_values=flags,
    )


def define_tta(flags: absl_flags.FlagValues, default: str) -> None:
    """Defines --tta, of which `default` says what is without it."""
    absl_flags.DEFINE_enum(
        "tta",
        None,
        list(TTA),
        "Whether each image is answered together with its mirror image, which takes twice as long: "
        "flip takes the mean of the logits, flip_probabilities that of the probabilities. "
        f"Without it, {default}.",
        flag_values=flags,
    )


def unknown_of(flags: absl_flags.FlagValues) -> "Unknown | None":
    """Returns what --unknown asks for; raises UsageError where it is nothing that it takes."""
    from keras_resnet.calibration import Unknown  # NumPy, without which `doctor` has to run

    return None if flags.unknown is None else Unknown.parse(flags.unknown, "--unknown")


def define_trusted_switch(flags: absl_flags.FlagValues) -> None:
    """Defines --trusted for commands that run a SavedModel."""
    absl_flags.DEFINE_boolean(
        "trusted",
        False,
        "Leave out the warning of a SavedModel from elsewhere, which can read and write files.",
        flag_values=flags,
    )


@contextlib.contextmanager
def notes_on_stderr() -> Iterator[None]:
    """While entered, what is to be known of a model is printed to standard error, a line each."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: print(
            f"note: {printable(message)}", file=sys.stderr, flush=True
        )
        yield


def check_folder_of(flags: absl_flags.FlagValues, *names: str) -> None:
    """Raises UserError if the folder of a file that flags name, if they do, is not there."""
    for name in names:
        path = flags[name].value
        if path and not Path(path).absolute().parent.is_dir():
            raise UserError(f"--{name}={path}: there is no folder {Path(path).parent}")


def write_json(path: str | None, figures: Any) -> None:
    """Writes readable JSON, if there is a path."""
    if path:
        Path(path).write_text(json.dumps(figures, indent=2) + "\n")


def require_config(flags: absl_flags.FlagValues, arguments: list[str], example: str) -> None:
    """Raises UsageError unless there is a --config and no argument that is no flag."""
    refuse_arguments(arguments, example)
    if not flags.config:
        raise UsageError(f"--config is missing; for example: {example}")


def refuse_arguments(arguments: list[str], example: str) -> None:
    """Raises UsageError if there is an argument that is no flag."""
    if arguments and arguments[0].lower() in ("true", "false"):
        raise UsageError(
            f"unexpected argument {arguments[0]!r}; the value of a true or false key follows a =, "
            f"for example --config.deterministic={arguments[0]}"
        )
    if arguments:
        raise UsageError(
            f"unexpected argument {arguments[0]!r}; a config goes in --config=NAME; for example: "
            f"{example}"
        )


def command_help(command: ModuleType, flags: absl_flags.FlagValues) -> str:
    """Returns what `--help` prints: summary, usage, the command's own flags, where the keys are."""
    own = [flags[name] for name in flags if not name.startswith("config.")]
    parts = [command.SUMMARY, (command.__doc__ or "").strip()]
    if own:
        parts.append("\n".join(["flags:", *map(_flag_help, own)]))
    if len(own) < len(flags):
        parts.append(textwrap.fill(CONFIG_HELP, _WIDTH, break_on_hyphens=False))
    return "\n\n".join(parts)


def _flag_help(flag: absl_flags.Flag) -> str:
    if flag.boolean:
        head = f"--no{flag.name}" if flag.default else f"--{flag.name}"
    else:
        head = f"--{flag.name}={'...' if flag.default in (None, []) else flag.default}"
    choices = getattr(flag.parser, "enum_values", None)
    text = flag.help
    if choices:  # absl puts <newest|best> before the sentence
        text = f"{text.partition('>: ')[2]} One of {', '.join(choices)}."
    lines = textwrap.wrap(text, _WIDTH - 6, break_on_hyphens=False, break_long_words=False)
    return "\n".join([f"  {head}", *(f"      {line}" for line in lines)])
