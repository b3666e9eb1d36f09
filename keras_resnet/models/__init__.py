"""Residual networks as Keras models: `create_model`, and a function for each variant."""

from keras_resnet.architectures import ARCHITECTURES, get_architecture, list_models
from keras_resnet.models.builder import create_model
from keras_resnet.models.resnet import ResNet
from keras_resnet.models.variants import VARIANTS

globals().update(VARIANTS)

__all__ = [
    "ARCHITECTURES",
    "ResNet",
    "create_model",
    "get_architecture",
    "list_models",
    *VARIANTS,
]
