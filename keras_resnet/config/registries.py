"""The names that a registry offers, read from its source.

Optimizers, losses, strategies and so on are each one literal dict in the file that implements them,
and most of these files import TensorFlow. What a config may say follows from these dicts; reading
them instead of importing them answers a misspelled name at once.
"""

import ast
import dataclasses
import functools
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Registry:
    """A dict, or a tuple of names, at the top level of a module of this package.

    Attributes:
        module: where it is, such as "training.optimizers".
        table: its name there, such as "OPTIMIZERS"; its keys are literal strings.
        also: names that a config may use beside them, which come first.
    """

    module: str
    table: str
    also: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Returns the registered names in their order.

        Raises:
            LookupError: the module has no such table, or its names are not literal strings.
        """
        return (*self.also, *_names(self.module, self.table))

    def has(self, name: str) -> bool:
        """Says whether a name is registered."""
        return name in self.names()


@functools.cache
def _names(module: str, table: str) -> tuple[str, ...]:
    path = _PACKAGE.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not any(isinstance(target, ast.Name) and target.id == table for target in targets):
            continue
        value = getattr(node, "value", None)
        entries = value.keys if isinstance(value, ast.Dict) else getattr(value, "elts", [None])
        names = [entry.value for entry in entries if isinstance(entry, ast.Constant)]
        if len(names) == len(entries) and all(isinstance(name, str) for name in names):
            return tuple(str(name) for name in names)
    raise LookupError(f"{path} has no table {table} with literal names")
