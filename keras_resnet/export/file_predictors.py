"""Exports that are files, TFLite, ONNX and OpenVINO, as what classifies encoded images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export import description, signatures
from keras_resnet.export.formats import Run

# string tensor [n] -> `class_ids`, `probabilities`, [n, k] each, and `valid`, bool [n].
Answer = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def load(path: Path, top: int) -> tuple[Answer, description.Description]:
    """What classifies encoded images with an exported file, and what the file says of itself.

    Args:
        path: a file whose name ends with one of SUFFIXES.
        top: number of classes to answer with, at most all; of several labels an image it is all.

    Raises:
        UserError: there is no such file, it cannot be loaded, or does not say how its images are
            prepared.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
    run, said = _LOADERS[path.suffix](path)
    count = len(said.class_names) if said.is_multilabel else min(top, len(said.class_names))
    decode = tf.function(
        lambda encoded: signatures.decode_batch(encoded, said.preprocessing),
        input_signature=[tf.TensorSpec([None], tf.string)],
        autograph=False,
    )

    def answer(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels, valid = decode(encoded)
        logits = tf.constant(run(pixels.numpy().astype(np.float32)))
        all_of_them = tf.sigmoid(logits) if said.is_multilabel else tf.nn.softmax(logits)
        values, ids = tf.math.top_k(all_of_them, count)
        return {"class_ids": ids, "probabilities": values, "valid": valid}

    return answer, said


def _tflite(path: Path) -> tuple[Run, description.Description]:
    from keras_resnet.export.tflite import Runner

    return Runner(path), description.of_tflite(path)


def _onnx(path: Path) -> tuple[Run, description.Description]:
    from keras_resnet.export.onnx import Runner

    runner = Runner(path)
    return runner, description.of_metadata(path, runner.metadata)


def _openvino(path: Path) -> tuple[Run, description.Description]:
    from keras_resnet.export.openvino import Runner

    runner = Runner(path)
    return runner, runner.description


_LOADERS = {".tflite": _tflite, ".onnx": _onnx, ".xml": _openvino}
SUFFIXES = tuple(_LOADERS)
