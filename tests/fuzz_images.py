"""Damaged image files, and a process that decodes them; `test_input_fuzz.py` watches it.

    python tests/fuzz_images.py --first=0 --count=10000 [--real-sizes | --photos=FOLDER_OR_ZIP]

File number i is a function of i alone, so a failure can be looked at again with --first=i
--count=1. Each file goes through the three ways the pipeline decodes: whole, random crop and
evaluation. The last line printed is a JSON object with the counts.
"""

import argparse
import collections
import io
import json
import os
import resource
import sys
import time
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from input_helpers import PREPROCESSING, encode, smooth_image
from PIL import Image

from keras_resnet.input_pipeline import decoding, evaluation_image
from keras_resnet.input_pipeline.augment import crop
from keras_resnet.input_pipeline.corrupt_images import describe
from keras_resnet.input_pipeline.image_listing import is_image_name

SIZE = 16
SPECIAL = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 13_000, 65_500)


def originals(size: tuple[int, int] = (45, 61), drawn: list[Image.Image] | None = None):
    """Files of every kind, of these images or of drawn ones of this height and width."""
    photo, other = drawn or (smooth_image(*size, 1), smooth_image(*size, 2))
    gray, palette = photo.convert("L"), photo.quantize(40)
    animation = {"save_all": True, "append_images": [other.quantize(40)]}
    wide = (np.asarray(gray).astype(np.uint16) << 8) + 7
    return [
        encode(photo, "JPEG"),
        encode(photo, "JPEG", progressive=True),
        encode(gray, "JPEG"),
        encode(photo.convert("CMYK"), "JPEG"),
        encode(photo),
        encode(palette),
        encode(wide),
        encode(photo.convert("RGBA")),
        encode(palette, "GIF"),
        encode(palette, "GIF", **animation),
        encode(photo, "BMP"),
        encode(palette, "BMP"),
        encode(photo, "WEBP"),
        encode(photo.convert("RGBA"), "WEBP", lossless=True),
        encode(photo, "WEBP", save_all=True, append_images=[other]),
    ]


def flip_bits(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    for place in rng.integers(0, len(data), rng.integers(1, 40)):
        data[place] ^= 1 << rng.integers(0, 8)
    return data


def truncate(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    return data[: rng.integers(0, len(data))]


def claim_sizes(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    """Puts telling numbers where headers hold sizes: near the start, in either byte order."""
    for _ in range(rng.integers(1, 4)):
        width, order = int(rng.choice([1, 2, 4])), rng.choice(["big", "little"])
        value = int(rng.choice(SPECIAL)) % 256**width
        place = rng.integers(0, min(len(data) - 4, 200 if rng.random() < 0.5 else 40))
        data[place : place + width] = value.to_bytes(width, order)
    return data


def claim_jpeg_or_png_size(data: bytearray, rng: np.random.Generator, files: list[bytes]):
    """Any size in the very field of a JPEG's frame or a PNG's header."""
    if data.startswith(b"\x89PNG"):
        for place in (16, 20):
            value = int(rng.integers(0, 2**31)) >> int(rng.integers(0, 31))
            data[place : place + 4] = value.to_bytes(4, "big")
    for marker in (b"\xff\xc0", b"\xff\xc2"):
        if (place := data.find(marker)) > 0:
            data[place + 5 : place + 9] = rng.bytes(4)
    return data


def wrong_kind(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    """The start of one format on the rest of another, as a wrong extension would suggest it."""
    length = rng.integers(2, 16)
    return bytearray(files[rng.integers(len(files))][:length]) + data[length:]


def overwrite(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    start, length = rng.integers(0, len(data)), rng.integers(1, 200)
    data[start : start + length] = rng.bytes(length) if rng.random() < 0.5 else bytes(length)
    return data


def cut_or_repeat(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    start, length = rng.integers(0, len(data)), rng.integers(1, 100)
    part = data[start : start + length]
    return data[:start] + (part * 3 if rng.random() < 0.5 else b"") + data[start + length :]


MUTATIONS = (
    flip_bits, truncate, claim_sizes, claim_jpeg_or_png_size, wrong_kind, overwrite, cut_or_repeat,
)  # fmt: skip


def mutated(number: int, files: list[bytes]) -> bytes:
    """The damaged file `number`."""
    rng = np.random.default_rng(number)
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(rng.integers(1, 3)):
        if len(data) > 8:
            data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng, files)
    return bytes(data)


def photographs(folder: str, count: int) -> list[list[Image.Image]]:
    """Pairs of the photos in a folder or ZIP archive, `count` of them, evenly spread."""
    path = Path(folder)
    if path.is_dir():
        files = [
            file.read_bytes() for file in sorted(path.rglob("*.*")) if is_image_name(file.name)
        ]
    else:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if is_image_name(name))
            files = [archive.read(name) for name in names]
    chosen = files[:: max(1, len(files) // (2 * count))][: 2 * count]
    images = [Image.open(io.BytesIO(file)).convert("RGB") for file in chosen]
    return [[first, other.resize(first.size)] for first, other in batched(images, 2)]


def batched(items: list, size: int) -> list:
    return [items[i : i + size] for i in range(0, len(items) - size + 1, size)]


def decoders() -> dict:
    numbers = tf.constant(np.random.default_rng(0).random(22, np.float32))
    preprocessing = {**PREPROCESSING, "image_size": SIZE, "exif": "apply"}
    text = tf.TensorSpec([], tf.string)

    def compiled(function):
        return tf.function(function, input_signature=[text])

    def whole(file):  # as an image is looked at again that made a batch fail
        image = decoding.whole_image
        return decoding.decode_window(file, image, image)[0]

    return {
        "whole": compiled(whole),
        "crop": compiled(lambda file: crop.random_resized_crop(file, numbers, SIZE)),
        "evaluation": compiled(lambda file: evaluation_image(file, preprocessing)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--real-sizes", action="store_true", help="Images of 375 by 500 pixels.")
    parser.add_argument("--photos", help="Folder or ZIP archive of photos to damage.")
    options = parser.parse_args()
    ways = decoders()
    files = originals((375, 500) if options.real_sizes else (45, 61))
    if options.photos:
        files = [f for pair in photographs(options.photos, 10) for f in originals(drawn=pair)]
    for file in files[:12]:  # so that neither tracing nor threads count
        for decode in ways.values():
            decode(tf.constant(file))
    slowest = 0.0
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = collections.Counter()
    for number in range(options.first, options.first + options.count):
        print(number, flush=True)
        encoded = mutated(number, files)
        for way, decode in ways.items():
            started = time.process_time()
            try:
                image = decode(tf.constant(encoded))
            except tf.errors.InvalidArgumentError as error:  # the documented one
                message = describe(encoded, error)
                assert message.endswith("."), message
                assert "\n" not in message, message
                outcomes["refused"] += 1
                continue
            finally:
                slowest = max(slowest, time.process_time() - started)
            if way == "whole":
                assert (image.dtype, image.shape[2]) == (tf.uint8, 3)
                assert min(image.shape) > 0
            else:
                assert image.shape == (SIZE, SIZE, 3)
            outcomes["decoded"] += 1
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin
    print(json.dumps({**outcomes, "grown_mib": grown // 1024, "slowest_s": round(slowest, 2)}))


if __name__ == "__main__":
    sys.exit(main())
