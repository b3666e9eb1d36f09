"""Exports that are files. Written, run, compared with the model, and only then kept."""

import gc
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_resnet.calibration import Unknown
from keras_resnet.errors import UserError
from keras_resnet.export import comparison, probing, sample_images
from keras_resnet.export.calibrating import temperature_of
from keras_resnet.export.formats import Job, find_format
from keras_resnet.export.own_heads import as_classifier
from keras_resnet.export.signatures import logits_caller, make_network
from keras_resnet.export.versions import UNFINISHED
from keras_resnet.staging import staging_folder
from keras_resnet.storage import as_path, explain_bucket_errors, in_bucket


def export_file(
    model: keras.Model,
    output: str | os.PathLike,
    *,
    format: str,
    precision: str = "float32",
    fold: bool = True,
    class_names: list[str] | None = None,
    samples: sample_images.Samples | None = None,
    calibration: sample_images.Samples | None = None,
    calibrated: bool = False,
    unknown: Unknown | str | float | None = None,
    tta: str | None = None,
    tolerance: float | None = None,
    preprocessing: Mapping[str, Any] | str | None = None,
    io: str = "float32",
) -> comparison.Difference:
    """Writes a model to a file of another format and compares it with the model.

    Args:
        model: a classifier of `keras_resnet.create_model`, with its preprocessing, or one that was
            made on such a network: see `as_classifier`.
        output: the file, which may be in a bucket (`gs://…`); it is replaced only by an export that
            has passed. "openvino" writes a second one beside it, of the same name with the suffix
            .bin.
        format: "keras" (for inference: folded, with preprocessing and class names), "tflite",
            "onnx" or "openvino"; see the module of each for inputs and outputs.
        precision: one that the format has, see `formats.FORMATS`.
        fold: False keeps the normalizations.
        class_names: see `make_network`.
        samples: images to compare on; default: random ones.
        calibration: images by which "int8" learns its ranges, of which the first 300 are taken;
            default: `samples`, which must be real ones then.
        calibrated, unknown, tta: see `make_network`; "keras" knows no `unknown`.
        tolerance: largest accepted difference of a logit, as a share of the largest one, instead of
            the format's; a difference beyond the format's is warned of.
        preprocessing: instead of the model's own: see `as_classifier`.
        io: what a TFLite file in "int8" takes and gives: "float32", "uint8" or "int8".

    Returns:
        How far it is from the model. In "int8", where it costs more than half a point of accuracy,
        with the layers whose activations differ most.

    Raises:
        UserError: the model cannot be exported, a package is missing, there are no images for
            "int8", or the file's answers differ beyond the format's tolerance. The old file is then
            as it was.
    """
    row = find_format(format, precision)
    if not row.writer:
        raise UserError(f"the export format {format} is no file; use export_saved_model")
    path = as_path(output).expanduser()
    path = path if in_bucket(path) else path.absolute()
    comparison.check_tolerance(tolerance)
    _check_io(format, precision, io)
    model = as_classifier(model, preprocessing)
    reference = make_network(model, fold=False, class_names=class_names, tta=tta)
    if samples is None:
        samples = sample_images.drawn(reference.preprocessing)
    calibration = calibration or samples
    if precision == "int8":
        calibration.refuse_drawn()
    expected = comparison.Reference(
        samples.batches, logits_caller(reference, temperature_of(model, calibrated, unknown))
    )
    del reference  # its weights are needed no more
    gc.collect()
    options = (class_names, calibration, calibrated, unknown, tta, io)
    try:
        with _replacing(path, row.beside) as temporary:
            job = Job(model, temporary, precision, fold, *options)
            difference = expected.compare(row.write(job))
            what = f"{path.name} in {precision}"
            comparison.check(difference, row.tolerances[precision], what, tolerance)
            if precision == "int8" and difference.costs_accuracy:
                images = samples.first(probing.IMAGES)
                difference.worst_layers = probing.worst_layers(row, job, images)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    return difference


def _check_io(format: str, precision: str, io: str) -> None:
    known = find_format(format, precision).io_in(precision)
    if io not in known:
        raise UserError(
            f"io={io!r}: {format} in {precision} takes and gives {', '.join(known)}; TFLite files "
            "in int8 can have inputs and outputs of 8 bits"
        )


@contextmanager
def _replacing(path: Path, beside: str) -> Iterator[Path]:
    """Yields the place to write what is to become `path`; killed exports leave nothing for good.

    Two files, with a second one of the suffix `beside`, cannot be renamed in one step. So the old
    first one goes before the second one comes: a reader finds both of one export, or none, and
    never the weights of another one.
    """
    apart = in_bucket(path)
    with tempfile.TemporaryDirectory() if apart else staging_folder(path.parent, UNFINISHED) as own:
        made = Path(own, path.name)
        yield made
        with explain_bucket_errors(path):
            if beside:
                path.unlink(missing_ok=True)
                _move(made.with_suffix(beside), path.with_suffix(beside))
            _move(made, path)


def _move(made: Path, path: Path) -> None:
    if in_bucket(path):
        path.write_bytes(made.read_bytes())
    else:
        os.replace(made, path)
