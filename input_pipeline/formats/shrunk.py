"""Images that a cache has decoded: a few numbers, then the pixels, of a part of the image's size.

Nothing but numbers is in them, so that reading them runs nothing. The numbers take whole rows of
pixels, so that a window of the pixels is cut out of the file without a copy of the rest.
"""

import struct

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.formats import data

START = b"\x89keras-resnet\r\n\x1a"
# Height and width of the image as it is stored, of the pixels, ratio, orientation.
_NUMBERS = struct.Struct("<6i")
_HEADER = len(START) + _NUMBERS.size


def write(pixels: np.ndarray, whole: np.ndarray, ratio: int, orientation: int) -> bytes:
    """The bytes of an image.

    Args:
        pixels: uint8[h, w, 3], as they are stored, not turned.
        whole: height and width of the image that was decoded at 1 / `ratio` of them.
        ratio: 2, 4 or 8.
        orientation: EXIF's, 1 to 8.
    """
    height, width = pixels.shape[:2]
    numbers = _NUMBERS.pack(*map(int, whole), height, width, ratio, orientation)
    header = (START + numbers).ljust(-(-_HEADER // (3 * width)) * 3 * width, b"\0")
    return header + pixels.tobytes()


def is_shrunk(encoded: tf.Tensor) -> tf.Tensor:
    """bool: whether the scalar string `encoded` is what `write` gave."""
    return tf.strings.substr(encoded, 0, len(START)) == START


def read(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """What `write` was given: whole, ratio, orientation, rows of pixels, and the first of these.

    Returns:
        int32[2]; int32; int32; uint8[rows + h, w, 3]; int32, the number of rows that hold no
        pixels.
    """
    whole, size, others = tf.unstack(
        tf.reshape(data.numbers(encoded, len(START), 6, 4), [3, 2]), num=3
    )
    width = size[1]
    rows = (_HEADER + 3 * width - 1) // (3 * width)
    pixels = tf.reshape(tf.io.decode_raw(encoded, tf.uint8), tf.stack([rows + size[0], width, 3]))
    return whole, others[0], others[1], pixels, rows
