"""ONNX files in 8 bits: ONNX Runtime's static quantization."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_resnet.export.extras import require


def quantize(path: Path, images: np.ndarray) -> None:
    """Turns a float32 .onnx file into one that computes in 8 bits.

    Kernels are int8, with a scale for each channel, activations uint8 with a zero point, between
    pairs of QuantizeLinear and DequantizeLinear that ONNX Runtime fuses into its integer kernels.
    Ranges are the extremes over all images.

    Args:
        path: takes `images`, float32 [batch, size, size, 3], RGB values 0..255.
        images: uint8 [n, size, size, 3].
    """
    quantization = require("onnxruntime.quantization", "onnx", "ONNX")
    logging.getLogger().addFilter(_drop_advice)
    try:
        quantization.quantize_static(
            str(path),
            str(path),
            _reader(quantization, images),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
        )
    finally:
        logging.getLogger().removeFilter(_drop_advice)


def _reader(quantization, images: np.ndarray):
    """The images one by one, as ONNX Runtime asks for them."""

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self._feeds: Iterator[dict] = (
                {"images": image[None].astype(np.float32)} for image in images
            )

        def get_next(self):
            return next(self._feeds, None)

    return Reader()


def _drop_advice(record: logging.LogRecord) -> bool:
    """Whether a message is none of the advice to run a pre-processing that folding has done."""
    return "pre-processing" not in record.getMessage()
