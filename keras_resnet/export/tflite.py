"""TensorFlow Lite files: one image in, probabilities out."""

import gc
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export import tflite_metadata
from keras_resnet.export.description import Description
from keras_resnet.export.formats import Job
from keras_resnet.export.signatures import Network, make_network

CALIBRATION_IMAGES = 100


def write(job: Job) -> "Runner":
    """Writes a .tflite file and returns what runs it.

    Its signature `serving_default` takes `images`, float32 [1, size, size, 3], RGB values 0..255,
    and returns `probabilities` and `logits`, float32 [1, classes], whatever the precision inside;
    of an export that says unknown `unknown`, bool [1], as well.
    Android's and MediaPipe's image classifiers find in its metadata what they need
    (`tflite_metadata`); how images are prepared stands behind the model (`description`).

    Precisions: "float32"; "float16" stores the weights in 16 bits; "int8" computes in 8 bits
    (kernels by channel; Jacob et al. 2018) and learns the ranges of activations from the job's
    samples.
    """
    with tempfile.TemporaryDirectory(dir=job.path.parent) as folder:
        description = _save(make_network(job.model, **job.options), Path(folder))
        content = _convert(Path(folder), job)
    job.path.write_bytes(tflite_metadata.describe(content, description, job.model.name))
    tflite_metadata.add_files(job.path, description)
    return Runner(job.path)


def _save(network: Network, folder: Path) -> Description:
    """Writes a network as a SavedModel with variables and returns its description.

    The converter reads that without loading the weights into Python, which takes a fourth of the
    memory that a frozen graph does; and the network need not be kept meanwhile.
    """
    size = network.preprocessing.image_size
    spec = tf.TensorSpec([1, size, size, 3], tf.float32, name="images")

    @tf.function(input_signature=[spec], autograph=False)
    def serving_default(images):
        _, logits = network(images)
        return network.pixel_outputs(logits)

    module = tf.Module()
    module.serving_default = serving_default
    # What the module does not hold would stay without values (measured, TensorFlow 2.21: the file's
    # outputs are NaN).
    module.values = [variable.value for variable in network.model.variables]
    concrete = serving_default.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures=concrete)
    return network.description


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
        calibration = job.samples.first(CALIBRATION_IMAGES)
        converter.representative_dataset = lambda: _one_by_one(calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.target_spec.supported_types = [tf.int8]


def _one_by_one(images: np.ndarray) -> Iterator[list[np.ndarray]]:
    for image in images:
        yield [image[None].astype(np.float32)]


class Runner:
    """Images -> logits with TensorFlow Lite's interpreter; UserError for what is no such file."""

    def __init__(self, path: Path):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it announces its own removal, in a version past
                interpreter = tf.lite.Interpreter(str(path))
            self._run = interpreter.get_signature_runner("serving_default")
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{path}: cannot be loaded by TensorFlow Lite ({error})") from error

    def __call__(self, images: np.ndarray) -> np.ndarray:
        answers = [self._run(images=image) for (image,) in _one_by_one(images)]
        return np.concatenate([answer["logits"] for answer in answers])
