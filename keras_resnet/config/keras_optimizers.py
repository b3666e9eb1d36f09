"""The optimizers of Keras and the arguments of each, read from Keras' source.

Nothing here imports Keras, which takes seconds: a misspelled name or argument is answered at once.
Which optimizers there are follows from the installed Keras alone.
"""

import ast
import contextlib
import dataclasses
import functools
import math
import re
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.config.registries import Registry
from keras_resnet.errors import UsageError, nearest

WHERE = "config.optimizer.arguments"
# Keys of `optimizer.*` that sgd, lars, adamw and lamb take. Optimizers of Keras have defaults of
# their own for what is called the same.
KEYS_OF_OURS = ("momentum", "nesterov", "trust_coefficient", "beta_1", "beta_2", "epsilon")
# What each optimizer of Keras takes, and what a config has in its place.
_INSTEAD = {
    "learning_rate": "config.optimizer.learning_rate",
    "weight_decay": "config.optimizer.weight_decay",
    "clipnorm": "config.optimizer.clip_norm",
    "clipvalue": "config.optimizer.clip_norm",
    "global_clipnorm": "config.optimizer.clip_norm",
    "use_ema": "config.ema.decay",
    "ema_momentum": "config.ema.decay",
    "ema_overwrite_frequency": "config.ema.decay",
    "loss_scale_factor": "config.precision",
    "gradient_accumulation_steps": "config.accumulate_steps",
}
_OURS = Registry("training.optimizers", "OPTIMIZERS")
_OF_ALL = (*_INSTEAD, "name", "self", "kwargs")
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of an optimizer's constructor.

    Attributes:
        default: as Keras has it.
        kind: bool, int, float, str or tuple, which is a list of texts.
        takes_none: whether None is a value of its own.
    """

    default: Any
    kind: type
    takes_none: bool

    def accept(self, value: Any) -> Any:
        """Returns a value in its kind; raises TypeError where it is of another."""
        if value is None and self.takes_none:
            return None
        if self.kind is float and type(value) is int:
            value = float(value)
        if self.kind is tuple:
            value = [value] if isinstance(value, str) else list(value)
            if not all(isinstance(entry, str) for entry in value):
                raise TypeError
            return value
        if type(value) is not self.kind or (isinstance(value, float) and not math.isfinite(value)):
            raise TypeError
        return value

    def __str__(self) -> str:
        words = _WORDS.get(self.kind, "a list of texts")
        return f"{words} or None" if self.takes_none else words


class OptimizerNames(Registry):
    """The names of a table of ours, and then those of Keras."""

    def names(self) -> tuple[str, ...]:
        """Returns the names, ours first."""
        return (*super().names(), *keras_optimizers())

    def has(self, name: str) -> bool:
        """Says whether a name is one of them, of ours without a look at Keras."""
        return name in super().names() or name in keras_optimizers()


@functools.cache
def keras_optimizers() -> dict[str, dict[str, Argument]]:
    """Returns for each optimizer of `keras.optimizers` its own arguments by name.

    Those are classes whose constructor takes a learning rate: wrappers of others do not. `sgd`,
    `adamw` and `lamb` are Keras' with the decay that recipes ask for; a second name that differs in
    its case alone, and decays otherwise, would be taken for them, so it is left out.
    """
    ours, folder, found = _OURS.names(), _folder_of_keras(), {}
    if folder is None:  # who trains is told so by the import
        return {}
    for node in ast.parse((folder / "optimizers" / "__init__.py").read_text()).body:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        file = folder.parent.joinpath(*node.module.split(".")).with_suffix(".py")
        source = file.read_text() if file.is_file() else ""
        for alias in node.names:
            arguments = _arguments(source, alias.name)
            if "learning_rate" in arguments and alias.name.lower() not in ours:
                found[alias.name] = {k: v for k, v in arguments.items() if k not in _OF_ALL}
    return found


def _arguments_of(name: str) -> dict[str, Argument] | None:
    """The own arguments of an optimizer of Keras; None of ours, without a look at Keras."""
    return None if _OURS.has(name) else keras_optimizers().get(name)


def parse_arguments(config: ConfigDict) -> dict[str, Any]:
    """Returns what `optimizer.arguments` sets, by name, for the optimizer of `optimizer.name`.

    Raises:
        UsageError: one is not NAME=VALUE, unknown, given twice or of another type, or a key is set
            that this optimizer does not take.
    """
    options = config.optimizer
    name, known = options.name, _arguments_of(options.name)
    if known is None:
        if options.arguments:
            raise UsageError(
                f"{WHERE}={options.arguments!r} goes with optimizers of Keras by name, such as "
                f"RMSprop; those of {name} are keys, such as config.optimizer.weight_decay"
            )
        return {}
    found: dict[str, Any] = {}
    for text in options.arguments:
        argument, value = _parse(text, name, known)
        if argument in found:
            raise UsageError(f"{WHERE}={options.arguments!r} has {argument} twice; leave out one")
        found[argument] = value
    return found


def refuse_keys_of_ours(config: ConfigDict, defaults: dict[str, Any]) -> None:
    """Raises UsageError where a key is set that an optimizer of Keras would not hear of.

    Args:
        config: of a run.
        defaults: of KEYS_OF_OURS.
    """
    known = _arguments_of(config.optimizer.name)
    if known is None:
        return
    for key, default in defaults.items():
        value = config.optimizer[key]
        if value == default:
            continue
        instead = f"leave config.optimizer.{key} at {default!r}"
        if key in known:
            instead += f" and write {WHERE}={key}={value!r}"
        raise UsageError(
            f"config.optimizer.{key}={value!r} is for sgd, lars, adamw and lamb, and not for "
            f"config.optimizer.name={config.optimizer.name!r}: {instead}"
        )


def _parse(text: str, name: str, known: dict[str, Argument]) -> tuple[str, Any]:
    key, equals, written = (part.strip() for part in text.partition("="))
    if not equals or not written:
        raise UsageError(f"{WHERE}={text!r} should be NAME=VALUE, such as {_example(known)}")
    if key in _INSTEAD:
        raise UsageError(f"{WHERE}={text!r}: set {_INSTEAD[key]}, which every optimizer has")
    if key not in known:
        own = ", ".join(known) or "no arguments of its own"
        raise UsageError(f"{WHERE}={text!r}: {name} takes {own}{nearest(key, known)}")
    try:
        return key, known[key].accept(_value_of(written))
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"{WHERE}={text!r}: {key} of {name} takes {known[key]}, for example "
            f"{_example({key: known[key]})}"
        ) from error


def _example(known: dict[str, Argument]) -> str:
    key, row = next(iter(known.items()), ("beta_1", Argument(0.9, float, False)))
    return f"{key}={'predictions' if row.default is None else row.default}"


def _value_of(text: str) -> Any:
    """A value as Python writes it, true and false in any case, or else the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "none":
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


# ---- Reading the source --------------------------------------------------------------------------


def _folder_of_keras() -> Path | None:
    # Not `importlib.util.find_spec`: it would look into a module whose loading is put off.
    spec = PathFinder.find_spec("keras")
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def _arguments(source: str, name: str) -> dict[str, Argument]:
    """The arguments of a class with a default; none of a class that takes no learning rate."""
    if not re.search(rf"^class {name}\b", source, re.MULTILINE):
        return {}
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    node = next(node for node in classes if node.name == name)
    own = [entry for entry in node.body if isinstance(entry, ast.FunctionDef)]
    constructor = next((entry for entry in own if entry.name == "__init__"), None)
    if constructor is None:
        return {}
    doc = ast.get_docstring(node) or ""
    names = [entry.arg for entry in constructor.args.args]
    if "learning_rate" not in names:
        return {}
    defaults = constructor.args.defaults
    found = {}
    for key, default in zip(names[len(names) - len(defaults) :], defaults, strict=True):
        # What is no literal is left at what Keras makes of it.
        with contextlib.suppress(ValueError):
            found[key] = _argument(key, ast.literal_eval(default), doc, source)
    return found


def _argument(name: str, default: Any, doc: str, source: str) -> Argument:
    """By the default; where that is None or a whole number, by what the docstring begins with."""
    said = re.search(rf"^\s*{name}: (?:A |An )?(\w+)", doc, re.MULTILINE)
    word = said[1].lower() if said else ""
    kind = type(default)
    if default is None:
        kind = {"list": tuple, "float": float, "integer": int, "boolean": bool}.get(word, str)
    elif kind is int and word == "float":
        kind = float
    takes_none = default is None or f"self.{name} is None" in source
    return Argument(default, kind, takes_none)
