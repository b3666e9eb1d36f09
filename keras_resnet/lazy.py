"""Packages whose names are imported on first use, so that their light modules stay light.

`keras_resnet.input_pipeline.errors`, the augmentation keys and the check of an export are read by
processes that must not load TensorFlow, which the rest of those packages need. Type checkers and
editors see ordinary imports; the same names stand in both branches (a test compares them):

    if TYPE_CHECKING:
        from keras_resnet.export.loading import load_predictor as load_predictor
    else:
        __getattr__, __dir__, __all__ = lazy_names(__name__, {"loading": ["load_predictor"]})
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.util import resolve_name
from typing import Any


def lazy_names(
    package: str, names: Mapping[str, Iterable[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """What a package needs to import its names on first use (PEP 562).

    Args:
        package: its `__name__`.
        names: module inside the package, or with dots in front of it, as in an import, elsewhere ->
            names that it gives to the package.

    Returns:
        The package's `__getattr__`, `__dir__` and `__all__`.
    """
    origins = {
        name: resolve_name(module if module.startswith(".") else f".{module}", package)
        for module, given in names.items()
        for name in given
    }

    def __getattr__(name: str) -> Any:
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(origins[name]), name)

    def __dir__() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origins})

    return __getattr__, __dir__, sorted(origins)
