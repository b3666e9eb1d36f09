"""What is refused before anything is decoded, and the words for it.

A limit counts pixels of a JPEG that is read in one go: of those no more than a window is decoded,
and a large one at half, a quarter or an eighth of its sides. What takes more memory or time counts
so many times. The factors hold one image to 0.6 GB and 2 s of a processor at the default limit;
`tests/hostile_images.py` measures them.
"""

import tensorflow as tf

from keras_resnet.preprocessing import MAX_PIXELS

TOO_LARGE = "claims more pixels than are decoded"
UNSUPPORTED = "unsupported kind of"
ABSURD = "is cut into an absurd number of parts"
# What resizing holds for each line, however short it is: a side has a million pixels at most, which
# is libpng's limit as well.
SIDE = 256.0
# What can only be decoded as a whole: 3 bytes for a pixel, and as many for what its decoder holds.
WHOLE = 5.0

# Pixels of a frame that may be larger than the canvas that it is for.
SMALL_FRAME = 2**22


def check_size(
    height: tf.Tensor,
    width: tf.Tensor,
    max_pixels: int = MAX_PIXELS,
    times: tf.Tensor | float = 1.0,
) -> tf.Operation | None:
    """Fails in the graph for too many pixels; to be a control dependency of the decoding.

    Args:
        height, width: int32, what the header claims.
        max_pixels: how many may be decoded, where each counts `times` times.

    Raises:
        tf.errors.InvalidArgumentError: in the graph; its message holds TOO_LARGE, the size, the
            factor and the limit.
    """
    # In float32: the product of two sides may exceed int32.
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    pixels = tf.reduce_prod(sides)
    lines = SIDE * tf.reduce_max(sides) / tf.maximum(pixels, 1.0)
    times = tf.maximum(tf.cast(times, tf.float32), lines)
    return tf.raw_ops.Assert(
        condition=(pixels * times <= float(max_pixels)) & (height > 0) & (width > 0),
        data=[TOO_LARGE, height, width, times, max_pixels],
    )


def check_parts(condition: tf.Tensor, what: str) -> tf.Operation | None:
    """Fails in the graph unless `condition`; the message holds ABSURD and `what` it was."""
    return tf.raw_ops.Assert(condition=condition, data=[ABSURD, what])


def check_frame(canvas: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Operation | None:
    """Fails in the graph for a large frame that does not fit on its canvas, int32[2]."""
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    allowed = tf.maximum(tf.reduce_prod(tf.cast(canvas, tf.float32)), SMALL_FRAME)
    return check_parts(pixels <= allowed, "a frame larger than the canvas")
