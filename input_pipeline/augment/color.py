"""Color jitter."""

import functools
import itertools

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.augment import pixels

_OPERATIONS = (pixels.brightness, pixels.contrast, pixels.color, pixels.hue)


def color_jitter(image: tf.Tensor, numbers: tf.Tensor, strengths: tuple[float, ...]) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, in random order, as torchvision does.

    Factors are uniform in [max(0, 1 - strength), 1 + strength], the turn of the hue is uniform in
    [-strength, strength] of a circle. What has strength 0 is left out.

    Args:
        image: uint8[h, w, 3], static shape.
        numbers: float32[5] in [0, 1): four for the factors, one for the order.
        strengths: of brightness, contrast, saturation and hue.
    """
    active = [place for place, strength in enumerate(strengths) if strength]
    factors = []
    for place in active:
        strength = strengths[place]
        low, high = (-strength, strength) if place == 3 else (max(0, 1 - strength), 1 + strength)
        factors.append(low + (high - low) * numbers[place])
    orders = np.array(list(itertools.permutations(range(len(active)))), np.int32)
    drawn = tf.minimum(tf.cast(numbers[4] * len(orders), tf.int32), len(orders) - 1)
    order = tf.gather(orders, drawn)
    shape = image.shape
    for turn in range(len(active)):
        branches = [
            functools.partial(_OPERATIONS[place], image, factor)
            for place, factor in zip(active, factors, strict=True)
        ]
        image = tf.ensure_shape(tf.switch_case(order[turn], branches), shape)
    return image
