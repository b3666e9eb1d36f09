"""Single operations against PIL, as timm and torchvision call it; color jitter's hue too."""

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import smooth_image
from PIL import Image, ImageEnhance, ImageOps

from keras_resnet.input_pipeline.augment import operations

PHOTO = smooth_image(37, 50)
DARK = Image.fromarray((np.asarray(smooth_image(20, 23, seed=1)) // 5 + 30).astype(np.uint8))
NOISE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8))
FLAT = Image.new("RGB", (9, 7), (13, 200, 255))
TINY = Image.fromarray(np.random.default_rng(4).integers(0, 256, (2, 5, 3), np.uint8))
IMAGES = {"photo": PHOTO, "dark": DARK, "noise": NOISE, "flat": FLAT, "tiny": TINY}
FILL = (124, 116, 104)


def enhance(kind):
    return lambda image, factor: getattr(ImageEnhance, kind)(image).enhance(factor)


def solarize_add(image, add):
    # timm's solarize_add.
    return image.point(
        [min(255, value + add) if value < 128 else value for value in range(256)] * 3
    )


FACTORS = (0.0, 0.1, 0.55, 1.0, 1.37, 1.9, 2.5)
EXACT = [
    ("Brightness", enhance("Brightness"), FACTORS),
    ("Color", enhance("Color"), FACTORS),
    ("Contrast", enhance("Contrast"), FACTORS),
    ("Sharpness", enhance("Sharpness"), FACTORS),
    ("Posterize", lambda image, bits: ImageOps.posterize(image, bits), (1, 2, 3, 4, 5, 7, 8)),
    ("Posterize", lambda image, _: Image.new("RGB", image.size), (0,)),
    (
        "Solarize",
        lambda image, level: ImageOps.solarize(image, level),
        (0, 1, 110, 127.5, 255, 256),
    ),
    ("SolarizeAdd", solarize_add, (0, 1, 55, 110, 128)),
    ("Invert", lambda image, _: ImageOps.invert(image), (0,)),
    ("AutoContrast", lambda image, _: ImageOps.autocontrast(image), (0,)),
    ("Equalize", lambda image, _: ImageOps.equalize(image), (0,)),
    ("Identity", lambda image, _: image, (0,)),
]


run = tf.function(operations.apply_operation)


def ours(name, image, argument):
    result = run(
        tf.constant(np.asarray(image)),
        tf.constant(operations.NAMES.index(name)),
        tf.constant(argument, tf.float32),
        FILL,
    )
    assert result.dtype == tf.uint8
    return result.numpy()


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize(
    ("name", "reference", "arguments"), EXACT, ids=[f"{row[0]} {row[2][0]}" for row in EXACT]
)
def test_pixel_operations_equal_pil(name, reference, arguments, image):
    for argument in arguments:
        expected = np.asarray(reference(image, argument))
        np.testing.assert_array_equal(ours(name, image, argument), expected, f"{argument}")


def pil_affine(*matrix):
    return lambda image: image.transform(
        image.size, Image.AFFINE, matrix, resample=Image.BILINEAR, fillcolor=FILL
    )


GEOMETRIC = [
    (
        "ShearX",
        lambda image, factor: pil_affine(1, factor, 0, 0, 1, 0)(image),
        (0, 0.27, -0.3, 0.99),
    ),
    (
        "ShearY",
        lambda image, factor: pil_affine(1, 0, 0, factor, 1, 0)(image),
        (0, 0.27, -0.3, 0.99),
    ),
    ("TranslateX", lambda image, by: pil_affine(1, 0, by, 0, 1, 0)(image), (0, 3, -4, 7.3, -900)),
    ("TranslateY", lambda image, by: pil_affine(1, 0, 0, 0, 1, by)(image), (0, 3, -4, 7.3, -900)),
    (
        "Rotate",
        lambda image, angle: image.rotate(angle, resample=Image.BILINEAR, fillcolor=FILL),
        (0, 13, -30, 27.5, 90, -135, 180),
    ),
]


@pytest.mark.parametrize("image", [PHOTO, NOISE, TINY], ids=["photo", "noise", "tiny"])
@pytest.mark.parametrize(
    ("name", "reference", "arguments"), GEOMETRIC, ids=[row[0] for row in GEOMETRIC]
)
def test_geometry_equals_pil(name, reference, arguments, image):
    for argument in arguments:
        expected = np.asarray(reference(image, argument)).astype(int)
        difference = np.abs(ours(name, image, argument).astype(int) - expected)
        # The interpolation is in float32 here and in float64 in PIL, and both cut off.
        assert difference.max() <= 1
        if not (name == "Rotate" and argument == 90):
            assert (difference > 0).mean() < 0.03
