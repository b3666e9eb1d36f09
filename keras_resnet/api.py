"""What `keras_resnet` offers by its own name."""

from keras_resnet import blocks, layers, training, weights
from keras_resnet.models import *  # noqa: F403
from keras_resnet.models import __all__ as _models
from keras_resnet.models.costs import profile
from keras_resnet.models.features import feature_extractor, feature_pyramid

__all__ = [
    "blocks",
    "feature_extractor",
    "feature_pyramid",
    "layers",
    "profile",
    "training",
    "weights",
    *_models,
]
