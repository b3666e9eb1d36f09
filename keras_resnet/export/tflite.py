"""TensorFlow Lite files: one image in, probabilities out."""

import gc
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export import tflite_metadata
from keras_resnet.export.description import Description
from keras_resnet.export.formats import Job
from keras_resnet.export.signatures import Network, make_network


def write(job: Job) -> "Runner":
    """Writes a .tflite file and returns what runs it.

    Its signature `serving_default` takes `images`, float32 [1, size, size, 3], RGB values 0..255,
    and returns `probabilities` and `logits`, float32 [1, classes], whatever the precision inside;
    of an export that says unknown `unknown`, bool [1], as well.
    Android's and MediaPipe's image classifiers find in its metadata what they need
    (`tflite_metadata`); how images are prepared stands behind the model (`description`).

    Precisions: "float32"; "float16" stores the weights in 16 bits; "int8" computes in 8 bits
    (kernels by channel; Jacob et al. 2018) and learns the ranges of activations from the job's
    calibration images. With `job.io` "uint8" or "int8", inputs and outputs are of 8 bits, too, as
    Edge TPUs and microcontrollers take them: "uint8" takes pixels as they are, "int8" pixels less
    128, and the file says by which scale its outputs are numbers.
    """
    with tempfile.TemporaryDirectory(dir=job.path.parent) as folder:
        description = _save_network(job, Path(folder))
        content = _convert(Path(folder), job)
    job.path.write_bytes(tflite_metadata.describe(content, description, job.model.name))
    tflite_metadata.add_files(job.path, description)
    return Runner(job.path)


def probe(
    network: Network, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], job: Job
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """As `write`, without a file and of any outputs: images -> them, in the job's precision."""
    with tempfile.TemporaryDirectory() as folder:
        _save(network, function, Path(folder), job)
        run = _interpreter(model_content=_convert(Path(folder), job))
    return lambda images: _stacked([_answer(run, image) for image in images])


def _save_network(job: Job, folder: Path) -> Description:
    """Writes the network, which need not be kept meanwhile, and returns its description."""
    network = make_network(job.model, **job.options)
    _save(network, lambda images: network.pixel_outputs(network(images)[1]), folder, job)
    return network.description


def _save(
    network: Network, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], folder: Path, job: Job
) -> None:
    """Writes a function of float32 pixels as a SavedModel with the network's variables.

    The converter reads that without loading the weights into Python, which takes a fourth of the
    memory that a frozen graph does.
    """
    size = network.preprocessing.image_size
    spec = tf.TensorSpec([1, size, size, 3], tf.float32, name="images")

    @tf.function(input_signature=[spec], autograph=False)
    def serving_default(images):
        if job.io != "float32":  # a step is one shade, whatever the calibration images have
            images = tf.quantization.fake_quant_with_min_max_args(images, 0, 255)
        return function(images)

    module = tf.Module()
    module.serving_default = serving_default
    # What the module does not hold would stay without values (measured, TensorFlow 2.21: the file's
    # outputs are NaN).
    module.values = [variable.value for variable in network.model.variables]
    concrete = serving_default.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures=concrete)


def _convert(folder: Path, job: Job) -> bytes:
    gc.collect()  # graphs of functions are circles of references, which hold the network
    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        _set_precision(converter, job)
        return converter.convert()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"TensorFlow Lite cannot convert {job.model.name}: {reason}") from error


def _set_precision(converter: tf.lite.TFLiteConverter, job: Job) -> None:
    if job.precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if job.precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if job.precision == "int8":
        calibration = job.calibration_images()
        converter.representative_dataset = lambda: _one_by_one(calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.target_spec.supported_types = [tf.int8]
        converter.inference_input_type = tf.as_dtype(job.io)
        converter.inference_output_type = tf.as_dtype(job.io)


def _one_by_one(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    for image in images:
        yield [image[None].astype(np.float32)]


def _interpreter(**model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces its own removal, in a version past
        return tf.lite.Interpreter(**model).get_signature_runner("serving_default")


def _answer(run: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    """float32 outputs of one image, whatever numbers the file takes and gives."""
    entry = run.get_input_details()["images"]
    outputs = run(images=_quantized(image[None], entry))
    details = run.get_output_details()
    return {name: _numbers(value, details[name]) for name, value in outputs.items()}


def _quantized(pixels: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    scale, zero = entry["quantization"]
    if not scale:
        return pixels.astype(entry["dtype"])
    limits = np.iinfo(entry["dtype"])
    steps = np.rint(pixels.astype(np.float32) / scale) + zero
    return np.clip(steps, limits.min, limits.max).astype(entry["dtype"])


def _numbers(values: np.ndarray, output: dict[str, Any]) -> np.ndarray:
    scale, zero = output["quantization"]
    return (values.astype(np.float32) - zero) * np.float32(scale) if scale else values


def _stacked(answers: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


class Runner:
    """Images -> logits with TensorFlow Lite's interpreter; UserError for what is no such file."""

    def __init__(self, path: Path):
        try:
            self._run = _interpreter(model_path=str(path))
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be loaded by TensorFlow Lite ({error})") from error

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return _stacked([_answer(self._run, image) for image in images])["logits"]
