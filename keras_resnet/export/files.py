"""Exports that are one file. Written, run, compared with the model, and only then kept."""

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_resnet.calibration import Unknown
from keras_resnet.errors import UserError
from keras_resnet.export import comparison, sample_images
from keras_resnet.export.calibrating import temperature_of
from keras_resnet.export.formats import Job, find_format
from keras_resnet.export.own_heads import as_classifier
from keras_resnet.export.signatures import logits_caller, make_network
from keras_resnet.export.versions import UNFINISHED
from keras_resnet.staging import staging_folder
from keras_resnet.storage import as_path, in_bucket, replacing


def export_file(
    model: keras.Model,
    output: str | os.PathLike,
    *,
    format: str,
    precision: str = "float32",
    fold: bool = True,
    class_names: list[str] | None = None,
    samples: sample_images.Samples | None = None,
    calibrated: bool = False,
    unknown: Unknown | str | float | None = None,
    tta: str | None = None,
    tolerance: float | None = None,
    preprocessing: Mapping[str, Any] | str | None = None,
) -> comparison.Difference:
    """Writes a model to a file of another format and compares it with the model.

    Args:
        model: a classifier of `keras_resnet.create_model`, with its preprocessing, or one that was
            made on such a network: see `as_classifier`.
        output: the file, which may be in a bucket (`gs://…`); it is replaced only by an export that
            has passed.
        format: "keras" (for inference: folded, with preprocessing and class names), "tflite" or
            "onnx"; see the module of each for inputs and outputs.
        precision: one that the format has, see `formats.FORMATS`.
        fold: False keeps the normalizations.
        class_names: see `make_network`.
        samples: images to compare on, by which "int8" learns its ranges, too; default: random
            ones.
        calibrated, unknown, tta: see `make_network`; "keras" knows no `unknown`.
        tolerance: largest accepted difference of a logit, as a share of the largest one, instead of
            the format's; a difference beyond the format's is warned of.
        preprocessing: instead of the model's own: see `as_classifier`.

    Raises:
        UserError: the model cannot be exported, a package is missing, or the file's answers differ
            beyond the format's tolerance. The old file is then as it was.
    """
    row = find_format(format, precision)
    if not row.writer:
        raise UserError(f"the export format {format} is no file; use export_saved_model")
    path = as_path(output).expanduser()
    path = path if in_bucket(path) else path.absolute()
    comparison.check_tolerance(tolerance)
    model = as_classifier(model, preprocessing)
    reference = make_network(model, fold=False, class_names=class_names, tta=tta)
    if samples is None:
        samples = sample_images.drawn(reference.preprocessing)
    expected = comparison.Reference(
        samples.batches, logits_caller(reference, temperature_of(model, calibrated, unknown))
    )
    del reference  # its weights are needed no more
    gc.collect()
    try:
        with _replacing(path) as temporary:
            run = row.write(
                Job(
                    model,
                    temporary,
                    precision,
                    fold,
                    class_names,
                    samples,
                    calibrated,
                    unknown,
                    tta,
                )
            )
            difference = expected.compare(run)
            what = f"{path.name} in {precision}"
            comparison.check(difference, row.tolerances[precision], what, tolerance)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    return difference


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields the place to write what is to become `path`; killed exports leave nothing for good."""
    if in_bucket(path):
        with replacing(path) as temporary:
            yield temporary
        return
    with staging_folder(path.parent, UNFINISHED) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)
