"""Residual networks as Keras models: `create_model`, and a function for each variant."""

import keras_resnet.architectures.variants as _variants
from keras_resnet.architectures import ARCHITECTURES, get_architecture, list_models
from keras_resnet.architectures.variants import *  # noqa: F403
from keras_resnet.models.builder import create_model
from keras_resnet.models.resnet import ResNet

__all__ = ["ARCHITECTURES", "ResNet", "create_model", "get_architecture", "list_models"]
__all__ += _variants.__all__
