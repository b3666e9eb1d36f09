"""ONNX files, through tf2onnx."""

import importlib
import logging
import types
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export.description import add_to_onnx
from keras_resnet.export.formats import Job
from keras_resnet.export.signatures import make_network

# The newest that tf2onnx writes well; ONNX Runtime has it since 1.14 (2023).
OPSET = 18


def write(job: Job) -> "Runner":
    """Writes an .onnx file and returns what runs it.

    It takes `images`, float32 [batch, size, size, 3], RGB values 0..255, and returns
    `probabilities` and `logits`, float32 [batch, classes], and of an export that says unknown
    `unknown`, bool [batch]. How images are prepared and what the
    classes are called stands in its metadata (`description`).
    """
    tf2onnx = _require("tf2onnx")
    _require("onnxruntime")  # before the work, not after it
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    network = make_network(job.model, **job.options)
    spec = tf.TensorSpec([None, *network.image_shape], tf.float32, name="images")

    @tf.function(input_signature=[spec], autograph=False)
    def function(images):
        _, logits = network(images)
        return network.pixel_outputs(logits)

    importlib.import_module("tf2onnx.convert")
    try:
        tf2onnx.convert.from_function(
            function, input_signature=[spec], opset=OPSET, output_path=str(job.path)
        )
    except (RuntimeError, ValueError, TypeError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"tf2onnx cannot convert {network.model.name}: {reason}") from error
    add_to_onnx(job.path, network.description)
    return Runner(job.path)


class Runner:
    """Images -> logits with ONNX Runtime on the CPU; UserError for what is no such file."""

    def __init__(self, path: Path):
        runtime = _require("onnxruntime")
        try:
            self._session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # of its own kinds, which have no common one
            raise UserError(f"{path}: cannot be loaded by ONNX Runtime ({error})") from error
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._session.run(["logits"], {"images": images.astype(np.float32)})[0]


def _require(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"ONNX needs {name}: pip install 'keras-resnet-tpu[onnx]' ({error})"
        ) from error
