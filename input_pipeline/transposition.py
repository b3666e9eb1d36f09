"""Transposition of images, whose pixels are bytes.

TensorFlow offers each `tf.transpose` to oneDNN, and where the numbers are bytes it prints "oneDNN
supports DT_UINT8 only on platforms with AVX-512", also on platforms with AVX-512. It brings a cast
between bytes and floats behind or before the transposition, wherever the bytes are, so that the
order in which these are written does not help; an operation between the two does.
"""

import tensorflow as tf


def transpose_image(image: tf.Tensor) -> tf.Tensor:
    """uint8[h, w, c] to uint8[w, h, c]: the w columns as w blocks of a batch of h rows."""
    height, width, channels = tf.unstack(tf.shape(image))
    columns = tf.raw_ops.SpaceToBatchND(
        input=image, block_shape=tf.stack([width]), paddings=tf.zeros([1, 2], tf.int32)
    )
    return tf.ensure_shape(
        tf.reshape(columns, tf.stack([width, height, channels])),
        [image.shape[1], image.shape[0], image.shape[2]],
    )


def transposed_floats(matrix: tf.Tensor) -> tf.Tensor:
    """uint8[m, n] to float32[n, m]."""
    return tf.transpose(tf.round(tf.cast(matrix, tf.float32)))


def transposed_bytes(matrix: tf.Tensor) -> tf.Tensor:
    """float32[m, n] of 0 to 255 to uint8[n, m], rounded."""
    return tf.cast(tf.round(tf.transpose(matrix)), tf.uint8)
