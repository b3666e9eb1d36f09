"""Scaled decoding: another library's is PIL's `draft`, and what it replaces is whole decoding."""

import io

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import PREPROCESSING, encode, smooth_image
from PIL import Image, ImageOps

from keras_resnet.input_pipeline import (
    DataError,
    decoding,
    evaluation_image,
    open_source,
    train_batches,
)
from keras_resnet.input_pipeline.augment import crop

VALUES = {**PREPROCESSING, "image_size": 24, "crop_ratio": 0.9, "exif": "apply"}
AUTO = {**VALUES, "scaled_decoding": "auto"}
SIDE = round(24 / 0.9)
FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


def photo(height, width, orientation=1, mode="RGB", **options) -> bytes:
    """A JPEG with camera-like noise."""
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
    pixels = np.asarray(scene.resize((width, height), Image.BICUBIC)) + rng.normal(
        0, 6, (height, width, 3)
    )
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert(mode)
    tags = Image.Exif()
    tags[0x0112] = orientation
    return encode(image, "JPEG", quality=90, exif=tags, **options)


def ratio_of(encoded: bytes) -> int:
    short = min(Image.open(io.BytesIO(encoded)).size)
    return max(ratio for ratio in (1, 2, 4, 8) if ratio == 1 or short >= 2 * SIDE * ratio)


def of_pil(encoded: bytes, interpolation: str) -> np.ndarray:
    """What evaluation shows of a file, as PIL makes it: its draft, resized, the center cropped."""
    image = Image.open(io.BytesIO(encoded))
    size, ratio = np.array(image.size), ratio_of(encoded)
    image.draft(None, tuple(int(side) for side in size // ratio))
    assert ratio == 1 or image.size == tuple(-(-size // ratio))
    turned = image.getexif().get(0x0112, 1) >= 5
    image = ImageOps.exif_transpose(image).convert("RGB")
    size = size[::-1] if turned else size
    box = (0, 0, *(float(side) for side in size / ratio))  # as PIL's own `thumbnail`
    resized = SIDE * size // size.min()
    left, top = (int(np.round((side - 24) / 2)) for side in resized)
    image = image.resize(tuple(int(side) for side in resized), FILTERS[interpolation], box)
    return np.asarray(image.crop((left, top, left + 24, top + 24))).astype(int)


KINDS = {
    "a quarter": (301, 217, {}),
    "a half": (150, 207, {}),
    "an eighth": (433, 450, {}),
    "as it is": (107, 107, {}),
    "exactly a half": (108, 162, {}),
    "full colors": (301, 217, {"subsampling": 0}),
    "progressive": (301, 217, {"progressive": True}),
    "gray": (301, 217, {"mode": "L"}),
    "mirrored": (301, 217, {"orientation": 2}),
    "on its side": (301, 219, {"orientation": 6}),
    "upside down": (303, 450, {"orientation": 3}),
}


@pytest.mark.parametrize("interpolation", FILTERS)
def test_evaluation_is_that_of_pil_with_its_draft(interpolation):
    evaluate = tf.function(
        lambda file: evaluation_image(file, AUTO | {"interpolation": interpolation})
    )
    ratios = set()
    for name, (height, width, options) in KINDS.items():
        encoded = photo(height, width, **options)
        found = evaluate(tf.constant(encoded)).numpy().astype(int)
        difference = np.abs(found - of_pil(encoded, interpolation))
        assert difference.max() <= 1, name
        assert interpolation == "bilinear" or difference.mean() < 0.001, name
        ratios.add(ratio_of(encoded))
    assert ratios == {1, 2, 4, 8}


@pytest.mark.parametrize("resize", ["round", "plain"])
def test_what_it_changes_is_small(resize):
    for options in ({}, {"mode": "CMYK"}, {"mode": "L", "progressive": True}):
        encoded = photo(433, 610, **options)
        scaled = evaluation_image(encoded, {**AUTO, "resize": resize}).numpy().astype(int)
        whole = evaluation_image(encoded, {**VALUES, "resize": resize}).numpy()
        assert 0 < np.abs(scaled - whole).mean() < 1
        assert np.abs(scaled - whole).max() < 12
    small = photo(100, 300)
    np.testing.assert_array_equal(evaluation_image(small, AUTO), evaluation_image(small, VALUES))


def test_only_jpegs_are_scaled_and_only_by_the_short_side():
    image = smooth_image(433, 450)
    for kind in ("PNG", "BMP", "WEBP"):
        encoded = encode(image, kind)
        np.testing.assert_array_equal(
            evaluation_image(encoded, AUTO), evaluation_image(encoded, VALUES)
        )
    # A panorama is as high as its short side says.
    flat = photo(60, 1800)
    np.testing.assert_array_equal(evaluation_image(flat, AUTO), evaluation_image(flat, VALUES))


def test_the_ratio_is_the_largest_that_leaves_twice_the_sides():
    window = tf.constant([0, 0, 900, 900])
    ratios = [
        int(decoding.ratio_of_window(window, tf.constant(shrinks), "auto"))
        for shrinks in (0.5, 3.99, 4.0, 7.99, 8.0, 15.99, 16.0, 99.0)
    ]
    assert ratios == [1, 1, 2, 2, 4, 4, 8, 8]


def test_the_random_crop_is_the_same_part_to_within_half_a_pixel():
    generator = np.random.default_rng(0)
    for ratio in (1, 2, 4, 8):
        for _ in range(50):
            size = generator.integers(16 * ratio, 4000, 2)
            sides = [generator.integers(2 * ratio, side + 1) for side in size]
            corner = [
                generator.integers(0, side - own + 1) for side, own in zip(size, sides, strict=True)
            ]
            smaller = -(-size // ratio)
            scaled = decoding._scaled(
                tf.constant([*corner, *sides], tf.int32),
                tf.constant(ratio),
                tf.constant(smaller, tf.int32),
                0,
            ).numpy()
            begin, end = np.array(corner), np.add(corner, sides)
            assert (np.abs(scaled[:2] - begin / ratio) <= 0.5).all()
            assert (np.abs(scaled[:2] + scaled[2:] - end / ratio) <= 0.5).all()
            assert (scaled[:2] + scaled[2:] <= smaller).all()


@pytest.mark.parametrize("orientation", [1, 8])
def test_the_pictures_of_the_random_crop_are_nearly_the_same(orientation):
    encoded = photo(803, 1209, orientation)
    differences = []
    for seed in range(8):
        numbers = tf.constant(np.random.default_rng(seed).random(22, np.float32))
        options = {"size": 24, "upright": True}
        whole = crop.random_resized_crop(encoded, numbers, **options).numpy().astype(int)
        scaled = crop.random_resized_crop(encoded, numbers, **options, scaled_decoding="auto")
        differences.append(scaled.numpy() - whole)
    # Plain bilinear shows the noise of single pixels, which fewer of them smooth.
    assert 2 < np.abs(differences).mean() < 6
    assert np.abs(np.mean(differences, axis=(1, 2))).max() < 1


def test_training_takes_it_from_the_source(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(photo(301, 217))
    values = {}
    for value in ("auto", "never"):
        source = open_source(
            "image_folder", path=str(tmp_path), split="train", scaled_decoding=value
        )
        options = {"batch_size": 1, "seed": 0, "num_steps": 1, "image_size": 24}
        batch = next(iter(train_batches(source, augment={"flip": True}, **options)))
        values[value] = batch["image"].numpy().astype(int)
    assert 0 < np.abs(values["auto"] - values["never"]).mean() < 2
    with pytest.raises(DataError, match=r"scaled_decoding 'sometimes'\. Known: auto, never"):
        open_source("image_folder", path="", split="train", scaled_decoding="sometimes")


@pytest.mark.parametrize("changes", [{}, {"max_pixels": 50_000}])
def test_what_is_refused_is_refused_at_each_ratio(changes):
    for height, width in ((433, 450), (301, 217), (150, 450), (100, 550)):
        encoded = photo(height, width)
        broken = encoded if changes else encoded[: len(encoded) // 2]
        for values in (AUTO, VALUES):
            with pytest.raises(tf.errors.InvalidArgumentError):
                evaluation_image(broken, {**values, **changes})
