"""ONNX files in 8 bits: ONNX Runtime's static quantization."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.export.extras import require


def quantize(model: Any, images: np.ndarray) -> Any:
    """A ModelProto that computes in 8 bits.

    Kernels are int8, with a scale for each channel, activations uint8 with a zero point, between
    pairs of QuantizeLinear and DequantizeLinear that ONNX Runtime fuses into its integer kernels.
    Ranges are the extremes over all images.

    Args:
        model: a ModelProto that takes `images`, float32 [batch, size, size, 3], RGB values 0..255.
        images: uint8 [n, size, size, 3].
    """
    onnx = require("onnx", "onnx", "ONNX")
    quantization = require("onnxruntime.quantization", "onnx", "ONNX")
    logging.getLogger().addFilter(_is_no_advice)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "int8.onnx")
            quantization.quantize_static(
                model,
                path,
                _reader(quantization, images),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
            )
            return onnx.load(path)
    finally:
        logging.getLogger().removeFilter(_is_no_advice)


def _reader(quantization: Any, images: np.ndarray) -> Any:
    """The images one by one, as ONNX Runtime asks for them."""

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self._feeds: Iterator[dict] = (
                {"images": image[None].astype(np.float32)} for image in images
            )

        def get_next(self):
            return next(self._feeds, None)

    return Reader()


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Whether a message is another one than the advice to prepare the model, which folding did."""
    return "pre-processing" not in record.getMessage()
