"""The command line `keras-resnet`: a table of commands, one small module each.

A command module has `SUMMARY` (a line for the help), `define_flags(flags)` and
`run(flags, arguments) -> exit code`. At import it loads neither TensorFlow nor Keras. One with
`SUBCOMMANDS`, a table of further command modules, has only that and `SUMMARY`.
"""

import importlib
import os
import sys
from collections.abc import Sequence

from absl import flags as absl_flags

from keras_resnet.config import overrides
from keras_resnet.errors import Interrupted, UsageError, UserError, nearest
from keras_resnet.installation import VERSION

COMMANDS = {
    "train": "keras_resnet.commands.train",
    "evaluate": "keras_resnet.commands.evaluate",
    "predict": "keras_resnet.commands.predict",
    "convert": "keras_resnet.commands.convert",
    "show": "keras_resnet.commands.show",
    "benchmark": "keras_resnet.commands.benchmark",
    "export": "keras_resnet.commands.export",
    "verify-export": "keras_resnet.commands.verify_export",
    "doctor": "keras_resnet.commands.doctor",
    "preflight": "keras_resnet.commands.preflight",
}
EXIT_CODES = """\
exit codes: 0 success, 1 something is wrong with files, data or devices, 2 usage, 130 interrupted
(SIGINT), 143 terminated (SIGTERM); after the last two the same command resumes"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code (see EXIT_CODES)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # TensorFlow's own start-up chatter would bury the lines that matter; errors still show.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return _dispatch(argv)
    except UsageError as error:
        return _fail(argv, error, code=2)
    except (absl_flags.Error, overrides.OverrideError) as error:
        return _fail(argv, error, code=2)
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Interrupted as error:
        return _fail(argv, error, code=error.code)
    except (UserError, OSError) as error:
        return _fail(argv, error, code=1)
    except KeyboardInterrupt:
        return _fail(argv, "interrupted", code=130)
    except Exception as error:
        # input_pipeline stands on its own and cannot use UserError: its errors count as such here.
        from keras_resnet.input_pipeline.errors import DataError

        if isinstance(error, DataError):
            return _fail(argv, error, code=1)
        raise


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "--helpfull", "help"):
        print(_help())
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"keras-resnet {VERSION}")
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        raise UsageError(
            f"{name!r} is no command; there are {', '.join(COMMANDS)}{nearest(name, COMMANDS)}"
        )
    command = importlib.import_module(COMMANDS[name])
    if hasattr(command, "SUBCOMMANDS"):
        if not rest or rest[0] in ("--help", "-h", "-help"):
            print(f"{command.SUMMARY}\n\n{command.__doc__.strip()}")
            return 0 if rest else 2
        subject, *rest = rest
        if subject not in command.SUBCOMMANDS:
            raise UsageError(
                f"{subject!r} is no subject; there are {', '.join(command.SUBCOMMANDS)}"
                f"{nearest(subject, command.SUBCOMMANDS)}"
            )
        command = importlib.import_module(command.SUBCOMMANDS[subject])
        name = f"{name} {subject}"
    flags = absl_flags.FlagValues()
    command.define_flags(flags)
    if any(argument in ("--help", "-h", "-help") for argument in rest):
        print(f"{command.SUMMARY}\n\n{command.__doc__.strip()}\n{flags.get_help()}")
        return 0
    arguments = flags([f"keras-resnet {name}", *overrides.collect(rest, flags)])[1:]
    return command.run(flags, arguments)


def _help() -> str:
    rows = [
        f"  {name:<15}{importlib.import_module(module).SUMMARY}"
        for name, module in COMMANDS.items()
    ]
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


def _fail(argv: list[str], error: object, code: int) -> int:
    name = f" {argv[0]}" if argv and argv[0] in COMMANDS else ""
    message = " ".join(str(error).split())
    print(f"keras-resnet{name}: {message}", file=sys.stderr)
    return code
