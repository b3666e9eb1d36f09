"""TensorFlow Lite files: one image in, probabilities out."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export.description import add_to_tflite
from keras_resnet.export.formats import Job
from keras_resnet.export.signatures import Network, freeze, make_network


def write(job: Job) -> "Runner":
    """Writes a .tflite file and returns what runs it.

    Its signature `serving_default` takes `images`, float32 [1, size, size, 3], RGB values 0..255,
    and returns `probabilities` and `logits`, float32 [1, classes], whatever the precision inside;
    of an export that says unknown `unknown`, bool [1], as well.
    How images are prepared and what the classes are called stands behind the model
    (`description`).

    Precisions: "float32"; "float16" stores the weights in 16 bits; "int8" computes in 8 bits
    (kernels by channel; Jacob et al. 2018) and learns the ranges of activations from the job's
    calibration images. With `job.io` "uint8" or "int8", inputs and outputs are of 8 bits, too, as
    Edge TPUs and microcontrollers take them: "uint8" takes pixels as they are, "int8" pixels less
    128, and the file says by which scale its outputs are numbers.
    """
    network = make_network(job.model, **job.options)
    # Variables of Keras 3 would stay resources that nothing initializes (measured, TensorFlow 2.21:
    # the file's outputs are NaN).
    frozen = freeze(network)
    content = _convert(network, lambda images: network.pixel_outputs(frozen(images)[1]), job)
    job.path.write_bytes(content)
    add_to_tflite(job.path, network.description)
    return Runner(job.path)


def probe(
    network: Network, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], job: Job
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """As `write`, without a file and of any outputs: images -> them, in the job's precision."""
    run = _interpreter(model_content=_convert(network, function, job))
    return lambda images: _stacked([_answer(run, image) for image in images])


def _convert(
    network: Network, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], job: Job
) -> bytes:
    size = network.preprocessing.image_size
    spec = tf.TensorSpec([1, size, size, 3], tf.float32, name="images")
    quantized_io = job.io != "float32"

    @tf.function(input_signature=[spec], autograph=False)
    def serving_default(images):
        if quantized_io:  # so that a step is one shade, whatever shades the calibration images have
            images = tf.quantization.fake_quant_with_min_max_args(images, 0, 255)
        return function(images)

    module = tf.Module()
    module.serving_default = serving_default
    concrete = serving_default.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
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
    try:
        return converter.convert()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"TensorFlow Lite cannot convert {network.model.name}: {reason}") from error


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
