"""`--config=NAME` and `--config.key=value`: a flag for each key, which the key itself parses."""

from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict

from keras_resnet.config.checks import check
from keras_resnet.config.key import Key
from keras_resnet.config.loading import bundled_configs, check_key, load_config, set_value
from keras_resnet.config.schema import KEYS
from keras_resnet.errors import UsageError

PREFIX = "config."


class _KeyFlag(absl_flags.Flag):
    """`--config.KEY=VALUE`; a boolean one also `--config.KEY` and `--noconfig.KEY`."""

    def __init__(self, key: Key):
        self._key = key
        super().__init__(
            parser=absl_flags.ArgumentParser(),
            serializer=None,
            name=PREFIX + key.name,
            default=None,
            help_string=key.help,
            boolean=key.type is bool,
        )

    def _parse(self, argument: str) -> Any:
        return self._key.parse(argument)


def define(flags: absl_flags.FlagValues) -> None:
    """Lets a command take `--config.key=value`."""
    for key in KEYS.values():
        flags[PREFIX + key.name] = _KeyFlag(key)


def define_config(flags: absl_flags.FlagValues) -> None:
    """Defines --config=NAME_OR_PATH and its overrides; `resolve` reads them."""
    absl_flags.DEFINE_string(
        "config",
        None,
        "Name of a bundled config, or a Python file with get_config(). Bundled are "
        f"{', '.join(bundled_configs())}.",
        flag_values=flags,
    )
    define(flags)


def resolve(flags: absl_flags.FlagValues) -> ConfigDict:
    """Returns the checked config that `define_config`'s flags name, overrides applied.

    Raises:
        UsageError: there is no such config, or a key or value cannot be used.
    """
    return check(apply(load_config(flags.config), flags))


def apply(config: ConfigDict, flags: absl_flags.FlagValues) -> ConfigDict:
    """Sets in `config` what the command line overrides; returns it."""
    for name, value in given(flags).items():
        set_value(config, name, value)
    return config


def given(flags: absl_flags.FlagValues) -> dict[str, Any]:
    """Returns what the command line overrides, by dotted key."""
    present = {name: flags[PREFIX + name] for name in KEYS}
    return {name: flag.value for name, flag in present.items() if flag.present}


def check_flag(name: str) -> None:
    """Raises UsageError, naming the closest key, if an unknown flag was meant to be an override."""
    for prefix in (PREFIX, f"no{PREFIX}"):
        if name.startswith(prefix):
            key = check_key(name.removeprefix(prefix), "the command line")
            # Only a boolean key has --noconfig.KEY.
            raise UsageError(f"there is no flag --{name}: write --{PREFIX}{key.name}=VALUE")
