"""Trained networks leave here: SavedModels for TF Serving, TFLite, ONNX, and predictions.

    from keras_resnet.export import export_saved_model, load_predictor

`formats` has the table of export formats. Names are imported on first use: `verify-export` runs
modules of this package in a process that loads neither TensorFlow nor Keras into Python.
"""

from typing import TYPE_CHECKING

from keras_resnet.lazy import lazy_names

if TYPE_CHECKING:
    from keras_resnet.export.files import export_file as export_file
    from keras_resnet.export.loading import load_predictor as load_predictor
    from keras_resnet.export.predictor import Predictor as Predictor
    from keras_resnet.export.saved_model import export_saved_model as export_saved_model
    from keras_resnet.export.verify import verify_saved_model as verify_saved_model
    from keras_resnet.models.folding import fold_batch_normalization as fold_batch_normalization
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "files": ["export_file"],
            "..models.folding": ["fold_batch_normalization"],
            "loading": ["load_predictor"],
            "predictor": ["Predictor"],
            "saved_model": ["export_saved_model"],
            "verify": ["verify_saved_model"],
        },
    )
