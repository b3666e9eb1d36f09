"""RandAugment, AutoAugment and TrivialAugment: which operations, how strong, for each image.

A policy turns an image's random numbers into a few (operation, argument) pairs, for a whole chunk
of images at once; `apply_operation` then runs only the chosen operation on an image. Chances,
tables and ranges are those of timm (RandAugment) and torchvision (the others), quoted below.
"""

import functools

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.augment import geometry, pixels
from keras_resnet.input_pipeline.augment.settings import RandAugment, parse_policy

_GEOMETRIC = {
    "ShearX": geometry.shear_x,
    "ShearY": geometry.shear_y,
    "TranslateX": geometry.translate_x,
    "TranslateY": geometry.translate_y,
    "Rotate": geometry.rotate,
}
_OPERATIONS = {
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
_ENHANCEMENTS = ("Color", "Contrast", "Brightness", "Sharpness")

# timm fills with ImageNet's mean color; torchvision's default is black.
_MEAN_COLOR = (124, 116, 104)
_BLACK = (0, 0, 0)

# timm's rand_augment_transform: argument = base ± slope × magnitude, cut to a whole number where
# "whole". Translations are in fractions of the image's side.
_RAND_ROWS = {
    # name: (base, slope, with random sign, whole)
    "AutoContrast": (0, 0, False, False),
    "Equalize": (0, 0, False, False),
    "Invert": (0, 0, False, False),
    "Rotate": (0, 3.0, True, False),
    "Posterize": (0, 0.4, False, True),
    "Solarize": (0, 25.6, False, True),
    "SolarizeAdd": (0, 11.0, False, True),
    "Color": (0.1, 0.18, False, False),
    "Contrast": (0.1, 0.18, False, False),
    "Brightness": (0.1, 0.18, False, False),
    "Sharpness": (0.1, 0.18, False, False),
    "ShearX": (0, 0.03, True, False),
    "ShearY": (0, 0.03, True, False),
    "TranslateX": (0, 0.045, True, False),
    "TranslateY": (0, 0.045, True, False),
}
# What `inc1` replaces: a negative slope, or a random sign around "no change".
_INCREASING_ROWS = {
    "Posterize": (4, -0.4, False, True),
    "Solarize": (256, -25.6, False, True),
    **dict.fromkeys(_ENHANCEMENTS, (1.0, 0.09, True, False)),
}
_ENHANCE_LEAST = 0.1

# Cubuk et al. 2019 (AutoAugment), tables 9 (ImageNet) and 7 (CIFAR-10), as torchvision has them:
# 25 pairs of (operation, probability, magnitude 0..9).
_IMAGENET_POLICY = """
Posterize .4 8 Rotate .6 9; Solarize .6 5 AutoContrast .6 0; Equalize .8 0 Equalize .6 0
Posterize .6 7 Posterize .6 6; Equalize .4 0 Solarize .2 4; Equalize .4 0 Rotate .8 8
Solarize .6 3 Equalize .6 0; Posterize .8 5 Equalize 1 0; Rotate .2 3 Solarize .6 8
Equalize .6 0 Posterize .4 6; Rotate .8 8 Color .4 0; Rotate .4 9 Equalize .6 0
Equalize 0 0 Equalize .8 0; Invert .6 0 Equalize 1 0; Color .6 4 Contrast 1 8
Rotate .8 8 Color 1 2; Color .8 8 Solarize .8 7; Sharpness .4 7 Invert .6 0
ShearX .6 5 Equalize 1 0; Color .4 0 Equalize .6 0; Equalize .4 0 Solarize .2 4
Solarize .6 5 AutoContrast .6 0; Invert .6 0 Equalize 1 0; Color .6 4 Contrast 1 8
Equalize .8 0 Equalize .6 0
"""
_CIFAR10_POLICY = """
Invert .1 0 Contrast .2 6; Rotate .7 2 TranslateX .3 9; Sharpness .8 1 Sharpness .9 3
ShearY .5 8 TranslateY .7 9; AutoContrast .5 0 Equalize .9 0; ShearY .2 7 Posterize .3 7
Color .4 3 Brightness .6 7; Sharpness .3 9 Brightness .7 9; Equalize .6 0 Equalize .5 0
Contrast .6 7 Sharpness .6 5; Color .7 7 TranslateX .5 8; Equalize .3 0 AutoContrast .4 0
TranslateY .4 3 Sharpness .2 6; Brightness .9 6 Color .2 8; Solarize .5 2 Invert 0 0
Equalize .2 0 AutoContrast .6 0; Equalize .2 0 Equalize .6 0; Color .9 9 Equalize .6 0
AutoContrast .8 0 Solarize .2 8; Brightness .1 3 Color .7 0; Solarize .4 5 AutoContrast .9 0
TranslateY .9 9 TranslateY .7 9; AutoContrast .9 0 Solarize .8 3; Equalize .8 0 Invert .1 0
TranslateY .7 9 AutoContrast .9 0
"""


def random_count(policy: str) -> int:
    """How many uniform random numbers an image needs."""
    parsed = parse_policy(policy)
    if isinstance(parsed, RandAugment):
        return 4 * parsed.layers
    return 3 if parsed == "trivial" else 5


def choose(
    policy: str, numbers: tf.Tensor, image_shape: tuple[int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """What to do with each image: int32[n, layers] places in NAMES, and their float32 arguments.

    Args:
        policy: see `settings.parse_policy`.
        numbers: float32[n, random_count(policy)] in [0, 1).
        image_shape: height and width in pixels.
    """
    parsed = parse_policy(policy)
    if isinstance(parsed, RandAugment):
        return _choose_rand(parsed, numbers, image_shape)
    if parsed == "trivial":
        return _choose_trivial(numbers)
    table = {"auto-imagenet": _IMAGENET_POLICY, "auto-cifar10": _CIFAR10_POLICY}[parsed]
    return _choose_auto(table, numbers, image_shape)


def apply_choice(
    policy: str, image: tf.Tensor, operations: tf.Tensor, arguments: tf.Tensor
) -> tf.Tensor:
    """Applies one image's row of what `choose` gave; uint8[h, w, 3] in and out."""
    fill = _MEAN_COLOR if isinstance(parse_policy(policy), RandAugment) else _BLACK
    for layer in range(operations.shape[0]):
        image = apply_operation(image, operations[layer], arguments[layer], fill)
    return image


def apply_operation(
    image: tf.Tensor, operation: tf.Tensor, argument: tf.Tensor, fill: tuple[int, int, int]
) -> tf.Tensor:
    """Runs the one operation at position `operation` of NAMES."""
    branches = []
    for name, function in _OPERATIONS.items():
        options = {"fill": fill} if name in _GEOMETRIC else {}
        branches.append(functools.partial(function, image, argument, **options))
    return tf.ensure_shape(tf.switch_case(operation, branches), image.shape)


def _pick(uniform: tf.Tensor, count: int) -> tf.Tensor:
    # A float32 below 1 times a small count can round up to the count.
    return tf.minimum(tf.cast(uniform * count, tf.int32), count - 1)


def _signs(uniform: tf.Tensor) -> tf.Tensor:
    return tf.where(uniform < 0.5, -1.0, 1.0)


def _choose_rand(options: RandAugment, numbers: tf.Tensor, image_shape: tuple[int, int]):
    rows = {**_RAND_ROWS, **(_INCREASING_ROWS if options.increasing else {})}
    numbers = tf.reshape(numbers, [-1, options.layers, 4])
    drawn = _pick(numbers[..., 0], len(rows))
    applied = numbers[..., 1] < options.probability
    # The inverse of the normal distribution; the shift keeps it off 0, where it is infinite.
    noise = tf.math.ndtri(numbers[..., 3] * (1 - 2**-24) + 2.0**-25)
    magnitude = tf.clip_by_value(options.magnitude + options.magnitude_std * noise, 0.0, 10.0)
    base, slope, signed, whole = (
        tf.gather(np.array(column, np.float32), drawn)
        for column in zip(*rows.values(), strict=True)
    )
    change = tf.abs(slope) * magnitude
    change = tf.where(whole > 0, tf.floor(change), change) * tf.sign(slope)
    argument = base + change * tf.where(signed > 0, _signs(numbers[..., 2]), 1.0)
    enhances = np.array([name in _ENHANCEMENTS for name in rows])
    argument = tf.where(tf.gather(enhances, drawn), tf.maximum(argument, _ENHANCE_LEAST), argument)
    height, width = image_shape
    scales = np.array([{"TranslateX": width, "TranslateY": height}.get(name, 1) for name in rows])
    argument *= tf.gather(scales.astype(np.float32), drawn)
    operation = tf.gather([NAMES.index(name) for name in rows], drawn)
    return tf.where(applied, operation, _IDENTITY), argument


def _choose_trivial(numbers: tf.Tensor):
    """Müller and Hutter 2021, table 2 ("Wide"): one operation, its strength uniform in 31 steps."""
    steps = np.linspace(0, 1, 31)
    rows = {
        "Identity": (0 * steps, False),
        "ShearX": (0.99 * steps, True),
        "ShearY": (0.99 * steps, True),
        "TranslateX": (np.trunc(32 * steps), True),
        "TranslateY": (np.trunc(32 * steps), True),
        "Rotate": (135 * steps, True),
        **dict.fromkeys(_ENHANCEMENTS, (0.99 * steps, True)),
        "Posterize": (8 - np.round(np.arange(31) / 5), False),
        "Solarize": (255 - 255 * steps, False),
        "AutoContrast": (0 * steps, False),
        "Equalize": (0 * steps, False),
    }
    amounts = np.stack([values for values, _ in rows.values()]).astype(np.float32)
    drawn, step = _pick(numbers[:, 0], len(rows)), _pick(numbers[:, 1], len(steps))
    amount = tf.gather_nd(amounts, tf.stack([drawn, step], 1))
    signed = tf.gather([signed for _, signed in rows.values()], drawn)
    base = tf.gather([float(name in _ENHANCEMENTS) for name in rows], drawn)
    argument = base + amount * tf.where(signed, _signs(numbers[:, 2]), 1.0)
    operation = tf.gather([NAMES.index(name) for name in rows], drawn)
    return operation[:, None], argument[:, None]


def _choose_auto(table: str, numbers: tf.Tensor, image_shape: tuple[int, int]):
    """Cubuk et al. 2019: one of 25 pairs of operations, each applied with its own probability."""
    pairs = [pair.split() for pair in table.replace("\n", ";").split(";") if pair.strip()]
    columns = []
    for pair in pairs:
        for name, probability, magnitude in (pair[:3], pair[3:]):
            base, amount, signed = _auto_argument(name, int(magnitude), image_shape)
            columns.append((NAMES.index(name), float(probability), base, amount, signed))
    operation, probability, base, amount, signed = (
        np.array(column, np.float32).reshape(len(pairs), 2) for column in zip(*columns, strict=True)
    )
    drawn = _pick(numbers[:, 0], len(pairs))
    applied = numbers[:, 1:3] < tf.gather(probability, drawn)
    signs = tf.where(tf.gather(signed, drawn) > 0, _signs(numbers[:, 3:5]), 1.0)
    operation = tf.gather(operation.astype(np.int32), drawn)
    argument = tf.gather(base, drawn) + tf.gather(amount, drawn) * signs
    return tf.where(applied, operation, _IDENTITY), argument


def _auto_argument(name: str, magnitude: int, image_shape: tuple[int, int]):
    # torchvision's AutoAugment._augmentation_space in 10 steps: (base, amount, random sign).
    share = magnitude / 9
    height, width = image_shape
    return {
        "ShearX": (0, 0.3 * share, True),
        "ShearY": (0, 0.3 * share, True),
        "TranslateX": (0, int(150 / 331 * width * share), True),
        "TranslateY": (0, int(150 / 331 * height * share), True),
        "Rotate": (0, 30 * share, True),
        "Brightness": (1, 0.9 * share, True),
        "Color": (1, 0.9 * share, True),
        "Contrast": (1, 0.9 * share, True),
        "Sharpness": (1, 0.9 * share, True),
        "Posterize": (8 - round(4 * share), 0, False),
        "Solarize": (255 - 255 * share, 0, False),
    }.get(name, (0, 0, False))
