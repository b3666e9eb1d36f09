"""usage: keras-resnet doctor [--json]

Says which versions are installed, which devices TensorFlow sees and which variables are set, what
is wrong with them and what to do. Paste it into a bug report. Exit code 0: nothing is wrong,
1: something is."""

import json

from absl import flags as absl_flags

from keras_resnet.errors import UsageError

SUMMARY = "Say what is installed, which devices are seen, and what is wrong."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --json."""
    absl_flags.DEFINE_boolean("json", False, "print one JSON object", flag_values=flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Examines and prints; returns 0, or 1 if there are problems."""
    from keras_resnet.commands import diagnosis as doctor

    if arguments:
        raise UsageError(f"unexpected argument {arguments[0]!r}; it takes --json and nothing else")
    facts = doctor.examine()
    print(json.dumps(facts, indent=2) if flags.json else doctor.describe(facts))
    return 1 if facts["problems"] else 0
