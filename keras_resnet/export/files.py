"""Exports that are one file: `.keras`, TFLite, ONNX. Written, run, compared, and only then kept."""

import os
from pathlib import Path

import keras

from keras_resnet.errors import UserError
from keras_resnet.export import comparison, onnx, sample_images, tflite
from keras_resnet.export.folding import inference_copy
from keras_resnet.export.loading import load_model
from keras_resnet.export.saved_model import network_caller
from keras_resnet.export.signatures import make_network
from keras_resnet.storage import replacing

TOLERANCES = {
    "keras": {"float32": 1e-4},
    "tflite": tflite.TOLERANCES,
    "onnx": onnx.TOLERANCES,
}


def export_file(
    model: keras.Model,
    output: str | os.PathLike,
    *,
    format: str,
    precision: str = "float32",
    fold: bool = True,
    class_names: list[str] | None = None,
    samples: sample_images.Samples | None = None,
) -> comparison.Difference:
    """Writes a model to a file of another format and compares it with the model.

    Args:
        model: a classifier of `keras_resnet.create_model`, with its preprocessing.
        output: the file; it is replaced only by an export that has passed.
        format: "keras" (for inference: folded, with preprocessing and class names), "tflite" or
            "onnx"; see `tflite.write` and `onnx.write` for inputs and outputs.
        precision: see `TOLERANCES`.
        fold: False keeps the normalizations.
        class_names: see `make_network`.
        samples: images to compare on, of which "int8" is calibrated too; default: random ones.

    Raises:
        UserError: the model cannot be exported, a package is missing, or the file's answers differ
            beyond the format's tolerance. The old file is then as it was.
    """
    output = Path(output).expanduser().absolute()
    reference = make_network(model, fold=False, class_names=class_names)
    if samples is None:
        samples = sample_images.drawn(reference.preprocessing)
    try:
        with replacing(output) as temporary:
            if format == "keras":
                run = _write_keras(model, temporary, fold, class_names)
            else:
                network = make_network(model, fold=fold, class_names=class_names)
                run = _convert(network, temporary, format, precision, samples)
            difference = comparison.compare(samples.batches(), network_caller(reference), run)
            what = f"{output.name} in {precision}"
            comparison.check(difference, TOLERANCES[format][precision], what)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from error
    return difference


def _write_keras(model, path: Path, fold: bool, class_names):
    copy = inference_copy(model, fold=fold)
    if class_names is not None:
        copy.class_names = class_names
    copy.save(path)
    return network_caller(make_network(load_model(path), fold=False))


def _convert(network, path: Path, format: str, precision: str, samples):
    if format == "onnx":
        onnx.write(network, path)
        return onnx.Runner(path)
    calibration = samples.first(tflite.CALIBRATION_IMAGES)
    tflite.write(network, path, precision, calibration)
    return tflite.Runner(path)
