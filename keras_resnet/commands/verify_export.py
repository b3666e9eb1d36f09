"""usage: keras-resnet verify-export [--runtime=2.15] [--tensorflow=DIR] [--json] [--trusted]
                                  EXPORT

EXPORT is a SavedModel or a folder of numbered versions, of which the newest is taken. It is loaded
and run by TensorFlow's C++ loader, the one inside TF Serving, in a process that has neither
TensorFlow nor Keras in Python: every signature with single and batched requests, a truncated image,
and the warm-up records; of a calibrated export also that `unknown` stands where it says. --runtime
says which TensorFlow the server has: an export with operations that it does not know fails the
check. --tensorflow runs all of it in the loader of another TensorFlow, which DIR holds after `pip
install --no-deps --target=DIR tensorflow-cpu==2.15.1`. Exit code 1 and one line if anything is
wrong; made for continuous integration."""

import json
from pathlib import Path

from absl import flags as absl_flags

from keras_resnet.commands.options import (
    define_json_switch,
    define_strings,
    define_trusted_switch,
    notes_on_stderr,
)
from keras_resnet.errors import UsageError, UserError
from keras_resnet.export.origin import warn_if_foreign
from keras_resnet.export.runtime import parse_version, runtime_of
from keras_resnet.export.verify import verify_saved_model
from keras_resnet.export.versions import newest_version
from keras_resnet.flips import in_words

SUMMARY = "Check a SavedModel with TensorFlow's C++ loader, as it is served."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --json, --trusted, --runtime and --tensorflow."""
    define_json_switch(flags)
    define_trusted_switch(flags)
    define_strings(
        flags,
        runtime="Version of the server's TensorFlow, such as 2.15: checks that it can run it.",
        tensorflow="Folder with another TensorFlow's wheel, whose loader runs the checks.",
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Verifies, prints what was run and returns 0."""
    if len(arguments) != 1:
        raise UsageError("name one folder: a SavedModel or a folder of numbered versions")
    served_by = parse_version(flags.runtime) if flags.runtime else None
    folder = newest_version(Path(arguments[0]).expanduser())
    if served_by is not None:
        try:
            runtime_of(folder).check(served_by)
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error
    if not flags.trusted:
        with notes_on_stderr():
            warn_if_foreign(folder)
    report, _ = verify_saved_model(folder, site_packages=flags.tensorflow)
    if flags.json:
        print(json.dumps({"path": str(folder), **report}))
        return 0
    for name, signature in report["signatures"].items():
        print(f"{name}: {_describe(signature['inputs'])} -> {_describe(signature['outputs'])}")
        print(
            f"  first request {report['first_ms'][name]:.0f} ms, "
            f"then {report['steady_ms'][name]:.0f} ms"
        )
    if report["calibrated"]:
        below = report["unknown_below"]
        unknown = "" if below is None else f"; unknown below {below:.4g}, where it says so"
        print(f"calibrated: its probabilities are the softmax of calibrated logits{unknown}")
    if words := in_words(report["tta"]):
        print(f"flips: {words}, as its answers to mirror images showed")
    print(
        f"{folder}: {report['warmup_records']} warm-up records and {report['requests']} requests "
        f"answered by the C++ loader of TensorFlow {report['tensorflow']}; needs TensorFlow "
        f"{report['needs_tensorflow']} or newer"
    )
    return 0


def _describe(infos: dict) -> str:
    return ", ".join(
        f"{key} {info['dtype']}[{', '.join('?' if n is None else str(n) for n in info['shape'])}]"
        for key, info in sorted(infos.items())
    )
