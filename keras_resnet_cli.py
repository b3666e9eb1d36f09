"""The command line's start: `keras-resnet`, `python -m keras_resnet_cli`.

It stands outside of the package so that `--help` and usage errors are answered without the seconds
that Keras and TensorFlow take to load, and a missing TensorFlow becomes one line instead of a stack
trace. `import keras_resnet` by anybody else loads its models and layers at once.
"""

import importlib
import sys
from collections.abc import Sequence

# Looked at once, when the package is imported: its models, layers and blocks then load with their
# first use.
defers_loading = False


def defer_loading() -> None:
    """Lets `keras_resnet` load neither Keras nor TensorFlow before something of it is used."""
    global defers_loading
    defers_loading = True


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code.

    Args:
        argv: the arguments after the program's name; None takes those of this process.
    """
    # Under `python -m` this file runs as __main__, while the package asks `keras_resnet_cli`.
    sys.modules.setdefault("keras_resnet_cli", sys.modules[__name__])
    defer_loading()
    from keras_resnet.commands import main as run_command

    return run_command(argv)


def module_command(module: str, *arguments: object) -> list[str]:
    """Returns the command that calls `main(arguments)` of a module in a process without Keras."""
    return [sys.executable, "-m", "keras_resnet_cli", _RUN_MODULE, module, *map(str, arguments)]


_RUN_MODULE = "run-module"


if __name__ == "__main__":
    if sys.argv[1:2] == [_RUN_MODULE]:
        sys.modules["keras_resnet_cli"] = sys.modules[__name__]
        defer_loading()
        sys.exit(importlib.import_module(sys.argv[2]).main(sys.argv[3:]))
    sys.exit(main())
