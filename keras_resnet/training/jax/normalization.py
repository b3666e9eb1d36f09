"""The images of a batch as the network takes them."""

from collections.abc import Callable
from typing import Any

import keras

from keras_resnet.layers import NormalizeImages


def normalization_of(model: keras.Model) -> Callable[[Any], Any]:
    """Returns the function from uint8 or float images to what `model` takes, in its own type."""
    told = model.preprocessing
    layer = NormalizeImages(told.mean, told.std, told.channel_order, "channels_last")
    return lambda images: layer(images).astype(model.compute_dtype)
