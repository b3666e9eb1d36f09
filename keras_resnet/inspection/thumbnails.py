"""Small pictures of image files, for contact sheets."""

import functools
from collections.abc import Sequence

import numpy as np

from keras_resnet.input_pipeline.places import refusal
from keras_resnet.inspection.measuring import decode_small
from keras_resnet.printing import to_bytes

SIDE = 112


def thumbnails(paths: Sequence[str], side: int = SIDE) -> np.ndarray:
    """uint8 [n, side, side, 3]: whole images on white; of what cannot be read a gray square."""
    import tensorflow as tf

    draw = _drawing(side)
    drawn = np.full((len(paths), side, side, 3), 160, np.uint8)
    with tf.device("CPU:0"):
        for place, path in enumerate(paths):
            if refusal(path):  # a pipe would be waited for
                continue
            try:
                drawn[place] = draw(to_bytes(path)).numpy()
            except tf.errors.OpError:
                continue
    return drawn


@functools.cache
def _drawing(side: int):
    """The graph that draws one file; made once."""
    import tensorflow as tf

    def draw(path):
        pixels, _ = decode_small(tf.io.read_file(path))
        height, width = tf.unstack(tf.shape(pixels)[:2])
        longest = tf.maximum(height, width)
        size = tf.maximum(tf.stack([height, width]) * side // longest, 1)
        small = tf.image.resize(pixels, size, "area")
        top, left = (side - size[0]) // 2, (side - size[1]) // 2
        # Padding is with zeros: what is drawn is the negative until the end.
        padded = tf.image.pad_to_bounding_box(255 - small, top, left, side, side)
        return tf.cast(tf.round(255 - padded), tf.uint8)

    return tf.function(draw, input_signature=[tf.TensorSpec([], tf.string)])
