"""usage: keras-resnet export (--workdir=DIR | --model=FILE.keras) --output=PATH [--format=FORMAT]
                           [--precision=PRECISION] [--on-error=flag] [--top=5] [--images=PATHS]

Formats: saved_model (default; PATH is a folder, in which the next free number becomes a version for
TF Serving, beside serving_config/), keras, tflite, onnx (PATH is a file). Precisions: float32;
saved_model also bfloat16, tflite also float16 and int8. Every export is run after writing and
compared with the model, and what differs beyond its tolerance is not kept. The images compared on
are those of --images, or the evaluation split of the work directory. From a work directory the
finished model is taken, or the newest checkpoint of a run that still goes on."""

import re
from pathlib import Path

from absl import flags as absl_flags

from keras_resnet.errors import UsageError, UserError

SUMMARY = "Write a trained network for TF Serving, TFLite or ONNX, verified."
FORMATS = {
    "saved_model": ("float32", "bfloat16"),
    "keras": ("float32",),
    "tflite": ("float32", "float16", "int8"),
    "onnx": ("float32",),
}
SUFFIXES = {"keras": ".keras", "tflite": ".tflite", "onnx": ".onnx"}


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    for name, meaning in (
        ("workdir", "work directory of a training run"),
        ("model", "a .keras file"),
        ("output", "folder of versions (saved_model), or the file to write"),
        ("labels", "file of class names, one a line, instead of the model's own"),
        ("name", "what clients call the model; default: the name of the output folder"),
    ):
        absl_flags.DEFINE_string(name, None, meaning, flag_values=flags)
    absl_flags.DEFINE_enum("format", "saved_model", list(FORMATS), "format", flag_values=flags)
    absl_flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16", "float16", "int8"],
        "of kernels and arithmetic",
        flag_values=flags,
    )
    absl_flags.DEFINE_boolean(
        "fold", True, "fold batch normalization into the convolutions", flag_values=flags
    )
    absl_flags.DEFINE_integer(
        "top", 5, "classes that serving_default returns", lower_bound=1, flag_values=flags
    )
    absl_flags.DEFINE_enum(
        "on-error",
        "fail",
        ["fail", "flag"],
        "an image that cannot be decoded fails its request, or is flagged in an output `valid`",
        flag_values=flags,
    )
    absl_flags.DEFINE_list(
        "images",
        [],
        "files or folders to compare model and export on, and to calibrate int8; a file in a "
        "folder named like a class counts for the accuracy",
        flag_values=flags,
    )
    absl_flags.DEFINE_integer(
        "limit", 256, "images compared on, 0: all", lower_bound=0, flag_values=flags
    )


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Exports, says what was written and how far it is from the model, and returns 0."""
    _check_usage(flags, arguments)
    config = None
    if flags.workdir:
        from keras_resnet.training.workdir import WorkDir

        config = WorkDir(flags.workdir).read_config()
    elif not Path(flags.model).expanduser().is_file():
        what = "is a folder" if Path(flags.model).expanduser().is_dir() else "no such file"
        raise UserError(f"--model={flags.model}: {what}")
    from keras_resnet import backend

    backend.require_tensorflow()
    from keras_resnet.export.loading import load_model, read_labels

    labels = read_labels(Path(flags.labels)) if flags.labels else None
    if flags.workdir:
        from keras_resnet.training.evaluation import load_model_of_workdir
        from keras_resnet.training.say import say

        model = load_model_of_workdir(WorkDir(flags.workdir), say=say)
    else:
        model = load_model(Path(flags.model).expanduser())
    samples = _samples(flags, config, model, labels)
    if flags.format == "saved_model":
        _write_saved_model(flags, model, samples, labels)
    else:
        _write_file(flags, model, samples, labels)
    return 0


def _check_usage(flags, arguments) -> None:
    if arguments or not flags.output or bool(flags.workdir) == bool(flags.model):
        raise UsageError(
            "it takes --output=PATH, and --workdir=DIR or --model=FILE.keras, and no other argument"
        )
    if flags.model and Path(flags.model).suffix != ".keras":
        raise UsageError(f"--model={flags.model}: the name should end with .keras")
    accepted = FORMATS[flags.format]
    if flags.precision not in accepted:
        raise UsageError(
            f"--precision={flags.precision}: --format={flags.format} knows {', '.join(accepted)}"
        )
    if "://" in flags.output:
        raise UsageError(f"--output={flags.output}: a local path is needed; copy it from there")
    suffix = SUFFIXES.get(flags.format)
    if suffix and Path(flags.output).suffix != suffix:
        raise UsageError(f"--output={flags.output}: the name should end with {suffix}")
    if suffix and not Path(flags.output).expanduser().absolute().parent.is_dir():
        raise UserError(f"--output={flags.output}: there is no such folder")
    if not suffix and Path(flags.output).expanduser().is_file():
        raise UserError(f"--output={flags.output}: is a file; --format=saved_model needs a folder")
    if flags.name is not None and not re.fullmatch(r"[\w.-]+", flags.name):
        raise UsageError(f"--name={flags.name!r}: take letters, digits, '.', '_' and '-'")


def _samples(flags, config, model, labels):
    from keras_resnet.export import sample_images

    preprocessing = getattr(model, "preprocessing", None)
    names = tuple(labels or getattr(model, "class_names", None) or ())
    if preprocessing is None:
        return None  # refused with a reason when the network is prepared
    if flags.images:
        return sample_images.of_files(flags.images, preprocessing, names, flags.limit)
    if config is not None:
        from keras_resnet.training.data import open_source

        source = open_source(config, config.data.eval_split)
        return sample_images.of_source(source, preprocessing, flags.limit)
    return sample_images.drawn(preprocessing)


def _write_saved_model(flags, model, samples, labels) -> None:
    from keras_resnet.export.saved_model import export_saved_model

    written = export_saved_model(
        model,
        flags.output,
        precision=flags.precision,
        fold=flags.fold,
        top=flags.top,
        on_error=flags["on-error"].value,
        class_names=labels,
        samples=samples,
        name=flags.name,
    )
    if flags.precision == "bfloat16" and not _has_bfloat16():
        print("note: this CPU has no bfloat16 arithmetic and emulates it; serve on one that has")
    print(f"{written.difference} ({samples.description})")
    print(
        f"C++ loader: {written.report['requests']} requests and "
        f"{written.report['warmup_records']} warm-up records answered"
    )
    print(f"{written.path}: {', '.join(written.report['signatures'])}, {flags.precision}")
    print(f"Next: {written.serving_config}/docker.sh, then {written.serving_config}/curl.sh IMAGE")


def _has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16; True where it cannot be told."""
    try:
        cpu = Path("/proc/cpuinfo").read_text()
    except OSError:
        return True
    return "flags" not in cpu or "avx512_bf16" in cpu or "amx_bf16" in cpu


def _write_file(flags, model, samples, labels) -> None:
    from keras_resnet.export import files

    difference = files.export_file(
        model,
        flags.output,
        format=flags.format,
        precision=flags.precision,
        fold=flags.fold,
        class_names=labels,
        samples=samples,
    )
    print(f"{difference} ({samples.description})")
    size = Path(flags.output).expanduser().stat().st_size
    print(f"{flags.output}: {flags.precision}, {size:,} bytes")
