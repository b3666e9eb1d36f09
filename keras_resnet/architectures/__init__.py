"""The table of networks, which knows no Keras: rows by name."""

import fnmatch
from typing import Any

from keras_resnet.architectures import variants
from keras_resnet.architectures.row import Architecture
from keras_resnet.errors import did_you_mean

__all__ = ["ARCHITECTURES", "Architecture", "get_architecture", "list_models"]

# In the order of the lines there.
ARCHITECTURES: dict[str, Architecture] = {
    row.name: row for row in vars(variants).values() if isinstance(row, Architecture)
}


def list_models(pattern: str | None = None) -> list[str]:
    """Names that `create_model` knows, in the table's order.

    Args:
        pattern: keep the names that match it, case-insensitive, with the shell's wildcards
            (`"*V2"`, `"cifar*"`); None keeps all.
    """
    names = list(ARCHITECTURES)
    if pattern is None:
        return names
    return [name for name in names if fnmatch.fnmatch(name.lower(), pattern.lower())]


def get_architecture(name: str, **overrides: Any) -> Architecture:
    """The row of that name, with fields replaced.

    Args:
        name: a name of `list_models`.
        **overrides: as in `Architecture.changed`.

    Raises:
        ValueError: for an unknown name, naming the nearest, or an impossible value.
        TypeError: for an unknown field, naming the nearest.
    """
    if not isinstance(name, str) or name not in ARCHITECTURES:
        near = did_you_mean(str(name), ARCHITECTURES)
        hint = near or " keras_resnet.list_models() has the names."
        raise ValueError(f"There is no model {name!r}.{hint}")
    return ARCHITECTURES[name].changed(**overrides)
