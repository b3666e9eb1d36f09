"""PNG: the size that it claims, what decoding it costs, and its pixels."""

import tensorflow as tf

from keras_resnet.input_pipeline.formats import data, limits

START = b"\x89PNG\r\n\x1a\n"
# Chunks that are packed, each of which the decoder unpacks to as much as 8 MB. It never shows them.
_PACKED = (b"zTXt", b"iTXt", b"iCCP")
_MOST_PACKED = 16


def claimed_size(encoded: tf.Tensor) -> tf.Tensor:
    """int32[2]: height and width in the header."""
    # Bytes 16 to 23 hold width and height, the most significant byte first.
    return data.swapped(data.numbers(encoded, 16, 2, 4, big_endian=True))


def decode(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """uint8[height, width, 3]."""
    height, width = tf.unstack(claimed_size(encoded))
    # Then come the bits of a value, the kind of color, and at last whether it is interlaced.
    bits, color, _, _, interlaced = tf.unstack(data.numbers(encoded, 24, 5, 1))
    channels = tf.gather([1, 1, 3, 1, 2, 1, 4, 1], color % 8)
    unpacked = tf.maximum(1.0, tf.cast(bits * channels, tf.float32) / 24.0)
    times = limits.WHOLE * unpacked * tf.where(interlaced > 0, 2.0, 1.0)
    packed = tf.add_n([data.count(encoded, name) for name in _PACKED])
    checks = [
        limits.check_size(height, width, max_pixels, times),
        limits.check_parts(packed <= _MOST_PACKED, "packed texts of a PNG"),
    ]
    with tf.control_dependencies(checks):
        encoded = tf.identity(encoded)
    return tf.io.decode_png(encoded, channels=3)
