"""The operations of policies by name: which to choose for each image, and running the chosen one.

What a policy draws from, and how strong, stands in `policies`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.augment import geometry, pixels

_GEOMETRIC: dict[str, Callable[..., tf.Tensor]] = {
    "ShearX": geometry.shear_x,
    "ShearY": geometry.shear_y,
    "TranslateX": geometry.translate_x,
    "TranslateY": geometry.translate_y,
    "Rotate": geometry.rotate,
}
_OPERATIONS: dict[str, Callable[..., tf.Tensor]] = {
    "Identity": pixels.identity,
    "AutoContrast": pixels.autocontrast,
    "Equalize": pixels.equalize,
    "Invert": pixels.invert,
    "Posterize": pixels.posterize,
    "Solarize": pixels.solarize,
    "SolarizeAdd": pixels.solarize_add,
    "Color": pixels.color,
    "Contrast": pixels.contrast,
    "Brightness": pixels.brightness,
    "Sharpness": pixels.sharpness,
    **_GEOMETRIC,
}
NAMES = tuple(_OPERATIONS)
_IDENTITY = NAMES.index("Identity")


def apply_operation(
    image: tf.Tensor, operation: tf.Tensor, argument: tf.Tensor, fill: tuple[int, int, int]
) -> tf.Tensor:
    """Runs the one operation at position `operation` of NAMES."""
    branches = []
    for name, function in _OPERATIONS.items():
        options = {"fill": fill} if name in _GEOMETRIC else {}
        branches.append(functools.partial(function, image, argument, **options))
    return tf.ensure_shape(tf.switch_case(operation, branches), image.shape)


def apply_row(
    image: tf.Tensor, operations: tf.Tensor, arguments: tf.Tensor, *, fill: tuple[int, int, int]
) -> tf.Tensor:
    """Applies an image's row of what was chosen, one operation after the other.

    Args:
        image: uint8[h, w, 3].
        operations: int32[layers], places in NAMES.
        arguments: float32[layers].
        fill: RGB color of what is moved in from outside.

    Returns:
        uint8[h, w, 3].
    """
    for layer in range(operations.shape[0]):
        image = apply_operation(image, operations[layer], arguments[layer], fill)
    return image


def _pick(uniform: tf.Tensor, count: int) -> tf.Tensor:
    # A float32 below 1 times a small count can round up to the count.
    return tf.minimum(tf.cast(uniform * count, tf.int32), count - 1)


def _signs(uniform: tf.Tensor) -> tf.Tensor:
    return tf.where(uniform < 0.5, -1.0, 1.0)


def _places(names: Sequence[str]) -> list[int]:
    return [NAMES.index(name) for name in names]


def choose_by_magnitude(
    rows: Mapping[str, tuple[float, float, bool, bool]],
    numbers: tf.Tensor,
    *,
    layers: int,
    probability: float,
    magnitude: float,
    magnitude_std: float,
    scales: Mapping[str, float],
    least: Mapping[str, float],
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws `layers` operations; all are as strong as a magnitude around a mean says.

    Args:
        rows: operation -> (base, slope, with random sign, whole): the argument is base ± slope ×
            magnitude, the change cut to a whole number if "whole".
        numbers: float32[n, 4 layers] in [0, 1): which, whether, sign and magnitude of each layer.
        probability: that a drawn operation is applied.
        magnitude, magnitude_std: mean and deviation of the normal distribution, cut to 0..10.
        scales: what the argument of an operation is multiplied with.
        least: the smallest argument of an operation.

    Returns:
        int32[n, layers] places in NAMES, float32[n, layers] arguments.
    """
    numbers = tf.reshape(numbers, [-1, layers, 4])
    drawn = _pick(numbers[..., 0], len(rows))
    applied = numbers[..., 1] < probability
    # The inverse of the normal distribution; the shift keeps it off 0, where it is infinite.
    noise = tf.math.ndtri(numbers[..., 3] * (1 - 2**-24) + 2.0**-25)
    magnitudes = tf.clip_by_value(magnitude + magnitude_std * noise, 0.0, 10.0)
    base, slope, signed, whole = (
        tf.gather(np.array(column, np.float32), drawn)
        for column in zip(*rows.values(), strict=True)
    )
    change = tf.abs(slope) * magnitudes
    change = tf.where(whole > 0, tf.floor(change), change) * tf.sign(slope)
    argument = base + change * tf.where(signed > 0, _signs(numbers[..., 2]), 1.0)
    lowest = np.array([least.get(name, -np.inf) for name in rows], np.float32)
    argument = tf.maximum(argument, tf.gather(lowest, drawn))
    argument *= tf.gather(np.array([scales.get(name, 1) for name in rows], np.float32), drawn)
    return tf.where(applied, tf.gather(_places(list(rows)), drawn), _IDENTITY), argument


def choose_one(
    rows: Mapping[str, tuple[float, Sequence[float], bool]], numbers: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws one operation and its strength, uniformly.

    Args:
        rows: operation -> (base, amounts, with random sign): the argument is base ± an amount.
        numbers: float32[n, 3] in [0, 1): which, which amount, sign.

    Returns:
        int32[n, 1] places in NAMES, float32[n, 1] arguments.
    """
    bases, amounts, signed = zip(*rows.values(), strict=True)
    drawn, step = _pick(numbers[:, 0], len(rows)), _pick(numbers[:, 1], len(amounts[0]))
    amount = tf.gather_nd(np.array(amounts, np.float32), tf.stack([drawn, step], 1))
    sign = tf.where(tf.gather(list(signed), drawn), _signs(numbers[:, 2]), 1.0)
    argument = tf.gather(list(bases), drawn) + amount * sign
    return tf.gather(_places(list(rows)), drawn)[:, None], argument[:, None]


def choose_pairs(
    pairs: Sequence[Sequence[tuple[str, float, float, float, bool]]], numbers: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws one of several pairs of operations, each applied with a probability.

    Args:
        pairs: twice (operation, probability, base, amount, with random sign): the argument is
            base ± amount.
        numbers: float32[n, 5] in [0, 1): which pair, whether (two), signs (two).

    Returns:
        int32[n, 2] places in NAMES, float32[n, 2] arguments.
    """
    rows = [row for pair in pairs for row in pair]
    probability, base, amount, signed = (
        np.array(column, np.float32).reshape(len(pairs), 2)
        for column in zip(*(row[1:] for row in rows), strict=True)
    )
    places = np.array(_places([row[0] for row in rows]), np.int32).reshape(len(pairs), 2)
    drawn = _pick(numbers[:, 0], len(pairs))
    applied = numbers[:, 1:3] < tf.gather(probability, drawn)
    signs = tf.where(tf.gather(signed, drawn) > 0, _signs(numbers[:, 3:5]), 1.0)
    argument = tf.gather(base, drawn) + tf.gather(amount, drawn) * signs
    return tf.where(applied, tf.gather(places, drawn), _IDENTITY), argument
