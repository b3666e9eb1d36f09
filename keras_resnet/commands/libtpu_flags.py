"""The flags of the TPU compiler that a config recommends, for LIBTPU_INIT_ARGS.

    python -m keras_resnet_cli run-module keras_resnet.commands.libtpu_flags train --config=NAME

prints them; `run_tpu.sh` calls it, because libtpu reads the variable once, when it is loaded.
So started it loads no TensorFlow and takes no time.
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from keras_resnet.config import load_config, overrides
from keras_resnet.errors import UserError


def recommended_flags(arguments: Sequence[str]) -> str:
    """Returns `libtpu_init_args` of the config that a command line names, "" without a config.

    Args:
        arguments: those of `keras-resnet`, command first. What it does not know it passes over: the
            command itself will judge it.

    Raises:
        UserError: the config or an override is wrong.
    """
    flags = absl_flags.FlagValues()
    absl_flags.DEFINE_string("config", None, "", flag_values=flags)
    overrides.define(flags)
    flags(["", *overrides.collect(arguments[1:], flags)], known_only=True)
    if not flags.config:
        return ""
    return overrides.apply(load_config(flags.config), flags).libtpu_init_args


def main(arguments: Sequence[str]) -> str | None:
    """Prints the flags; returns what is wrong with the command line, if anything is."""
    try:
        print(recommended_flags(arguments))
    except UserError as error:
        return f"keras_resnet.commands.libtpu_flags: {error}"
    return None
