"""usage: keras-resnet export (--workdir=DIR | --model=FILE.keras) --output=PATH [--format=FORMAT]
                           [--precision=PRECISION] [--on-error=flag] [--top=5] [--max-batch=64]
                           [--images=PATHS] [--calibration=PATHS] [--calibrated] [--unknown=90%]
                           [--tta=none] [--webp] [--io=uint8] [--tolerance=0.05]
                           [--preprocessing=imagenet]

Formats: saved_model (the default; PATH is a folder, in which the next free number becomes a version
for TF Serving, beside serving_config/) and others, for which PATH is a file, or of openvino a
folder of versions for OpenVINO Model Server. PATH may be in a bucket, gs://BUCKET/NAME: what is
made and checked on this machine is then uploaded. Every export is run after it is written and
compared with the model; one that differs beyond its tolerance is not kept, unless --tolerance says
so. Model and export are compared on the images of --images, or on the evaluation split of the work
directory. --precision=int8 learns the ranges of activations from images (--calibration, or those of
the work directory's training split, or of --images) and says what it costs in accuracy. From a work
directory the finished model is taken, or the newest checkpoint of a run that still goes on, or with
--checkpoint=best the one with the highest top-1 or mAP. --calibrated exports logits divided by the
model's temperature, and --unknown an output `unknown` beside them (and `answers` in a SavedModel):
docs/calibration. Of a model that was evaluated with mirror images
(config.evaluation.tta) the export answers with them, too, in twice the time, and --tta says
otherwise; --tta=flip puts them into any export. --model may be a Keras model that was made on one
of our networks; --preprocessing says how its images are prepared."""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags as absl_flags

from keras_resnet import backend
from keras_resnet.calibration import Unknown
from keras_resnet.commands.options import (
    check_checkpoint,
    define_calibration,
    define_checkpoint,
    define_tta,
    notes_on_stderr,
    unknown_of,
)
from keras_resnet.commands.startup import start_tensorflow
from keras_resnet.errors import UsageError, UserError
from keras_resnet.export.formats import CALIBRATION_IMAGES, FORMATS, IO, PRECISIONS
from keras_resnet.export.labels import read_labels
from keras_resnet.export.serving_config import BATCH_SIZES
from keras_resnet.export.versions import is_name
from keras_resnet.flips import in_words
from keras_resnet.storage import as_path, check_bucket, check_keras_file, in_bucket, size_of
from keras_resnet.training.say import say
from keras_resnet.training.workdir import WorkDir

if TYPE_CHECKING:
    import keras
    from ml_collections import ConfigDict

    from keras_resnet.export.comparison import Difference
    from keras_resnet.export.sample_images import Samples

# Images on which model and export are compared; a tenth of a point is two of them in int8.
LIMIT = 256
LIMIT_INT8 = 2000
SUMMARY = "Write a trained network for TF Serving, TFLite, ONNX or OpenVINO, verified."


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags; the module's docstring says what they do."""
    for name, meaning in (
        ("workdir", "Work directory of the training run to export."),
        ("model", "The .keras file to export."),
        ("output", "Folder of the numbered versions (saved_model), or the file to write."),
        ("labels", "File of class names, one a line, to use instead of the model's own."),
        (
            "preprocessing",
            "How images are prepared, of a model that does not say it or says otherwise: imagenet, "
            "or a JSON file with fields of a Preprocessing, such as image_size, mean and std.",
        ),
        ("name", "Name by which clients ask for the model; default: that of the output folder."),
    ):
        absl_flags.DEFINE_string(name, None, meaning, flag_values=flags)
    for name, default, choices, meaning in (
        ("format", "saved_model", FORMATS, "What to write."),
        (
            "precision",
            "float32",
            PRECISIONS,
            "Number format in which the export computes. Those of each format: "
            + "; ".join(f"{name}: {', '.join(row.tolerances)}" for name, row in FORMATS.items())
            + ".",
        ),
        (
            "on-error",
            "fail",
            ["fail", "flag"],
            "What a server does with an image that it cannot decode: fail the request, or answer "
            "for the others and flag it in the output `valid`.",
        ),
        (
            "io",
            "float32",
            IO,
            "Numbers that a TFLite file in int8 takes and gives. Edge TPUs and microcontrollers "
            "take uint8 or int8.",
        ),
    ):
        absl_flags.DEFINE_enum(name, default, list(choices), meaning, flag_values=flags)
    define_checkpoint(flags)
    define_calibration(
        flags, "Export what says where no class is probable enough to be the answer, as well."
    )
    define_tta(flags, "as the model says")
    for name, value, meaning in (
        ("fold", True, "Keep batch normalization, instead of folding it, which is faster."),
        ("webp", False, "Let a SavedModel decode WebP files; servers before 2.20 refuse it then."),
    ):
        absl_flags.DEFINE_boolean(name, value, meaning, flag_values=flags)
    absl_flags.DEFINE_list(
        "images",
        [],
        "Files or folders of images on which model and export are compared. A file in a folder "
        "named like a class counts for the accuracy.",
        flag_values=flags,
    )
    absl_flags.DEFINE_list(
        "calibration",
        [],
        "Files or folders of images by which int8 learns the ranges of activations; "
        f"{CALIBRATION_IMAGES} of them are drawn. Without it those of "
        "the work directory's training split, or of --images.",
        flag_values=flags,
    )
    absl_flags.DEFINE_float(
        "tolerance",
        None,
        "Largest difference of a logit between model and export that is accepted, as a share of "
        "the largest logit, instead of the format's own; beyond that one a warning is printed.",
        flag_values=flags,
    )
    for name, number, lowest, meaning in (
        (
            "top",
            None,
            1,
            "Number of classes that a server answers with: 5, or all where an image may have "
            "several labels.",
        ),
        (
            "max-batch",
            64,
            BATCH_SIZES[-1],
            "Number of images that a request to a SavedModel may hold; a server refuses more, for "
            "which it may lack the memory.",
        ),
        (
            "limit",
            None,
            0,
            f"Number of images on which model and export are compared: {LIMIT}, or {LIMIT_INT8:,} "
            "of int8; 0: all.",
        ),
    ):
        absl_flags.DEFINE_integer(name, number, meaning, lower_bound=lowest, flag_values=flags)


def run(flags: absl_flags.FlagValues, arguments: list[str]) -> int:
    """Exports, says what was written and how far it is from the model, and returns 0."""
    _check_usage(flags, arguments)
    config = WorkDir(flags.workdir).read_config() if flags.workdir else None
    if flags.model:
        check_keras_file(Path(flags.model))
    labels = read_labels(Path(flags.labels)) if flags.labels else None
    start_tensorflow()
    if in_bucket(flags.output):  # before minutes are spent
        output = as_path(flags.output)
        check_bucket(output.parent if FORMATS[flags.format].suffix else output, "--output")
    from keras_resnet.export.own_heads import as_classifier, read_preprocessing
    from keras_resnet.models.loading import load_model
    from keras_resnet.training.evaluation import load_model_of_workdir

    given = flags.preprocessing and read_preprocessing(flags.preprocessing)

    if flags.workdir:
        model = load_model_of_workdir(WorkDir(flags.workdir), flags.checkpoint, say=say)
    else:
        model = load_model(Path(flags.model))
    model = as_classifier(model, given)
    samples, calibration = _samples(flags, config, model, labels)
    with notes_on_stderr():
        if FORMATS[flags.format].writer:
            _write_file(flags, model, samples, calibration, labels)
        else:
            _write_saved_model(flags, model, samples, labels)
    if words := in_words(flags.tta or getattr(model, "tta", "none")):
        print(f"flips: {words}, in twice the time")
    if flags.calibrated or flags.unknown is not None:
        _print_calibration(model, unknown_of(flags))
    return 0


def _print_calibration(model: "keras.Model", unknown: Unknown | None) -> None:
    found = model.calibration
    line = f"calibrated: logits divided by {found.temperature:.4g}, fitted on {found.images:,} "
    line += f"images of {found.split}"
    if unknown is not None:
        line += f"; unknown below {unknown.threshold(found):.4g}"
    print(line)


def _check_usage(flags: absl_flags.FlagValues, arguments: list[str]) -> None:
    if arguments or not flags.output or bool(flags.workdir) == bool(flags.model):
        raise UsageError(
            "it takes --output=PATH, and --workdir=DIR or --model=FILE.keras, and no other argument"
        )
    check_checkpoint(flags)
    if flags.tolerance is not None and not flags.tolerance > 0:
        raise UsageError(f"--tolerance={flags.tolerance}: takes a number above 0, as 0.05")
    if unknown_of(flags) is not None and flags.format == "keras":
        raise UsageError(
            f"--unknown={flags.unknown}: a .keras file gives probabilities alone; leave it out "
            "here and give it to `keras-resnet predict`, or take another --format"
        )
    row = FORMATS[flags.format]
    if flags.precision not in row.tolerances:
        raise UsageError(
            f"--precision={flags.precision}: --format={flags.format} takes "
            f"{', '.join(row.tolerances)}"
        )
    if flags.io not in row.io_in(flags.precision):
        raise UsageError(
            f"--io={flags.io}: inputs and outputs of 8 bits are for --format=tflite with "
            "--precision=int8; leave --io out"
        )
    if flags.calibration and flags.precision != "int8":
        raise UsageError(
            "--calibration: only --precision=int8 learns from images; --images are what model and "
            "export are compared on"
        )
    if flags.name is not None and not is_name(flags.name):
        raise UsageError(f"--name={flags.name!r}: take letters, digits, '.', '_' and '-'")
    output = Path(flags.output).expanduser()
    is_file = row.is_file(output)
    if is_file and output.suffix != row.suffix:
        raise UsageError(f"--output={flags.output}: the name should end with {row.suffix}")
    if in_bucket(flags.output):
        if row.suffix and not is_file:
            raise UsageError(
                f"--output={flags.output}: versions of {flags.format} are written into a local "
                f"folder; copy it from there, or name a file {row.suffix} in the bucket"
            )
        return
    if is_file and not output.absolute().parent.is_dir():
        raise UserError(f"--output={flags.output}: there is no such folder")
    if not is_file and output.is_file():
        raise UserError(
            f"--output={flags.output}: is a file; --format={flags.format} needs a folder"
        )


def _samples(
    flags: absl_flags.FlagValues,
    config: "ConfigDict | None",
    model: "keras.Model",
    labels: list[str] | None,
) -> "tuple[Samples | None, Samples | None]":
    """The images to compare on, and those by which int8 learns its ranges.

    None of a model that the export will refuse anyway.
    """
    import keras

    from keras_resnet.export import sample_images

    preprocessing = getattr(model, "preprocessing", None)
    names = tuple(labels or getattr(model, "class_names", None) or ())
    if getattr(model.layers[-1], "activation", None) is keras.activations.sigmoid:
        names = ()  # a folder names one of several labels
    if preprocessing is None:
        return None, None
    in_int8 = flags.precision == "int8"
    limit = (LIMIT_INT8 if in_int8 else LIMIT) if flags.limit is None else flags.limit

    def given(paths: list[str], option: str, count: int) -> "Samples":
        return sample_images.of_files(paths, preprocessing, names, count, option)

    def of_run(split: str, count: int) -> "Samples":
        from keras_resnet.training.data import open_source

        assert config is not None
        return sample_images.of_source(open_source(config, split), preprocessing, count)

    if flags.images:
        samples = given(flags.images, "images", limit)
    elif config is not None:
        samples = of_run(config.data.eval_split, limit)
    else:
        samples = sample_images.drawn(preprocessing)
    if not in_int8:
        return samples, None
    if flags.calibration:
        return samples, given(flags.calibration, "calibration", CALIBRATION_IMAGES)
    if config is not None:
        return samples, of_run(config.data.train_split, CALIBRATION_IMAGES)
    if flags.images:
        return samples, given(flags.images, "images", CALIBRATION_IMAGES)
    return samples, samples


def _write_saved_model(
    flags: absl_flags.FlagValues,
    model: "keras.Model",
    samples: "Samples | None",
    labels: list[str] | None,
) -> None:
    from keras_resnet.export.saved_model import export_saved_model

    written = export_saved_model(
        model,
        flags.output,
        precision=flags.precision,
        fold=flags.fold,
        top=flags.top,
        on_error=str(flags["on-error"].value),
        max_batch=int(str(flags["max-batch"].value)),
        webp=flags.webp,
        class_names=labels,
        samples=samples,
        name=flags.name,
        calibrated=flags.calibrated,
        unknown=unknown_of(flags),
        tta=flags.tta,
        tolerance=flags.tolerance,
    )
    if flags.precision == "bfloat16" and not backend.cpu_has_bfloat16():
        print("note: this CPU has no bfloat16 arithmetic and emulates it; serve on one that has")
    _print_difference(written.difference, samples)
    print(
        f"C++ loader: {written.report['requests']} requests and "
        f"{written.report['warmup_records']} warm-up records answered"
    )
    print(f"{written.path}: {', '.join(written.report['signatures'])}, {flags.precision}")
    webp = "" if flags.webp else "; it refuses WebP files (--webp)"
    print(f"server: needs {written.runtime}{webp}")
    config = written.serving_config
    if in_bucket(config):
        print(f"Next: gcloud storage cp --recursive {config} . on the server, then")
        config = Path(config.name)
    print(f"Next: {config}/docker.sh, then python {config}/client.py IMAGES")


def _write_file(
    flags: absl_flags.FlagValues,
    model: "keras.Model",
    samples: "Samples | None",
    calibration: "Samples | None",
    labels: list[str] | None,
) -> None:
    from keras_resnet.export.files import export_file

    options = {
        "precision": flags.precision,
        "fold": flags.fold,
        "class_names": labels,
        "samples": samples,
        "calibration": calibration,
        "calibrated": flags.calibrated,
        "unknown": unknown_of(flags),
        "tta": flags.tta,
        "tolerance": flags.tolerance,
    }
    row, path, started_by = FORMATS[flags.format], as_path(flags.output).expanduser(), ""
    if not row.is_file(path):
        from keras_resnet.export.openvino_server import export_version

        version = export_version(model, path, name=flags.name, **options)
        path, difference = version.path, version.difference
        started_by = str(version.serving_config / "docker_openvino.sh")
    else:
        difference = export_file(model, flags.output, format=flags.format, io=flags.io, **options)
    if calibration is not None:
        print(f"int8: calibrated on {calibration.description}")
    _print_difference(difference, samples)
    if flags.precision == "int8":
        _print_cost(difference)
    size = size_of(path)
    if row.beside:
        size += size_of(path.with_suffix(row.beside))
    also = f" and {row.beside}" if row.beside else ""
    print(f"{path}{also}: {flags.precision}, {size:,} bytes")
    if started_by:
        print(f"Next: {started_by} (not tried here), then pixels_client.py IMAGE beside it")


def _print_cost(difference: "Difference") -> None:
    if difference.loss is None:
        print(
            "note: what int8 costs in accuracy is not known: give labelled images, "
            "--images=FOLDER of folders named like the classes, or a work directory"
        )
    elif difference.worst_layers:
        what = "mAP" if difference.top1_before is None else "top-1"
        layers = ", ".join(f"{name} ({share:.1%})" for name, share in difference.worst_layers)
        print(
            f"WARNING: int8 costs {100 * difference.loss:.2f} points of {what}, more than half a "
            f"point. The layers whose activations differ most: {layers}. More images in "
            "--calibration may help, or float32 and bfloat16."
        )


def _print_difference(difference: "Difference", samples: "Samples | None") -> None:
    print(f"{difference} ({samples.description})" if samples else difference)
