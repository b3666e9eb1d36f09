"""Decoding, evaluation preprocessing, normalization and augmentation, against PIL and numpy."""

import io
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import PREPROCESSING, encode, smooth_image
from PIL import Image

from keras_resnet.input_pipeline import (
    DataError,
    decoding,
    evaluation_image,
    normalize,
    resampling,
)
from keras_resnet.input_pipeline.augment import check_augment, crop, pipeline

PHOTO = smooth_image(90, 120)
GRAY = PHOTO.convert("L")
PALETTE = PHOTO.quantize(64)
GRAY_AS_RGB = np.asarray(GRAY.convert("RGB"))


def pil_decode(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (encode(PHOTO, "PNG"), PHOTO),
        (encode(GRAY, "PNG"), GRAY_AS_RGB),
        (encode(PALETTE, "PNG"), PALETTE.convert("RGB")),
        (encode(Image.merge("RGBA", (*PHOTO.split(), GRAY)), "PNG"), PHOTO),
        (encode(Image.merge("LA", (GRAY, GRAY)), "PNG"), GRAY_AS_RGB),
        (encode(np.asarray(GRAY).astype(np.uint16) * 256 + 255, "PNG"), GRAY_AS_RGB),
        (encode(PHOTO, "BMP"), PHOTO),
        (encode(GRAY, "BMP"), GRAY_AS_RGB),
        (encode(PALETTE, "BMP"), PALETTE.convert("RGB")),
        (encode(PALETTE, "GIF"), PALETTE.convert("RGB")),
        (
            encode(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]),
            PALETTE.convert("RGB"),
        ),
    ],
    ids=[
        "png", "png gray", "png palette", "png rgba", "png gray alpha", "png 16 bit",
        "bmp", "bmp gray", "bmp palette", "gif", "gif animated",
    ],
)  # fmt: skip
def test_lossless_formats_decode_to_the_very_pixels(encoded, expected):
    decoded = decoding.decode_image(tf.constant(encoded))
    np.testing.assert_array_equal(decoded, np.asarray(expected))


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (PHOTO, {}),
        (PHOTO, {"progressive": True}),
        (PHOTO, {"subsampling": 0}),
        (GRAY, {}),
        (PHOTO.convert("CMYK"), {}),
    ],
    ids=["baseline", "progressive", "4:4:4", "gray", "cmyk"],
)
def test_jpeg_decodes_as_in_pil(image, options):
    encoded = encode(image, "JPEG", quality=90, **options)
    decoded = decoding.decode_image(tf.constant(encoded)).numpy().astype(int)
    # libjpeg is bundled in both; builds may differ in the last bit. CMYK has its own conversion.
    assert np.abs(decoded - pil_decode(encoded)).mean() < (1.5 if image.mode == "CMYK" else 0.1)


def pil_evaluation(image, size, crop_ratio, interpolation, resize="round"):
    """Resizing and cropping as the libraries do, written out with PIL.

    torchvision's Resize of round(size / crop_ratio) and CenterCrop; timm's of floor(...); the
    `int` and `//` of transformers' image processors; keras.utils.load_img and timm's "squash".
    """
    side = round(size / crop_ratio) if resize == "round" else math.floor(size / crop_ratio)
    width, height = image.size
    short, long = sorted(image.size)
    long_side = int(side * long / short)
    resized = (side, long_side) if width <= height else (long_side, side)
    if resize == "plain":
        resized = (side, side)
    image = image.resize(resized, Image.Resampling[interpolation.upper()])
    spare = [edge - size for edge in image.size[::-1]]
    top, left = (n // 2 if resize == "shortest_edge" else round(n / 2) for n in spare)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width", "size", "crop_ratio"),
    [
        (375, 500, 224, 0.875),
        (500, 333, 224, 0.965),
        (97, 301, 64, 0.875),
        (8, 8, 32, 1.0),
        (40, 31, 33, 0.9),
        (13, 900, 16, 1.0),
    ],
)
def test_evaluation_image_equals_pil(interpolation, height, width, size, crop_ratio):
    image = smooth_image(height, width, seed=height)
    changes = {"image_size": size, "crop_ratio": crop_ratio, "interpolation": interpolation}
    encoded = tf.constant(encode(image))
    result = tf.function(evaluation_image)(encoded, {**PREPROCESSING, **changes})
    assert result.shape == (size, size, 3)
    assert result.dtype == tf.uint8
    expected = pil_evaluation(image, size, crop_ratio, interpolation)
    difference = np.abs(result.numpy().astype(int) - expected)
    assert difference.mean() < (0.3 if interpolation == "bilinear" else 0.001)
    assert difference.max() <= 1


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    ("resize", "interpolation", "size", "crop_ratio"),
    [
        ("floor", "bicubic", 224, 0.95),  # 235, not 236
        ("floor", "bilinear", 160, 0.91),  # 175, not 176
        ("shortest_edge", "bilinear", 224, 0.9),
        ("shortest_edge", "bicubic", 63, 0.875),
        ("plain", "nearest", 224, 1.0),
        ("plain", "bicubic", 64, 0.9),
        ("round", "nearest", 96, 0.875),
        ("round", "bilinear", 224, 224 / 232),
    ],
)
def test_the_rules_of_other_libraries(file_format, resize, interpolation, size, crop_ratio):
    evaluate = tf.function(evaluation_image)
    for height, width in ((187, 251), (250, 201), (97, 97)):
        encoded = encode(smooth_image(height, width, seed=width), file_format)
        changes = {"image_size": size, "crop_ratio": crop_ratio, "interpolation": interpolation}
        options = {**PREPROCESSING, **changes, "resize": resize}
        result = evaluate(tf.constant(encoded), options).numpy().astype(int)
        image = Image.fromarray(pil_decode(encoded))
        expected = pil_evaluation(image, size, crop_ratio, interpolation, resize)
        assert np.abs(result - expected).max() <= (0 if interpolation == "nearest" else 1)


def test_nearest_is_pils_for_every_size():
    for width, size in ((224, 32), (375, 224), (500, 299), (91, 13), (52, 160), (1187, 97)):
        image = np.arange(width, dtype=np.uint16).view(np.uint8).reshape(1, width, 2)
        image = np.pad(image, [(0, 0), (0, 0), (0, 1)]).repeat(3, axis=0)
        expected = Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST)
        changes = {"image_size": size, "interpolation": "nearest", "resize": "plain"}
        result = evaluation_image(encode(image), {**PREPROCESSING, **changes})
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("name", ["photo", "half", "enlarged", "squeezed", "tall"])
def test_bicubic_clips_between_its_passes_as_pil_does(name):
    stored = np.load(Path(__file__).parent / "references" / "pil_bicubic.npz")
    image, expected = stored[f"{name}_image"], stored[f"{name}_resized"].astype(int)
    height, width = expected.shape[:2]
    size = min(height, width)
    top_left = [(height - size) // 2, (width - size) // 2]

    def resized(interpolation):
        window = resampling.resize_window(
            tf.constant(image),
            resized=tf.constant([height, width]),
            top_left=tf.constant(top_left),
            size=size,
            interpolation=interpolation,
            whole=tf.constant(image.shape[:2]),
            origin=tf.constant([0, 0]),
        )
        rows, columns = (slice(corner, corner + size) for corner in top_left)
        return np.abs(window.numpy() - expected[rows, columns])

    assert resized("bicubic").max() <= 1
    assert resized("bicubic").mean() < 0.001
    # What version 1 computed is kept, and is something else at such edges.
    assert resized("bicubic_float").max() > 10


def test_an_image_of_the_right_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    unchanged = evaluation_image(encode(image), {**PREPROCESSING, "image_size": 32})
    np.testing.assert_array_equal(unchanged, image)
    cropped = evaluation_image(
        encode(image), {**PREPROCESSING, "image_size": 28, "crop_ratio": 0.875}
    )
    np.testing.assert_array_equal(cropped, image[2:30, 2:30])


@pytest.mark.parametrize("channel_order", ["rgb", "bgr"])
def test_normalize(channel_order):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    options = {**PREPROCESSING, "channel_order": channel_order}
    ordered = images[..., ::-1] if channel_order == "bgr" else images
    expected = (ordered / 255 - np.array(options["mean"])) / np.array(options["std"])
    result = normalize(images, options)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, expected, atol=2e-6)
    np.testing.assert_array_equal(normalize(images.astype(np.float32), options), result)
    rounded = normalize(images, options, dtype="bfloat16")
    np.testing.assert_array_equal(rounded, tf.cast(result, tf.bfloat16))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"image_sizes": 3},
            "preprocessing key 'image_sizes'; .* did you mean 'image_size'",
        ),
        ({"image_size": 0}, "image_size is 0; it must be a positive integer"),
        ({"crop_ratio": 1.2}, "crop_ratio is 1.2; it must be above 0, up to 1"),
        ({"interpolation": "bicubik"}, "interpolation 'bicubik'; .* did you mean 'bicubic'"),
        ({"channel_order": "rbg"}, "channel_order 'rbg'; .* did you mean 'rgb'"),
        ({"mean": [0.5]}, r"mean is \[0.5\]; it must hold one number per channel"),
        ({"std": [1, 1, 0]}, r"std is \[1, 1, 0\]; every value must be above 0"),
    ],
)
def test_invalid_preprocessing(changes, message):
    with pytest.raises(DataError, match=message):
        normalize(np.zeros((1, 2, 2, 3), np.uint8), {**PREPROCESSING, **changes})
    with pytest.raises(DataError, match=r"lacks std, channel_order"):
        normalize([0], dict(list(PREPROCESSING.items())[:4]))


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_crop_and_flip_equal_numpy(padding):
    rng = np.random.default_rng(padding)
    images = rng.integers(1, 256, (40, 6, 9, 3), np.uint8)
    places, flip = rng.random((40, 2), np.float32), rng.random((40, 1), np.float32)
    result = crop.crop_and_flip(tf.constant(images), padding=padding, crop=places, flip=flip)
    padded = np.pad(images, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    for image, place, mirrored, changed in zip(padded, places, flip, result.numpy(), strict=True):
        top, left = (place * (2 * padding + 1)).astype(int)
        expected = image[top : top + 6, left : left + 9]
        np.testing.assert_array_equal(changed, expected[:, ::-1] if mirrored < 0.5 else expected)


def test_crop_reaches_every_place_and_flips_half():
    images = tf.tile(tf.reshape(tf.cast(tf.range(1, 17), tf.uint8), [1, 4, 4, 1]), [4000, 1, 1, 3])
    options = {"crop_padding": 1, "flip": True}
    numbers = pipeline.random_numbers(
        options, seed=5, step=tf.constant(3), batch_size=4000, image_size=4
    )
    result = pipeline.augment_images(images, numbers, options).numpy()[:, 1:3, 1:3, 0]
    kinds, counts = np.unique(result.reshape(4000, 4), axis=0, return_counts=True)
    assert len(kinds) == 2 * 3 * 3
    # 222 expected of each, standard deviation 14.5.
    assert np.abs(counts - 4000 / 18).max() < 60


def reference_window(height, width, numbers):
    """torchvision's RandomResizedCrop.get_params with the given uniform numbers."""
    area = height * width
    for attempt in range(10):
        target = area * (0.08 + 0.92 * numbers[attempt])
        aspect = math.exp(math.log(3 / 4) + math.log(16 / 9) * numbers[10 + attempt])
        crop_width = round(math.sqrt(target * aspect))
        crop_height = round(math.sqrt(target / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(numbers[20] * (height - crop_height + 1))
            left = int(numbers[21] * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_height, crop_width = height, width
    if width / height < 3 / 4:
        crop_height = round(width / (3 / 4))
    elif width / height > 4 / 3:
        crop_width = round(height * (4 / 3))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


@pytest.mark.parametrize(("height", "width"), [(375, 500), (30, 31), (10, 901), (700, 3), (1, 1)])
def test_crop_window_equals_torchvision(height, width):
    window = tf.function(crop.crop_window)
    rng = np.random.default_rng(0)
    for _ in range(40):
        numbers = rng.random(22, np.float32)
        result = [int(value) for value in window(height, width, tf.constant(numbers))]
        assert result == list(reference_window(height, width, numbers.astype(float)))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_random_resized_crop_resizes_the_window(file_format):
    encoded = encode(PHOTO, file_format)
    numbers = np.random.default_rng(1).random(22, np.float32)
    result = crop.random_resized_crop(tf.constant(encoded), tf.constant(numbers), 128)
    top, left, height, width = reference_window(90, 120, numbers.astype(float))
    # Enlarged, where PIL's bilinear filter is not antialiased either.
    box = (left, top, left + width, top + height)
    part = Image.fromarray(pil_decode(encoded)).crop(box)
    expected = np.asarray(part.resize((128, 128), Image.Resampling.BILINEAR)).astype(int)
    # A JPEG's crop lacks the neighbors that smooth its colors at the edge.
    assert np.abs(result.numpy().astype(int) - expected).mean() < (
        1.0 if file_format == "JPEG" else 0.5
    )


def test_streams_of_random_numbers_are_separate():
    def draw(options, step=4):
        numbers = pipeline.random_numbers(
            options, seed=1, step=tf.constant(step), batch_size=8, image_size=4
        )
        return {name: values.numpy() for name, values in numbers.items()}

    both = draw({"crop_padding": 4, "flip": True})
    np.testing.assert_array_equal(both["flip"], draw({"flip": True})["flip"])
    assert (both["flip"] != draw({"flip": True}, step=5)["flip"]).any()
    assert (both["flip"][:, 0] != both["crop_padding"][:, 0]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flipp": True}, "Unknown augmentation 'flipp'. Did you mean 'flip'"),
        ({"flip": 1}, "Augmentation flip is 1; it must be True or False"),
        ({"crop_padding": True}, "Augmentation crop_padding is True; it must be a number of pixel"),
        ({"crop_padding": -1}, "Augmentation crop_padding is -1; it must be a number of pixels, 0"),
    ],
)
def test_invalid_augmentation(options, message):
    with pytest.raises(DataError, match=message):
        check_augment(options)


def test_augmentations_that_are_off_draw_nothing():
    assert check_augment({"flip": False, "crop_padding": 0}) == {}
