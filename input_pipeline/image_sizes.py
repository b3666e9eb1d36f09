"""How large images are, from the first bytes of their files. Loads TensorFlow for buckets only.

Nothing is decoded: a header is enough, and what it claims is no promise that the rest is whole.
"""

import struct
from collections.abc import Sequence

from keras_resnet.input_pipeline.places import read_bytes

# JPEGs hold thumbnails and color profiles before the size.
_HEADER_BYTES = 2**18
_JPEG_WITHOUT_SIZE = {0xC4, 0xC8, 0xCC}  # tables and an extension among the markers C0 to CF


def sample_sizes(files: Sequence[str], count: int = 200) -> list[tuple[int, int]]:
    """(height, width) of up to `count` images, spread evenly over `files`.

    Those whose size cannot be read are left out.
    """
    step = max(1, len(files) // count)
    sizes = (header_size(_first_bytes(file)) for file in files[::step][:count])
    return [size for size in sizes if size is not None]


def header_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) that an image file claims; None of what is no JPEG, PNG, GIF, BMP or WebP.

    A photo that EXIF says is to be turned has the size that it is stored with.

    Args:
        data: the file, or as much of its beginning as holds the header.
    """
    try:
        if data.startswith(b"\xff\xd8"):
            return _of_jpeg(data)
        if data.startswith(b"\x89PNG"):
            width, height = struct.unpack(">II", data[16:24])
        elif data.startswith(b"GIF8"):
            width, height = struct.unpack("<HH", data[6:10])
        elif data.startswith(b"BM"):
            width, height = struct.unpack("<ii", data[18:26])
            height = abs(height)  # negative: stored from the top down
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _of_webp(data)
        else:
            return None
    except (struct.error, IndexError):
        return None
    return height, width


def _of_jpeg(data: bytes) -> tuple[int, int] | None:
    """The size in the frame header (ITU T.81, B.2.2), past the segments before it."""
    place = 2
    while data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _JPEG_WITHOUT_SIZE:
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return height, width
        else:
            place += 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
    return None


def _of_webp(data: bytes) -> tuple[int, int] | None:
    """The size in the first chunk (RFC 9649, sections 2.5 to 2.7)."""
    kind, cut = data[12:16], len(data) < 30
    if kind == b"VP8X" and not cut:
        width = int.from_bytes(data[24:27], "little") + 1
        return int.from_bytes(data[27:30], "little") + 1, width
    if kind == b"VP8L":
        bits = struct.unpack("<I", data[21:25])[0]
        return ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 " and not cut:
        width, height = struct.unpack("<HH", data[26:30])
        return height & 0x3FFF, width & 0x3FFF
    return None


def _first_bytes(file: str) -> bytes:
    try:
        return read_bytes(file, _HEADER_BYTES)
    except OSError:
        return b""
