"""What `keras_resnet` offers by its own name."""

from keras_resnet.backend import require_backend

require_backend()

import keras_resnet.architectures.variants as _variants  # noqa: E402
from keras_resnet import blocks, export, input_pipeline, layers, models, training, weights  # noqa: E402
from keras_resnet.architectures import ARCHITECTURES, get_architecture, list_models  # noqa: E402
from keras_resnet.architectures.variants import *  # noqa: E402, F403
from keras_resnet.models import ResNet, create_model  # noqa: E402
from keras_resnet.models.costs import profile  # noqa: E402
from keras_resnet.models.features import feature_extractor, feature_pyramid  # noqa: E402

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
