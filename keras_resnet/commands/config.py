"""usage: keras-resnet config [NAME_OR_PATH] [KEY_OR_GROUP ...] [--config.key=value ...]

Prints every key of a config with its value, the values it may have and what it does: of the
defaults, or of a config, where * marks what differs from the defaults. Keys or groups of keys, such
as `optimizer` or `data.augment`, narrow it down."""

import textwrap
from collections.abc import Iterator
from typing import Any

from absl import flags as absl_flags

from keras_resnet.config import (
    KEYS,
    bundled_configs,
    check,
    default_config,
    flatten,
    load_config,
    overrides,
)
from keras_resnet.config.key import FREELY, NOTED, Key
from keras_resnet.errors import UsageError, did_you_mean

SUMMARY = "List the keys of a config: values, choices and what each does."

_WIDTH = 98
_HEADER = """\
Config: {}. * marks what differs from the defaults.
Keys with `resume: freely` or `noted` may change when a run resumes; what is noted is written into
the history in its config.json.
"""
_ON_RESUME = {NOTED: "resume: noted", FREELY: "resume: freely"}


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the overrides, to see what becomes of them."""
    overrides.define(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Prints and returns 0."""
    groups = {".".join(name.split(".")[:depth]) for name in KEYS for depth in (1, 2)} - {*KEYS}
    filters = [name for name in arguments if name in KEYS or name in groups]
    names = [name for name in arguments if name not in filters]
    for name in names:
        if name not in bundled_configs() and not name.endswith(".py"):
            hint = did_you_mean(name, [*bundled_configs(), *KEYS, *sorted(groups)])
            raise UsageError(f"{name!r} is not a config, a key or a group of keys.{hint}")
    if len(names) > 1:
        raise UsageError(f"name one config, not {' and '.join(names)}")
    config = load_config(names[0]) if names else default_config()
    values = dict(flatten(check(overrides.apply(config, flags))))
    shown = [
        key
        for key in KEYS.values()
        if not filters or any(f"{key.name}.".startswith(f"{name}.") for name in filters)
    ]
    print(_HEADER.format(names[0] if names else "the defaults"))
    print("\n".join(_lines(shown, values)))
    return 0


def _lines(keys: list[Key], values: dict[str, Any]) -> Iterator[str]:
    group = keys[0].name.rpartition(".")[0]
    for key in keys:
        if key.name.rpartition(".")[0] != group:
            group = key.name.rpartition(".")[0]
            yield ""
        value = values[key.name]
        differs = value != key.default
        facts = [key.accepts(), f"default {key.default!r}" if differs else ""]
        facts = [fact for fact in (*facts, _ON_RESUME.get(key.resume)) if fact]
        head = f"{'*' if differs else ' '} {key.name} = {value!r}"
        if facts and len(f"{head}  ({'; '.join(facts)})") <= _WIDTH:
            head, facts = f"{head}  ({'; '.join(facts)})", []
        yield head
        yield from _wrapped(key.help)
        if facts:
            yield from _wrapped(f"({'; '.join(facts)})")


def _wrapped(text: str) -> list[str]:
    indent = " " * 6
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
