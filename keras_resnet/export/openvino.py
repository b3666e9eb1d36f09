"""OpenVINO IR: the network in an .xml file, and its weights in a .bin file beside it."""

import contextlib
import io
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export import description
from keras_resnet.export.extras import require
from keras_resnet.export.formats import Job
from keras_resnet.export.signatures import Network, freeze, make_network
from keras_resnet.weights.files import sha256

WEIGHTS = ".bin"
# What OpenVINO is to compute in, of what its device offers: without a hint a CPU that multiplies
# bfloat16 does so with every network, a float32 one too (measured, 2026.4).
HINTS = {"float32": "f32", "float16": "f32", "bfloat16": "bf16", "int8": "f32"}
_SECTION = "keras_resnet"
_NO_DIGEST = "0" * 64


def write(job: Job) -> "Runner":
    """Writes an .xml and a .bin file and returns what runs them.

    It takes `images`, uint8 [batch, size, size, 3], RGB, and returns `probabilities` and `logits`,
    float32 [batch, classes], and of an export that says unknown `unknown`, bool [batch]. How images
    are prepared, what the classes are called and what to compute in stand in its runtime info.

    Precisions: "float32"; "float16" stores the weights in 16 bits and computes in float32;
    "bfloat16" stores them as "float16" does, which keeps more bits, and computes in bfloat16;
    "int8" computes in 8 bits (kernels by channel, by NNCF) and learns the ranges of activations
    from the job's calibration images.
    """
    runtime = import_openvino()
    network = make_network(job.model, **job.options)
    frozen = freeze(network)
    model = _convert(network, lambda images: network.pixel_outputs(frozen(images)[1]), job)
    model = _take_pixels(model)
    model.set_rt_info(network.description.to_json(), [_SECTION, "description"])
    model.set_rt_info(HINTS[job.precision], [_SECTION, "inference_precision"])
    model.set_rt_info(_NO_DIGEST, [_SECTION, "weights_sha256"])
    runtime.save_model(
        model, str(job.path), compress_to_fp16=job.precision in ("float16", "bfloat16")
    )
    _note_digest(job.path)
    return Runner(job.path)


def probe(
    network: Network, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], job: Job
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """As `write`, without a file and of any outputs: images -> them, in the job's precision."""
    runtime = import_openvino()
    spec = tf.TensorSpec([None, *network.image_shape], tf.float32)
    traced = tf.function(function, autograph=False).get_concrete_function(spec)
    names = sorted(traced.structured_outputs)  # the order of what is frozen
    frozen = freeze(network, function)
    model = _convert(network, lambda images: dict(zip(names, frozen(images), strict=True)), job)
    options = _options(HINTS[job.precision])
    compiled = runtime.Core().compile_model(model, "CPU", options)

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        answer = compiled({"images": images.astype(np.float32)})
        return {name: answer[name] for output in compiled.outputs for name in output.names}

    return run


def _convert(
    network: Network, function: Callable[[tf.Tensor], dict[str, tf.Tensor]], job: Job
) -> Any:
    """An openvino.Model of a function of float32 pixels; in int8, if the job says so."""
    spec = tf.TensorSpec([None, *network.image_shape], tf.float32, name="images")
    concrete = tf.function(function, autograph=False).get_concrete_function(spec)
    try:
        model = import_openvino().convert_model(concrete)
        return _quantize(model, job.calibration_images()) if job.precision == "int8" else model
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"OpenVINO cannot convert {network.model.name}: {reason}") from error


def _quantize(model: Any, images: np.ndarray) -> Any:
    """The same in 8 bits; float32 where that is what NNCF leaves alone."""
    nncf = require("nncf", "openvino-int8", "int8 in OpenVINO")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    dataset = nncf.Dataset(list(images), lambda image: image[None].astype(np.float32))
    # Extremes over the images, not the means of their extremes, and no correction of biases
    # (measured, NNCF 3.4: of a trained CIFAR network the logits are 7 times nearer, 0.04 for 0.31).
    options = AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        disable_bias_correction=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # its progress
        return nncf.quantize(model, dataset, subset_size=len(images), advanced_parameters=options)


def _take_pixels(model: Any) -> Any:
    """The same for uint8 images, said to lie channels last."""
    runtime = import_openvino()
    steps = runtime.preprocess.PrePostProcessor(model)
    images, layout = steps.input("images"), runtime.Layout("NHWC")
    images.tensor().set_element_type(runtime.Type.u8).set_layout(layout)
    images.model().set_layout(layout)
    return steps.build()


def _note_digest(path: Path) -> None:
    """Notes in an .xml file, in place of as many zeros, the SHA-256 of the weights beside it."""
    digest = sha256(path.with_suffix(WEIGHTS))
    path.write_text(path.read_text("utf-8").replace(_NO_DIGEST, digest, 1), "utf-8")


def _options(hint: str) -> dict[str, str]:
    """One request after the other, each as fast as possible."""
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}


class Runner:
    """Images -> logits with OpenVINO on the CPU.

    Attributes:
        description: what the file says of itself.

    Raises:
        UserError: what is at `path` cannot be loaded, is no export of this package, or its weights
            are those of another one.
    """

    def __init__(self, path: Path):
        core = import_openvino().Core()
        try:
            model = core.read_model(str(path))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{path}: cannot be loaded by OpenVINO ({reason})") from error
        noted = _runtime_info(model)
        self.description = description.of_metadata(
            path, {description.KEY: noted.get("description", "")}
        )
        if noted.get("weights_sha256") != sha256(path.with_suffix(WEIGHTS)):
            raise UserError(
                f"{path.with_suffix(WEIGHTS)} holds other weights than those that {path.name} was "
                "written with; copy both files of an export, or export again"
            )
        hint = noted.get("inference_precision", "f32")
        try:
            self._compiled = core.compile_model(model, "CPU", _options(hint))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise UserError(f"{path}: cannot be run by OpenVINO ({reason})") from error

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self._compiled({"images": images.astype(np.uint8)})["logits"]


def _runtime_info(model: Any) -> dict[str, str]:
    if not model.has_rt_info([_SECTION]):
        return {}
    names = ("description", "inference_precision", "weights_sha256")
    kept = (name for name in names if model.has_rt_info([_SECTION, name]))
    return {name: model.get_rt_info([_SECTION, name]).astype(str) for name in kept}


def import_openvino() -> Any:
    """OpenVINO, which then sends nobody a note of its use.

    It does so when it is imported, unless the package `openvino_telemetry` is missing.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return require("openvino", "openvino", "OpenVINO")
