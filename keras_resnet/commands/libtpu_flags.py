"""usage: keras-resnet libtpu-flags train --config=NAME [--config.key=value ...]

Prints the flags of the TPU compiler that the config of a command recommends (libtpu_init_args), for
LIBTPU_INIT_ARGS. run_tpu.sh asks for them, because libtpu reads the variable once, when it is
loaded. Whatever else the command has is passed over: the command itself will judge it."""

from absl import flags as absl_flags

from keras_resnet.config import load_config, overrides

SUMMARY = "Print the TPU compiler's flags that a config recommends (for run_tpu.sh)."
KNOWN_FLAGS_ONLY = True


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --config and the overrides."""
    overrides.define_config(flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Prints the flags, an empty line without a config; returns 0."""
    config = load_config(flags.config) if flags.config else None
    print(overrides.apply(config, flags).libtpu_init_args if config is not None else "")
    return 0
