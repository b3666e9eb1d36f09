"""Residual networks for Keras 3 and TensorFlow: models, blocks, training, export."""

from keras_resnet import installation

__version__ = installation.VERSION

# With files of another project among ours, any import below may fail with a name nobody knows.
if _damage := installation.find_damage():
    raise ImportError(_damage, name=__name__)

from keras_resnet import backend

backend.require_backend()
backend.prefer_onednn()

# Importing the package registers its layers and models with Keras: load_model() finds them.
import keras_resnet.architectures.variants as _variants
from keras_resnet import (
    blocks,
    explain,
    export,
    input_pipeline,
    layers,
    models,
    reports,
    training,
    weights,
)
from keras_resnet.architectures import ARCHITECTURES, get_architecture, list_models
from keras_resnet.architectures.variants import *
from keras_resnet.evaluation import calibrate, evaluate
from keras_resnet.explain.embedding import embed
from keras_resnet.images import decode_predictions, preprocess, preprocessing_layer
from keras_resnet.inspection import inspect_images
from keras_resnet.models import ResNet, create_model
from keras_resnet.models.costs import profile
from keras_resnet.models.features import feature_extractor, feature_pyramid
from keras_resnet.reports.of_run import report

__all__ = [
    "ARCHITECTURES",
    "ResNet",
    "__version__",
    "blocks",
    "calibrate",
    "create_model",
    "decode_predictions",
    "embed",
    "evaluate",
    "explain",
    "export",
    "feature_extractor",
    "feature_pyramid",
    "get_architecture",
    "input_pipeline",
    "inspect_images",
    "layers",
    "list_models",
    "models",
    "preprocess",
    "preprocessing_layer",
    "profile",
    "report",
    "reports",
    "training",
    "weights",
]
__all__ += _variants.__all__
