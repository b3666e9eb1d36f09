"""What `keras_resnet` offers by its own name."""

import keras_resnet.architectures.variants as _variants
from keras_resnet import blocks, export, input_pipeline, layers, models, training, weights
from keras_resnet.architectures import ARCHITECTURES, get_architecture, list_models
from keras_resnet.architectures.variants import *  # noqa: F403
from keras_resnet.models import ResNet, create_model
from keras_resnet.models.costs import profile
from keras_resnet.models.features import feature_extractor, feature_pyramid

__all__ = [
    "ARCHITECTURES",
    "ResNet",
    "blocks",
    "create_model",
    "export",
    "feature_extractor",
    "feature_pyramid",
    "get_architecture",
    "input_pipeline",
    "layers",
    "list_models",
    "models",
    "profile",
    "training",
    "weights",
]
__all__ += _variants.__all__
