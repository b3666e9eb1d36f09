"""The command line's start: `keras-resnet`, `python -m keras_resnet_cli`.

`import keras_resnet` loads TensorFlow and Keras, which takes seconds. The command line answers
`--help` and usage errors without, and a missing TensorFlow in one line. So it starts outside of the
package, puts it in place without running its `__init__.py`, and imports from it what a command
needs. The file of the package itself knows nothing of this.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_FOLDER = Path(__file__).resolve().parent


class _Package(ModuleType):
    """`keras_resnet` before its `__init__.py` has run, which it does when a name of it is needed.

    Only what the user brings needs one, such as a config file with `keras_resnet.list_models()`:
    our own modules import from each other.
    """

    def __getattr__(self, name: str) -> Any:
        submodule = f"{self.__name__}.{name}"
        if not name.startswith("_") and importlib.util.find_spec(submodule):
            return importlib.import_module(submodule)  # `from keras_resnet import config` asks here
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self._run_init()
        return getattr(self, name)

    def _run_init(self) -> None:
        assert self.__spec__
        assert self.__spec__.loader
        self.__class__ = ModuleType  # type: ignore[assignment]
        try:
            self.__spec__.loader.exec_module(self)
        except BaseException:
            self.__class__ = _Package
            raise


def defer_loading() -> None:
    """Lets modules of `keras_resnet` be imported without Keras and TensorFlow.

    For a process that is the command line. Where the package is imported already, it stays so.
    """
    # Under `python -m`, or as a file, this module runs as __main__.
    sys.modules.setdefault("keras_resnet_cli", sys.modules[__name__])
    if "keras_resnet" in sys.modules:
        return
    # The one beside this file, whatever else of that name the current folder holds.
    folder = _FOLDER / "keras_resnet"
    spec = importlib.util.spec_from_file_location(
        "keras_resnet", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _Package
    sys.modules[spec.name] = package


def main() -> int | str:
    """Runs the command line of this process and returns its exit code, or why it cannot run.

    Python code calls `keras_resnet.commands.main(arguments)` instead.
    """
    defer_loading()
    from keras_resnet.installation import find_damage

    if damage := find_damage():
        return f"keras-resnet: {damage}"
    from keras_resnet.commands import main as run_command

    return run_command()


def module_command(module: str, *arguments: object) -> list[str]:
    """Returns the command that calls `main(arguments)` of a module in a process without Keras.

    The process finds this package wherever it is started, and nothing in the current folder.
    """
    return [sys.executable, "-P", str(_FOLDER / "keras_resnet_cli.py"), _RUN_MODULE, module] + [
        str(argument) for argument in arguments
    ]


_RUN_MODULE = "run-module"


if __name__ == "__main__":
    if sys.argv[1:2] == [_RUN_MODULE]:
        defer_loading()
        sys.exit(importlib.import_module(sys.argv[2]).main(sys.argv[3:]))
    sys.exit(main())
