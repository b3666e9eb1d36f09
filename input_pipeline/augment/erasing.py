"""Random erasing."""

import math

import tensorflow as tf

_AREA = (0.02, 1 / 3)
_ASPECT = (0.3, 1 / 0.3)
# ImageNet's, over 0..255: timm draws standard normal noise after normalization.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)


def random_erasing(image: tf.Tensor, numbers: tf.Tensor, probability: float) -> tf.Tensor:
    """Puts noise in place of a rectangle (Zhong et al. 2020, section 3.1; timm's mode "pixel").

    The rectangle has 2 % to 1/3 of the area and an aspect ratio of 0.3 to 1/0.3, its logarithm
    uniform, as in timm; the first of several draws that fits is taken. The noise is normal for each
    pixel and channel, with the mean and deviation of ImageNet, rounded and cut to 0..255.

    Args:
        image: uint8[h, w, 3], static shape.
        numbers: float32[2 n + 5] in [0, 1): whether, n areas and n aspects, one of each for a
            draw, row and column of its place, and two for the noise.
        probability: that an image is changed.
    """
    top, left, height, width, fits = erased_window(image.shape[0], image.shape[1], numbers)

    def erase():
        seed = tf.cast(numbers[-2:] * 2**24, tf.int32)
        noise = tf.random.stateless_normal([height, width, 3], seed, alg="philox")
        noise = tf.clip_by_value(noise * _STD + _MEAN, 0.0, 255.0)
        middle = image[top : top + height]
        rows = [middle[:, :left], tf.cast(noise + 0.5, tf.uint8), middle[:, left + width :]]
        return tf.concat([image[:top], tf.concat(rows, 1), image[top + height :]], 0)

    erased = tf.cond(fits & (numbers[0] < probability), erase, lambda: image)
    return tf.ensure_shape(erased, image.shape)


def erased_window(image_height: int, image_width: int, numbers: tf.Tensor) -> tuple:
    """(top, left, height, width, whether one of the draws fits) of the rectangle, in pixels."""
    draws = (numbers.shape[0] - 5) // 2
    share = _AREA[0] + (_AREA[1] - _AREA[0]) * numbers[1 : 1 + draws]
    low, high = (math.log(aspect) for aspect in _ASPECT)
    aspects = tf.exp(low + (high - low) * numbers[1 + draws : 1 + 2 * draws])
    areas = share * float(image_height * image_width)
    heights = tf.cast(tf.round(tf.sqrt(areas * aspects)), tf.int32)
    widths = tf.cast(tf.round(tf.sqrt(areas / aspects)), tf.int32)
    fits = (heights < image_height) & (widths < image_width)
    chosen = tf.argmax(fits)
    height, width = heights[chosen], widths[chosen]
    places = numbers[1 + 2 * draws : 3 + 2 * draws]
    spare = tf.stack([image_height - height, image_width - width])
    place = tf.minimum(tf.cast(places * tf.cast(spare + 1, tf.float32), tf.int32), spare)
    return place[0], place[1], height, width, tf.reduce_any(fits)
