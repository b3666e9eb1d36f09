"""`--config=NAME`, and `--config.key=value`: overrides, parsed by ml_collections' config flags."""

from collections.abc import Sequence

from absl import flags as absl_flags

from keras_resnet.errors import UsageError

_FLAG = "config_override"


class OverrideError(UsageError):
    """An override names no key or has the wrong type."""


def define(flags: absl_flags.FlagValues) -> None:
    """Lets a command take `--config.key=value`."""
    absl_flags.DEFINE_multi_string(
        _FLAG,
        [],
        "KEY=VALUE; the long form of --config.KEY=VALUE, any number of times",
        flag_values=flags,
    )


def define_config(flags: absl_flags.FlagValues) -> None:
    """Defines --config=NAME_OR_PATH and its overrides; `resolve` reads them."""
    from keras_resnet.config import bundled_configs

    names = ", ".join(bundled_configs())
    absl_flags.DEFINE_string(
        "config",
        None,
        f"bundled config ({names}) or a Python file with get_config()",
        flag_values=flags,
    )
    define(flags)


def resolve(flags: absl_flags.FlagValues):
    """Returns the checked config that `define_config`'s flags name, overrides applied.

    Raises:
        UsageError: there is no such config, or a key or value cannot be used.
    """
    from keras_resnet import config

    return config.check(apply(config.load_config(flags.config), flags))


def collect(arguments: Sequence[str], flags: absl_flags.FlagValues) -> list[str]:
    """Rewrites `--config.key=value` and `--noconfig.key` to the flag of `define`.

    Commands that did not call `define` get their arguments back unchanged: absl then refuses them.
    """
    if _FLAG not in flags:
        return list(arguments)
    rewritten, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        key, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and key.startswith("noconfig."):
            argument = f"--{_FLAG}={key.removeprefix('noconfig.')}=false"
        elif argument.startswith("-") and key.startswith("config."):
            if not equals:
                value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
            argument = f"--{_FLAG}={key.removeprefix('config.')}={value}"
        elif argument == "--":
            return [*rewritten, argument, *rest]
        rewritten.append(argument)
    return rewritten


def apply(config, flags: absl_flags.FlagValues):
    """Returns `config` with the overrides of the command line, each converted to the key's type.

    Raises:
        OverrideError: a key does not exist or a value has the wrong type.
    """
    from ml_collections import config_flags

    from keras_resnet.config import check_key

    pairs = flags[_FLAG].value
    for pair in pairs:
        check_key(pair.partition("=")[0], "the command line")
    argv = ["", *(f"--config.{pair}" for pair in pairs)]
    parsed = absl_flags.FlagValues()
    config_flags.DEFINE_config_dict("config", config, flag_values=parsed, sys_argv=argv)
    try:
        parsed(argv)
    except (absl_flags.Error, TypeError, ValueError) as error:
        raise OverrideError(str(error)) from error
    return parsed.config
