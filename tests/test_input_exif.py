"""EXIF's orientation against PIL's `exif_transpose`, in each format and way of decoding."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import PREPROCESSING, encode, smooth_image, write_images
from PIL import Image, ImageOps

from keras_resnet.config import check, default_config, from_json, merge, preprocessing, to_json
from keras_resnet.input_pipeline import evaluation_batches, evaluation_image, open_source
from keras_resnet.input_pipeline.augment import crop
from keras_resnet.input_pipeline.formats import exif

PHOTO = smooth_image(61, 94)
FORMATS = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
}


def with_exif(file_format: str, orientation: int, image=PHOTO, **options) -> bytes:
    tags = Image.Exif()
    tags[0x010F] = "a maker, so that it is not the only entry"
    tags[0x0112] = orientation
    return encode(image, file_format, exif=tags, **FORMATS[file_format], **options)


def upright(encoded: bytes) -> Image.Image:
    """What PIL makes of it."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    return image.convert("RGB")


read = tf.function(exif.orientation, input_signature=[tf.TensorSpec([], tf.string)])


@pytest.mark.ci
@pytest.mark.parametrize("file_format", FORMATS)
def test_all_eight_are_those_of_pil_pixel_for_pixel(file_format):
    same_size = {**PREPROCESSING, "image_size": 61, "exif": "apply"}
    evaluate = tf.function(lambda file: evaluation_image(file, same_size))
    for orientation in range(1, 9):
        encoded = with_exif(file_format, orientation)
        assert read(encoded) == orientation
        image = upright(encoded)
        left, top = ((side - 61) // 2 for side in image.size)
        # 33 pixels are left over: half of them, rounded to even, stand before the square.
        left, top = (int(np.round((side - 61) / 2)) for side in image.size)
        expected = np.asarray(image.crop((left, top, left + 61, top + 61)))
        np.testing.assert_array_equal(evaluate(tf.constant(encoded)), expected)


@pytest.mark.ci
@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resized_and_cropped_is_what_the_upright_file_gives(file_format, interpolation):
    values = {**PREPROCESSING, "image_size": 40, "crop_ratio": 0.875}
    values |= {"interpolation": interpolation, "exif": "apply"}
    evaluate = tf.function(lambda file: evaluation_image(file, values))
    for orientation in range(1, 9):
        encoded = with_exif(file_format, orientation)
        expected = evaluate(tf.constant(encode(upright(encoded)))).numpy().astype(int)
        difference = np.abs(evaluate(tf.constant(encoded)).numpy() - expected)
        # Of a part of a JPEG places are summed up in another order (see test_input_images.py).
        assert difference.max() <= (file_format == "JPEG"), orientation
    ignoring = evaluation_image(encoded, {**values, "exif": "ignore"})
    np.testing.assert_array_equal(ignoring, evaluation_image(encoded, {**values, "exif": "ignore"}))
    assert np.abs(ignoring.numpy().astype(int) - expected).mean() > 10


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_random_crop_is_one_of_the_upright_image(file_format):
    numbers = tf.constant(np.random.default_rng(3).random(22, np.float32))
    for orientation in (3, 6, 8):
        encoded = with_exif(file_format, orientation)
        turned = crop.random_resized_crop(encoded, numbers, 48, upright=True).numpy()
        expected = crop.random_resized_crop(encode(upright(encoded)), numbers, 48).numpy()
        difference = np.abs(turned.astype(int) - expected)
        # At its edge a JPEG's window lacks the neighbors that smooth its colors.
        assert difference.max() <= (2 if file_format == "JPEG" else 0)


def tiff(entries: list[bytes], order: str = "<", count: int | None = None) -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    count = len(entries) if count is None else count
    return mark + struct.pack(order + "IH", 8, count) + b"".join(entries) + bytes(4)


def entry(tag: int, kind: int, count: int, value: int, order: str = "<") -> bytes:
    width = {1: "B3x", 3: "H2x", 4: "I"}.get(kind, "I")
    return struct.pack(f"{order}HHI{width}", tag, kind, count, value)


SIX = entry(0x0112, 3, 1, 6)
BLOCKS = {
    "little": tiff([SIX]),
    "big": tiff([entry(0x0112, 3, 1, 6, ">")], ">"),
    "long": tiff([entry(0x0112, 4, 1, 6)]),
    "byte": tiff([entry(0x0112, 1, 1, 6)]),
    "two values": tiff([entry(0x0112, 3, 2, 6)]),
    "unknown": tiff([entry(0x0112, 3, 1, 9)]),
    "zero": tiff([entry(0x0112, 3, 1, 0)]),
    "twice": tiff([SIX, entry(0x0112, 3, 1, 8)]),
    "after others": tiff([entry(0x0100, 4, 1, 99), entry(0x0101, 3, 1, 99), SIX]),
    "more entries than there are": tiff([SIX], count=40),
    "none": tiff([]),
    "beyond the end": b"II*\0" + struct.pack("<I", 5000) + bytes(20),
    "negative place": b"II*\0" + struct.pack("<I", 2**32 - 9) + bytes(20),
    "no header": b"XX*\0" + bytes(30),
    "cut short": tiff([SIX])[:12],
    "empty": b"",
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("file_format", FORMATS)
def test_blocks_by_hand_are_read_as_pil_reads_them(name, file_format):
    block = BLOCKS[name]
    if file_format == "JPEG":
        plain = encode(PHOTO, "JPEG", **FORMATS["JPEG"])
        head = b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block
        encoded = plain[:2] + head + plain[2:]
    elif file_format == "PNG":
        import zlib

        plain = encode(PHOTO)
        checksum = struct.pack(">I", zlib.crc32(b"eXIf" + block))
        encoded = plain[:33] + struct.pack(">I", len(block)) + b"eXIf" + block + checksum
        encoded += plain[33:]
    else:
        filled = block + bytes(len(block) % 2)
        plain = encode(PHOTO, "WEBP", exif=b"II*\0", **FORMATS["WEBP"])
        place = plain.index(b"EXIF")
        chunks = plain[12:place] + b"EXIF" + struct.pack("<I", len(block)) + filled
        encoded = b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
    try:
        image = Image.open(io.BytesIO(encoded))
        expected = image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, struct.error):  # what PIL fails on is left as it is
        expected = 1
    expected = expected if isinstance(expected, int) and 1 <= expected <= 8 else 1
    assert read(tf.constant(encoded)) == expected


def test_a_thumbnail_or_a_text_that_names_it_does_not_matter():
    plain = encode(PHOTO, "JPEG", **FORMATS["JPEG"])
    comment = b"\xff\xfe\0\x20" + b"Exif\0\0" + BLOCKS["little"][:24]
    assert read(plain[:2] + comment + plain[2:]) == 1
    assert read(b"GIF89a" + b"eXIf" + BLOCKS["little"]) == 1
    assert read(b"") == 1


def test_the_data_set_decides(tmp_path):
    write_images(tmp_path / "photos" / "train", {"a": 2, "b": 2}, size=9)
    for number, orientation in enumerate((1, 6)):
        file = tmp_path / "photos" / "train" / "a" / f"{number}.png"
        file.write_bytes(with_exif("PNG", orientation, smooth_image(9, 9, 5)))
    folder = {"path": str(tmp_path / "photos"), "split": "train"}
    assert open_source("image_folder", **folder).upright
    assert not open_source("image_folder", exif="ignore", **folder).upright
    assert not open_source("synthetic", name="digits", split="train").upright
    config = check(merge(default_config(), {"data.source": "image_folder"}, "here"))
    assert preprocessing(config).exif == "apply"
    config.data.source = "tfrecord"
    assert preprocessing(config).exif == "ignore"
    config.data.exif = "apply"
    assert preprocessing(config).exif == "apply"
    # A run of an earlier version goes on as it began.
    older = to_json(merge(default_config(), {"data.source": "image_folder"}, "here"))
    older = older.replace('"config_version": 3', '"config_version": 2')
    older = "\n".join(line for line in older.splitlines() if '"exif"' not in line)
    assert preprocessing(from_json(older, "config.json")).exif == "ignore"


@pytest.mark.ci
@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_batches_of_images_that_fit_are_turned_as_well(tmp_path, exif):
    """Which have a fast way of their own, without windows."""
    image = smooth_image(24, 24, 1)
    for number in range(8):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / f"{number}.jpg").write_bytes(with_exif("JPEG", number + 1, image))
    source = open_source("image_folder", path=str(tmp_path), split="train")
    values = {**PREPROCESSING, "image_size": 24, "exif": exif}
    [batch] = evaluation_batches(source, batch_size=8, preprocessing=values)
    for (name, read_file), pixels in zip(source.records(), batch["image"].numpy(), strict=True):
        encoded = read_file()
        plain = Image.open(io.BytesIO(encoded)).convert("RGB")
        expected = np.asarray(upright(encoded) if exif == "apply" else plain)
        np.testing.assert_array_equal(pixels, expected, err_msg=name)
