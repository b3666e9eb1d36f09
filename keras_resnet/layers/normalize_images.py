"""The normalization of images as a layer, to be saved with a model."""

from collections.abc import Sequence
from typing import Any

import keras


@keras.saving.register_keras_serializable(package="keras_resnet")
class NormalizeImages(keras.layers.Layer):
    """(pixel / 255 - mean) / std, in float32.

    Input: RGB pixels of 0 to 255 of any numeric dtype, (batch, height, width, channels), or
    (batch, channels, height, width) for "channels_first". Output: float32 of the same shape, with
    the channels in the order of `channel_order`.

    Args:
        mean: of pixels scaled to 0..1, one number for each channel, in `channel_order`.
        std: the same for the standard deviation.
        channel_order: "rgb", or "bgr" to reverse the channels first.
        data_format: "channels_last" or "channels_first"; None is Keras' global setting.
        **kwargs: `name` and `dtype`, as for `keras.layers.Layer`.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        channel_order: str = "rgb",
        data_format: str | None = None,
        **kwargs: Any,
    ):
        # Uint8 would be cast to a mixed policy's 16 bits before the arithmetic.
        super().__init__(autocast=False, **kwargs)
        self.mean, self.std = tuple(mean), tuple(std)
        self.channel_order = channel_order
        self.data_format = data_format or keras.config.image_data_format()
        self.built = True

    def call(self, images):
        axis = -1 if self.data_format == "channels_last" else 1
        images = keras.ops.cast(images, "float32")
        if self.channel_order == "bgr":
            images = keras.ops.flip(images, axis)
        shape = [1] * len(images.shape)
        shape[axis] = len(self.mean)
        # One multiplication and one addition, as in training and in exports.
        scale = [1 / (255 * std) for std in self.std]
        offset = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        scale, offset = (
            keras.ops.reshape(keras.ops.convert_to_tensor(values, "float32"), shape)
            for values in (scale, offset)
        )
        return images * scale + offset

    def compute_output_spec(self, images):
        return keras.KerasTensor(images.shape, dtype="float32")

    def get_config(self):
        return {
            **super().get_config(),
            "mean": list(self.mean),
            "std": list(self.std),
            "channel_order": self.channel_order,
            "data_format": self.data_format,
        }
