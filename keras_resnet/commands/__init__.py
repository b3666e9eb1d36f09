"""The command line `keras-resnet`: a table of commands, one small module each.

A command module has `SUMMARY` (a line for the help), `define_flags(flags)` and
`run(flags, arguments) -> exit code`; its docstring is its help. At import it loads neither
TensorFlow nor Keras. One with `SUBCOMMANDS`, a table of further command modules, has only that and
`SUMMARY`; with `KNOWN_FLAGS_ONLY` a command gets unknown flags as arguments.
"""

import ast
import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from absl import flags as absl_flags

from keras_resnet.commands import standard_streams
from keras_resnet.commands.options import command_help
from keras_resnet.errors import (
    UsageError,
    UserError,
    close_names,
    did_you_mean,
    did_you_mean_one_of,
)
from keras_resnet.installation import VERSION
from keras_resnet.printing import shortened

COMMANDS = {
    "train": "keras_resnet.commands.train",
    "finetune": "keras_resnet.commands.finetune",
    "evaluate": "keras_resnet.commands.evaluate",
    "predict": "keras_resnet.commands.predict",
    "calibrate": "keras_resnet.commands.calibrate",
    "compare": "keras_resnet.commands.compare",
    "find-lr": "keras_resnet.commands.find_lr",
    "explain": "keras_resnet.commands.explain",
    "embed": "keras_resnet.commands.embed",
    "report": "keras_resnet.commands.report",
    "config": "keras_resnet.commands.config",
    "convert": "keras_resnet.commands.convert",
    "show": "keras_resnet.commands.show",
    "benchmark": "keras_resnet.commands.benchmark",
    "export": "keras_resnet.commands.export",
    "verify-export": "keras_resnet.commands.verify_export",
    "inspect": "keras_resnet.commands.inspect",
    "doctor": "keras_resnet.commands.doctor",
    "preflight": "keras_resnet.commands.preflight",
    "libtpu-flags": "keras_resnet.commands.libtpu_flags",
    "manifest": "keras_resnet.commands.manifest",
}
HELP = ("--help", "-h", "-help", "--helpfull")
EXIT_CODES = """\
exit codes: 0 success, 1 something is wrong with files, data, devices or the output, 2 usage, 130
interrupted (SIGINT), 143 terminated (SIGTERM), 129 the terminal was closed (SIGHUP), 75 another
host of the run is lost; after these four the same command resumes; 141 the reader of the output,
such as `head`, has left"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code (see EXIT_CODES)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # TensorFlow's own start-up chatter would bury the lines that matter; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    standard_streams.open_missing()
    standard_streams.escape_the_rest()
    code = _run(argv)
    if (error := standard_streams.failure_of_output()) is not None:
        code = code or _fail_output(argv, error)
    standard_streams.give_up()
    return code


def _run(argv: list[str]) -> int:
    try:
        run = _parse(argv)
        return run()
    except UserError as error:
        return _fail(argv, error, error.code)
    except BrokenPipeError as error:
        return _fail_output(argv, error)
    except OSError as error:
        return _fail(argv, error, code=1)
    except KeyboardInterrupt:
        return _fail(argv, "interrupted", code=130)


def _parse(argv: list[str]) -> Callable[[], int]:
    """Returns what a command line asks for, ready to be called."""
    if not argv or argv[0] in (*HELP, "help"):
        return functools.partial(_say, _overview(), code=0 if argv else 2)
    if argv[0] == "--version":
        return functools.partial(_say, f"keras-resnet {VERSION}")
    name, *rest = argv
    command = _find(name, COMMANDS, "command")
    if hasattr(command, "SUBCOMMANDS"):
        if not rest or rest[0] in HELP:
            return functools.partial(
                _say, command_help(command, absl_flags.FlagValues()), code=0 if rest else 2
            )
        subject, *rest = rest
        command = _find(subject, command.SUBCOMMANDS, f"subject of {name}")
        name = f"{name} {subject}"
    flags = absl_flags.FlagValues()
    command.define_flags(flags)
    if any(argument in HELP for argument in rest):
        return functools.partial(_say, command_help(command, flags))
    try:
        known_only = getattr(command, "KNOWN_FLAGS_ONLY", False)
        arguments = flags([f"keras-resnet {name}", *rest], known_only=known_only)[1:]
    except absl_flags.UnrecognizedFlagError as error:
        raise _unknown_flag(error.flagname, flags) from error
    except absl_flags.IllegalFlagValueError as error:
        raise _unusable_value(error, flags) from error
    except (absl_flags.Error, ValueError) as error:  # ValueError: --nojson=1
        raise UsageError(str(error)) from error
    return functools.partial(command.run, flags, arguments)


def _find(name: str, table: dict[str, str], what: str) -> ModuleType:
    if name not in table:
        raise UsageError(
            f"{name!r} is not a {what}.{did_you_mean(name, table)} There are {', '.join(table)}"
        )
    return importlib.import_module(table[name])


def _unknown_flag(name: str, flags: absl_flags.FlagValues) -> UsageError:
    """An error that names the closest flags, of the keys of a config too: of --lr, its rate."""
    # The overview of the commands does without the keys, which take a while to load.
    from keras_resnet.config import KEYS
    from keras_resnet.config.overrides import PREFIX, check_flag

    own = [flag for flag in flags if not flag.startswith(PREFIX)]
    close = close_names(name, own)
    if len(own) < len(flags):
        check_flag(name)
        close = close or [PREFIX + key for key in close_names(name, KEYS)]
    hint = did_you_mean_one_of([f"--{flag}" for flag in close]) or " --help lists the flags."
    return UsageError(f"there is no flag --{name}.{hint}")


def _unusable_value(
    error: absl_flags.IllegalFlagValueError, flags: absl_flags.FlagValues
) -> UsageError:
    """An error in the words that keys of a config have; absl's are those of Python's `int`."""
    name, _, rest = str(error).removeprefix("flag --").partition("=")
    value, parser = rest.removesuffix(f": {error.__context__}"), flags[name].parser
    if choices := getattr(parser, "enum_values", None):
        hint = did_you_mean(value, choices)
        accepted = f"one of {', '.join(choices)}{f'.{hint}' if hint else ''}"
    elif flags[name].boolean:
        accepted = "true or false"
    else:
        accepted = parser.syntactic_help
        if accepted.startswith("integer"):  # absl: "integer >= 2"
            accepted = f"an {accepted}"
    return UsageError(f"--{name}={value} is not {accepted}")


def _say(text: str, code: int = 0) -> int:
    print(text)
    return code


def _overview() -> str:
    rows = [f"  {name:<15}{_summary(module)}" for name, module in COMMANDS.items()]
    return "\n".join(
        [
            "Residual networks for Keras 3 and TensorFlow: train, evaluate, predict, export.",
            "",
            "usage: keras-resnet COMMAND [--flag=value ...]",
            "",
            *rows,
            "",
            "keras-resnet COMMAND --help shows the flags of a command; --version the version.",
            EXIT_CODES,
        ]
    )


def _summary(module: str) -> str:
    """Returns SUMMARY of a command module, read and not imported: all of them take a while."""
    path = Path(__file__).with_name(module.rpartition(".")[2])
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    for line in source.splitlines():
        if line.startswith("SUMMARY = "):
            return ast.literal_eval(line.removeprefix("SUMMARY = "))
    raise LookupError(f"{path} has no SUMMARY")


def _fail(argv: list[str], error: object, code: int) -> int:
    name = f" {argv[0]}" if argv and argv[0] in COMMANDS else ""
    details = getattr(error, "details", "")
    message = shortened(" ".join(str(error).removesuffix(details).split()))
    standard_streams.print_error(f"keras-resnet{name}: {message}")
    if details:
        standard_streams.print_error(details)
    return code


def _fail_output(argv: list[str], error: OSError) -> int:
    """The end of a command whose output cannot be written."""
    if isinstance(error, BrokenPipeError):  # the reader has seen enough; it is not told so
        return standard_streams.BROKEN_PIPE
    return _fail(argv, f"standard output cannot be written ({error.strerror})", code=1)
