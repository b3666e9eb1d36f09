"""What `keras_resnet` offers by its own name."""

from keras_resnet.backend import require_backend

require_backend()

from keras_resnet import blocks, layers, training, weights  # noqa: E402
from keras_resnet.models import *  # noqa: E402, F403
from keras_resnet.models import __all__ as _models  # noqa: E402
from keras_resnet.models.costs import profile  # noqa: E402
from keras_resnet.models.features import feature_extractor, feature_pyramid  # noqa: E402

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
