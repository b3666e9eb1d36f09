"""Sizes of images from their first bytes, against PIL."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_resnet.input_pipeline.image_sizes import header_size, sample_sizes

FORMATS = {
    "jpeg": {"format": "JPEG"},
    "progressive": {"format": "JPEG", "progressive": True},
    "with a thumbnail": {"format": "JPEG", "exif": b"Exif\0\0" + b"\xff\xc0\0" * 2000},
    "png": {"format": "PNG"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "webp": {"format": "WEBP"},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "webp with exif": {"format": "WEBP", "exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"},
}


def _encode(height, width, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), "uint8")
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, **options)
    return written.getvalue()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(7, 300), (513, 5)])
def test_the_size_is_the_one_that_pil_reads(name, size):
    data = _encode(*size, **FORMATS[name])
    width, height = Image.open(io.BytesIO(data)).size
    assert header_size(data) == (height, width) == size


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\0", b"RIFF", b"text", b"BM1"]
)
def test_what_is_no_image_has_none(data):
    assert header_size(data) is None


@pytest.mark.parametrize("name", FORMATS)
def test_no_prefix_of_an_image_raises(name):
    data = _encode(9, 9, **FORMATS[name])
    assert {header_size(data[:end]) for end in range(len(data))} <= {None, (9, 9)}


def test_a_sample_is_spread_over_the_files(tmp_path):
    files = []
    for number in range(10):
        path = tmp_path / f"{number}.png"
        path.write_bytes(_encode(number + 1, 2, format="PNG") if number != 4 else b"broken")
        files.append(str(path))
    assert sample_sizes(files, count=5) == [(1, 2), (3, 2), (7, 2), (9, 2)]
    assert sample_sizes([str(tmp_path / "missing.png")]) == []
