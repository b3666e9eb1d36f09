"""ONNX files, through tf2onnx."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export import onnx_int8, onnx_weights
from keras_resnet.export.extras import require
from keras_resnet.export.formats import Job
from keras_resnet.export.onnx_metadata import describe
from keras_resnet.export.signatures import Network, make_network

# The newest that tf2onnx writes well; ONNX Runtime has it since 1.14 (2023).
OPSET = 18


def write(job: Job) -> "Runner":
    """Writes an .onnx file and returns what runs it.

    It takes `images`, float32 [batch, size, size, 3], RGB values 0..255, and returns
    `probabilities` and `logits`, float32 [batch, classes], and of an export that says unknown
    `unknown`, bool [batch]. How images are prepared and what the classes are called stands in its
    metadata (`onnx_metadata`).

    Precisions: "float32"; "int8" computes in 8 bits (see `onnx_int8`) and learns the ranges of
    activations from the job's calibration images.
    """
    network = make_network(job.model, **job.options)
    model = _convert(network, lambda images: network.pixel_outputs(network(images)[1]), job)
    describe(model, network.description, network.model.name)
    _save(model, job.path)
    return Runner(job.path)


def probe(
    network: Network, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], job: Job
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """As `write`, without a file and of any outputs: images -> them, in the job's precision."""
    session = _session(_convert(network, function, job).SerializeToString(), "the network")
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        answers = session.run(names, {"images": images.astype(np.float32)})
        return dict(zip(names, answers, strict=True))

    return run


def _convert(
    network: Network, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], job: Job
) -> Any:
    """The ModelProto of a function of float32 pixels; in int8, if the job says so."""
    require("tf2onnx", "onnx", "ONNX")
    require("onnxruntime", "onnx", "ONNX")  # before the work, not after it
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    spec = tf.TensorSpec([None, *network.image_shape], tf.float32, name="images")
    try:
        model = onnx_weights.convert(function, spec, network.model.variables, OPSET)
        if job.precision == "int8":
            model = onnx_int8.quantize(model, job.calibration_images())
    except (RuntimeError, ValueError, TypeError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"tf2onnx cannot convert {network.model.name}: {reason}") from error
    return model


def _save(model: Any, path: Path) -> None:
    try:
        path.write_bytes(model.SerializeToString())
    except ValueError as error:  # a message holds less than 2 GiB
        raise UserError(f"{path.name}: the weights are too many for an .onnx file") from error


def _session(model: str | bytes, name: str) -> Any:
    runtime = require("onnxruntime", "onnx", "ONNX")
    try:
        return runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    except Exception as error:  # of its own kinds, which have no common one
        raise UserError(f"{name}: cannot be loaded by ONNX Runtime ({error})") from error


class Runner:
    """Images -> logits with ONNX Runtime on the CPU; UserError for what is no such file."""

    def __init__(self, path: Path):
        self._session = _session(str(path), str(path))
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._session.run(["logits"], {"images": images.astype(np.float32)})[0]
