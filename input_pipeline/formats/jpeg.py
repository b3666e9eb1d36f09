"""JPEG: the size that it claims, what decoding it costs, and windows of it."""

import tensorflow as tf

from keras_resnet.input_pipeline.formats import limits
from keras_resnet.input_pipeline.operations import not_inlined

START = b"\xff\xd8\xff"
# libjpeg leaves out of each block of 8 × 8 pixels what is too fine for so many times fewer.
RATIOS = (1, 2, 4, 8)
_SCAN = b"\xff\xda"
# A JPEG of several scans (a progressive one has about ten) is held as coefficients until the last
# of them is read: 3 to 8 bytes for a pixel, and each scan walks over all of it.
_SEVERAL_SCANS = 5.0
_SCANS_FOR_EACH_TIME = 4.0
# A scan has 10 bytes at least; so many, at 0.4 ns for a pixel of each (measured), take 2 s.
_BYTES_FOR_EACH_TIME = 160.0


def size(encoded: tf.Tensor, max_pixels: int) -> tuple[tf.Tensor, tf.Tensor]:
    """int32 (height, width) that the header claims, checked (see `limits.check_size`)."""
    height, width, channels = tf.unstack(tf.image.extract_jpeg_shape(encoded))
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    # Counting takes 3 % of the time of an ordinary photo: of what is too short for too many scans,
    # and not large, it is left out.
    most = tf.cast(tf.strings.length(encoded), tf.float32) / _BYTES_FOR_EACH_TIME
    times = tf.cond(
        pixels * tf.maximum(2 * _SEVERAL_SCANS, most) <= float(max_pixels),
        lambda: 1.0,
        lambda: _times(encoded, channels),
    )
    with tf.control_dependencies([limits.check_size(height, width, max_pixels, times)]):
        return tf.identity(height), tf.identity(width)


@not_inlined
def _times(encoded: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    """float32: how many times a pixel counts."""
    # Thumbnails and the second pictures of phones have scans, too, so it is read what kind they
    # are of.
    scans = tf.strings.split(encoded, _SCAN)[1:]
    many = tf.cast(tf.size(scans), tf.float32) / _SCANS_FOR_EACH_TIME
    # A scan begins with 2 bytes of length, the number of its channels, 2 bytes for each of them,
    # and the first and the last coefficient that it holds: of a plain JPEG 0 and 63.
    heads = tf.strings.join([tf.strings.substr(scans, 0, 14), bytes(14)])
    heads = tf.io.decode_raw(tf.strings.substr(heads, 0, 14), tf.uint8)
    inside = tf.cast(tf.reshape(heads, [-1, 14])[:, 2], tf.int32)
    last = tf.gather(heads, tf.clip_by_value(4 + 2 * inside, 0, 13), axis=1, batch_dims=1)
    several = tf.reduce_any((inside < channels) | (last != 63))
    for_all = tf.where(channels == 4, 2.0, 1.0) * _SEVERAL_SCANS
    return tf.where(several, tf.maximum(for_all, many), 1.0)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """uint8[height, width, 3], all of it. The caller has checked the size that it claims."""
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def decode_window(encoded: tf.Tensor, window: tf.Tensor, ratio: tf.Tensor) -> tf.Tensor:
    """Decodes a part of a JPEG; what lies beside it is skipped where the format allows.

    The accurate inverse DCT is as fast as TensorFlow's default (measured) and equal to what PIL
    decodes. Pixels at the edge of the window lack the neighbors that smooth their colors.

    Args:
        encoded: scalar string.
        window: int32[4], top, left, height and width in pixels, inside the image.
        ratio: int32, one of RATIOS: the image is decoded with sides of 1 / ratio, rounded up, and
            the window is one of that.

    Returns:
        uint8[height, width, 3].
    """

    def at(ratio):
        return tf.image.decode_and_crop_jpeg(
            encoded, window, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
        )

    place = tf.reduce_sum(tf.cast(ratio >= RATIOS[1:], tf.int32))
    return tf.switch_case(place, [lambda ratio=ratio: at(ratio) for ratio in RATIOS])
