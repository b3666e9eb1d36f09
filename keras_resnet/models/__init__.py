"""Residual networks as Keras models: `create_model`, and a function for each variant."""

from keras_resnet.architectures import ARCHITECTURES, get_architecture, list_models, variants
from keras_resnet.architectures.variants import *  # noqa: F403
from keras_resnet.models.builder import create_model
from keras_resnet.models.resnet import ResNet

__all__ = ["ARCHITECTURES", "ResNet", "create_model", "get_architecture", "list_models"]
__all__ += variants.__all__
