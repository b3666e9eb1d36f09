"""Images made to take memory or time: bounded or refused, watched from outside the process."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hostile_images import FILES, MAX_BYTES, bmp, gif, jpeg, png, progressive_jpeg
from input_helpers import PREPROCESSING, encode, smooth_image
from PIL import Image
from watched_process import SIZE, Watched

from keras_resnet.input_pipeline import decoding, evaluation_image
from keras_resnet.input_pipeline.augment import crop
from keras_resnet.input_pipeline.corrupt_images import describe, problem

MEMORY_MIB = 600
SECONDS = 2.0


def refusal(encoded: bytes, **options) -> str:
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        decoding.decode_image(tf.constant(encoded), **options)
    return describe(encoded, caught.value)


def check(process: Watched, names) -> None:
    said = {}
    for name in names:
        encoded = FILES[name]()
        assert len(encoded) <= MAX_BYTES
        outcome = process.decode(encoded)
        said[name] = outcome
        assert not outcome.said.startswith(("killed", "crashed")), (name, outcome)
        assert outcome.grown_mib <= MEMORY_MIB, (name, outcome)
        assert outcome.seconds <= SECONDS, (name, outcome)
        assert outcome.is_refused or outcome.said in (
            f"({SIZE}, {SIZE}, 3)",
            f"(1, {SIZE}, {SIZE}, 3)",
        )
    assert len({outcome.is_refused for outcome in said.values()}) == 2


FEW = [
    "png 1 x 1,000,000 gray", "bmp 1 x 2,000,000 1 bit", "gif one-byte parts",
    "jpeg progressive 1,000 scans", "jpeg 200 megapixels of a phone",
]  # fmt: skip


@pytest.mark.ci
def test_the_named_ones():
    """5.4 GB, SIGABRT, 16 s, 8.7 s and a refusal before."""
    with Watched("evaluation") as process:
        check(process, FEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("evaluation", ()),
        ("evaluation", ("--interpolation=bicubic",)),
        ("plain", ()),
        ("plain", ("--interpolation=bicubic",)),
        ("crop", ()),
        ("train", ()),
        ("graph", ("--exif=apply",)),
    ],
)
def test_all_of_them(way, options):
    """One after the other in one process, so that what it keeps of each counts as well."""
    assert len(FILES) >= 60
    with Watched(way, options=options) as process:
        check(process, FILES)


@pytest.mark.slow
def test_a_batch_of_them_takes_no_more_memory_at_a_time():
    large = [FILES[name]() for name in ("png 60 x 1,000,000 gray", "jpeg 13,000 x 13,000 4:4:4")]
    with Watched("graph") as process:
        outcome = process.decode(*large * 4)
    assert outcome.said == f"(8, {SIZE}, {SIZE}, 3)"
    assert outcome.grown_mib <= 2 * MEMORY_MIB


@pytest.mark.ci
def test_what_is_refused_is_named():
    assert refusal(png(13_000, 13_000, bits=1)) == (
        "claims 13,000 × 13,000 pixels (height × width), and each counts 5 times in a file of its "
        "kind; up to 268,435,456 (data.max_pixels) are decoded. Raise data.max_pixels to "
        "845,000,000, or replace or remove it."
    )
    # What it says works: it is decoded then, or refused for another reason.
    assert "truncated PNG" in refusal(png(200, 300)[:-80], max_pixels=300_000)
    assert "Raise data.max_pixels to 300,000," in refusal(png(200, 300), max_pixels=299_999)
    assert decoding.decode_image(png(200, 300), max_pixels=300_000).shape == (200, 300, 3)
    assert "1 × 2,000,000 pixels (height × width), and each counts 256 times" in refusal(
        bmp(1, 2_000_000, 1)
    )
    several = refusal(progressive_jpeg(2000, 2000, 1000))
    assert several.startswith("claims 2,000 × 2,000 pixels (height × width), and each counts 250.2")
    assert refusal(gif(8, 8, extensions=5000)) == (
        "is cut into an absurd number of parts (blocks of a GIF), which takes too long to decode. "
        "Replace or remove it."
    )
    assert "(packed texts of a PNG)" in refusal(png(8, 8, before=("zTXt", 17, 10)))
    assert decoding.decode_image(png(8, 8, before=("zTXt", 16, 10))).shape == (8, 8, 3)
    assert problem(lambda: jpeg(12_240, 16_320), 100_000_000).startswith("claims 12,240 × 16,320")
    assert problem(lambda: jpeg(1224, 1632)) is None


def test_real_progressive_photos_and_those_with_thumbnails_are_decoded():
    photo = encode(smooth_image(300, 400), "JPEG", progressive=True)
    assert 5 <= photo.count(b"\xff\xda") <= 12
    assert decoding.decode_image(tf.constant(photo), max_pixels=600_000).shape == (300, 400, 3)
    assert "each counts 5 times" in refusal(photo, max_pixels=599_999)
    # A second JPEG behind the first or in its EXIF has scans, but not for the decoder.
    plain = encode(smooth_image(300, 400), "JPEG")
    two = plain + encode(smooth_image(30, 40), "JPEG")
    assert decoding.decode_image(tf.constant(two), max_pixels=120_000).shape == (300, 400, 3)


@pytest.mark.parametrize("parts", [[255], [254], [1], [2], [255, 17]])
def test_a_gif_is_cut_behind_its_first_frame_however_its_parts_are_cut(parts):
    image = gif(20, 20, parts=parts, pixels=400)
    longer = image[:-1] + b"\x2c" + bytes(4) + b"\x14\0\x14\0\0\2\1\4\0" + b"\x3b"
    expected = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    for encoded in (image, longer):
        np.testing.assert_array_equal(decoding.decode_image(tf.constant(encoded)), expected)


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes_of_bmp(bits):
    """A row of 37 pixels ends in the middle of a byte, and of four."""
    rng = np.random.default_rng(bits)
    image = Image.fromarray(rng.integers(0, 2**bits, (5, 37), np.uint8))
    if bits == 1:
        image = Image.fromarray(rng.integers(0, 2, (5, 37)).astype(bool))
    else:
        image.putpalette(rng.integers(0, 256, 3 * 2**bits, np.uint8).tobytes())
    encoded = encode(image, "BMP")
    decoded = decoding.decode_image(tf.constant(encoded))
    np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


def large_and_small(monkeypatch, encoded, values, limits):
    """The image as it is made now, and as it is made above limits that are set so low."""
    from keras_resnet.input_pipeline import preprocessing, resampling

    usual = evaluation_image(encoded, values).numpy().astype(int)
    for module, name, value in limits:
        modules = {"preprocessing": preprocessing, "resampling": resampling, "decoding": decoding}
        monkeypatch.setattr(modules[module], name, value)
    return usual, evaluation_image(encoded, values).numpy().astype(int)


@pytest.mark.parametrize("size", [(90, 150), (150, 90), (300, 70)])
@pytest.mark.parametrize("resize", ["round", "plain"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "bicubic_float", "nearest"])
def test_the_ways_of_large_images_change_nothing(monkeypatch, size, resize, interpolation):
    values = {**PREPROCESSING, "image_size": 40, "crop_ratio": 0.9}
    values |= {"interpolation": interpolation, "resize": resize}
    limits = [("preprocessing", "LARGE", 100), ("resampling", "LARGE", 100)]
    limits += [("resampling", "_STRIP", 1000), ("resampling", "_MOST_ROWS", 10)]
    encoded = encode(smooth_image(*size))
    usual, large = large_and_small(monkeypatch, encoded, values, limits)
    # Where passes are exact nothing differs; elsewhere what float32 rounds, by a gray level.
    assert np.abs(usual - large).max() <= (interpolation in ("bilinear", "bicubic_float"))
    assert (usual != large).mean() < 0.02


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_large_window_of_a_jpeg_is_decoded_smaller(monkeypatch, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    encoded = encode(smooth_image(800, 1208), "JPEG", quality=95, exif=tags)
    values = {**PREPROCESSING, "image_size": 40, "crop_ratio": 0.9, "exif": "apply"}
    limits = [("decoding", "LARGE_WINDOW", 10_000)]
    usual, large = large_and_small(monkeypatch, encoded, values, limits)
    assert 0 < np.abs(usual - large).mean() < 1.5
    # The largest ratio that leaves twice the pixels wanted; at least what makes it small enough.
    window = tf.constant([0, 0, 800, 800])

    def ratios(scaled_decoding="never"):
        shrinks = [tf.constant(800 / wanted) for wanted in (40, 60, 150, 500)]
        return [int(decoding.ratio_of_window(window, s, scaled_decoding)) for s in shrinks]

    assert ratios() == ratios("auto") == [8, 8, 8, 8]
    monkeypatch.setattr(decoding, "LARGE_WINDOW", 300_000)
    assert ratios() == ratios("auto") == [8, 4, 2, 2]
    monkeypatch.setattr(decoding, "LARGE_WINDOW", 40_000_000)
    assert (ratios(), ratios("auto")) == ([1, 1, 1, 1], [8, 4, 2, 1])
    numbers = tf.constant(np.random.default_rng(0).random(22, np.float32))
    monkeypatch.setattr(decoding, "LARGE_WINDOW", 40_000_000)
    whole = crop.random_resized_crop(encoded, numbers, 32).numpy().astype(int)
    monkeypatch.setattr(decoding, "LARGE_WINDOW", 10_000)
    part = crop.random_resized_crop(encoded, numbers, 32).numpy().astype(int)
    assert np.abs(whole - part).mean() < 20  # plain bilinear: of fewer pixels it is smoother


def test_claimed_pixels_are_those_of_the_header():
    photo = smooth_image(30, 50)
    palette = photo.quantize(16)
    files = [encode(photo, kind) for kind in ("JPEG", "PNG", "BMP", "WEBP")]
    files += [encode(palette, "GIF"), encode(photo, "WEBP", lossless=True)]
    files.append(encode(photo, "WEBP", save_all=True, append_images=[photo.rotate(180)]))
    for encoded in files:
        assert decoding.claimed_pixels(tf.constant(encoded)) == 1500
    assert decoding.claimed_pixels(tf.constant(b"no image at all")) == 0
