"""JPEG: the size that it claims, what decoding it costs, and windows of it."""

import tensorflow as tf

from keras_resnet.input_pipeline.formats import data, limits

START = b"\xff\xd8\xff"
_SCAN = b"\xff\xda"
# A JPEG of several scans (a progressive one has about ten) is held as coefficients until the last
# of them is read: 3 to 8 bytes for a pixel, and each scan walks over all of it.
_SEVERAL_SCANS = 4.0
_SCANS_FOR_EACH_TIME = 4.0


def size(encoded: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """int32 (height, width) that the header claims, checked (see `limits.check_size`)."""
    height, width, channels = tf.unstack(tf.image.extract_jpeg_shape(encoded))
    scans = tf.cast(data.count(encoded, _SCAN), tf.float32)
    several = tf.maximum(_SEVERAL_SCANS, scans / _SCANS_FOR_EACH_TIME)
    times = tf.where(scans > 1.0, several * tf.where(channels == 4, 2.0, 1.0), 1.0)
    with tf.control_dependencies([limits.check_size(height, width, max_pixels, times)]):
        return tf.identity(height), tf.identity(width)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """uint8[height, width, 3], all of it. The caller has checked the size that it claims."""
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def decode_window(encoded: tf.Tensor, window: tf.Tensor, ratio: int = 1) -> tf.Tensor:
    """Decodes a part of a JPEG; what lies beside it is skipped where the format allows.

    The accurate inverse DCT is as fast as TensorFlow's default (measured) and equal to what PIL
    decodes. Pixels at the edge of the window lack the neighbors that smooth their colors.

    Args:
        encoded: scalar string.
        window: int32[4], top, left, height and width in pixels, inside the image.
        ratio: 1, 2, 4 or 8: the image is decoded with sides of 1 / ratio, rounded up, and the
            window is one of that.

    Returns:
        uint8[height, width, 3].
    """
    return tf.image.decode_and_crop_jpeg(
        encoded, window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
    )
