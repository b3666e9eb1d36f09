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
from keras_resnet import api  # noqa: E402
from keras_resnet.api import *  # noqa: E402, F403

__all__ = ["__version__"]
__all__ += api.__all__
