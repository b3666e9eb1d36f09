"""usage: keras-resnet export (--workdir=DIR | --model=FILE.keras) --output=PATH [--format=FORMAT]
                           [--precision=PRECISION] [--on-error=flag] [--top=5] [--max-batch=64]
                           [--images=PATHS] [--calibrated] [--unknown=90%] [--tta=none] [--webp]
                           [--tolerance=0.05] [--preprocessing=imagenet]

Formats: saved_model (the default; PATH is a folder, in which the next free number becomes a version
for TF Serving, beside serving_config/) and others, for which PATH is a file. PATH may be in a
bucket, gs://BUCKET/NAME: what is made and checked on this machine is then uploaded. Every export is
run after it is written and compared with the model; one that differs beyond its tolerance is not
kept, unless --tolerance says so. Model and export are compared on the images of --images, or on the
evaluation split of the work directory. From a work directory the finished model is taken, or the
newest checkpoint of a run that still goes on, or with --checkpoint=best the one with the highest
top-1 or mAP. --calibrated exports logits divided by the model's temperature, and --unknown an
output `unknown` beside them (and `answers` in a SavedModel): docs/calibration. Of a model that was
evaluated with mirror images
(config.evaluation.tta) the export answers with them, too, in twice the time, and --tta says
otherwise; --tta=flip puts them into any export. --model may be a Keras model that was made on one
of our networks; --preprocessing says how its images are prepared."""

import re
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
from keras_resnet.export.formats import FORMATS, PRECISIONS
from keras_resnet.export.labels import read_labels
from keras_resnet.export.serving_config import BATCH_SIZES
from keras_resnet.flips import in_words
from keras_resnet.storage import as_path, check_bucket, check_keras_file, in_bucket, size_of
from keras_resnet.training.say import say
from keras_resnet.training.workdir import WorkDir

if TYPE_CHECKING:
    import keras
    from ml_collections import ConfigDict

    from keras_resnet.export.sample_images import Samples

SUMMARY = "Write a trained network for TF Serving, TFLite or ONNX, verified."


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
        "Files or folders of images on which model and export are compared, and int8 is "
        "calibrated. A file in a folder named like a class counts for the accuracy.",
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
        ("limit", 256, 0, "Number of images on which model and export are compared; 0: all."),
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
    samples = _samples(flags, config, model, labels)
    with notes_on_stderr():
        if FORMATS[flags.format].writer:
            _write_file(flags, model, samples, labels)
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
    if flags.name is not None and not re.fullmatch(r"[\w.-]+", flags.name):
        raise UsageError(f"--name={flags.name!r}: take letters, digits, '.', '_' and '-'")
    if row.suffix and Path(flags.output).suffix != row.suffix:
        raise UsageError(f"--output={flags.output}: the name should end with {row.suffix}")
    if in_bucket(flags.output):
        return
    output = Path(flags.output).expanduser()
    if row.suffix and not output.absolute().parent.is_dir():
        raise UserError(f"--output={flags.output}: there is no such folder")
    if not row.suffix and output.is_file():
        raise UserError(
            f"--output={flags.output}: is a file; --format={flags.format} needs a folder"
        )


def _samples(
    flags: absl_flags.FlagValues,
    config: "ConfigDict | None",
    model: "keras.Model",
    labels: list[str] | None,
) -> "Samples | None":
    """The images to compare on; None of a model that the export will refuse anyway."""
    import keras

    from keras_resnet.export import sample_images

    preprocessing = getattr(model, "preprocessing", None)
    names = tuple(labels or getattr(model, "class_names", None) or ())
    if getattr(model.layers[-1], "activation", None) is keras.activations.sigmoid:
        names = ()  # a folder names one of several labels
    if preprocessing is None:
        return None
    if flags.images:
        return sample_images.of_files(flags.images, preprocessing, names, flags.limit)
    if config is not None:
        from keras_resnet.training.data import open_source

        source = open_source(config, config.data.eval_split)
        return sample_images.of_source(source, preprocessing, flags.limit)
    return sample_images.drawn(preprocessing)


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
    labels: list[str] | None,
) -> None:
    from keras_resnet.export.files import export_file

    difference = export_file(
        model,
        flags.output,
        format=flags.format,
        precision=flags.precision,
        fold=flags.fold,
        class_names=labels,
        samples=samples,
        calibrated=flags.calibrated,
        unknown=unknown_of(flags),
        tta=flags.tta,
        tolerance=flags.tolerance,
    )
    _print_difference(difference, samples)
    size = size_of(as_path(flags.output).expanduser())
    print(f"{flags.output}: {flags.precision}, {size:,} bytes")


def _print_difference(difference: object, samples: "Samples | None") -> None:
    print(f"{difference} ({samples.description})" if samples else difference)
