"""Trained networks leave here: SavedModels for TF Serving, TFLite, ONNX, and predictions.

    from keras_resnet.export import export_saved_model, load_predictor

Names are imported on first use: `verify-export` runs modules of this package in a process that
loads neither TensorFlow nor Keras into Python.
"""

import importlib

_EXPORTS = {
    "Predictor": "keras_resnet.export.predictor",
    "export_file": "keras_resnet.export.files",
    "export_saved_model": "keras_resnet.export.saved_model",
    "fold_batch_normalization": "keras_resnet.export.folding",
    "load_predictor": "keras_resnet.export.predictor",
    "verify_saved_model": "keras_resnet.export.verify",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
