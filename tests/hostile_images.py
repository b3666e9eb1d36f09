"""Files made by hand to take a decoder's memory or time, each of at most 10 MB.

    python tests/hostile_images.py [--way=evaluation] [--only=NAME] [--photos=FOLDER]

`FILES` has them by name. As a program it decodes each in a process that is watched from outside
(`watched_process.py`) and prints the growth of memory, the processor time, and what came out.
"""

import functools
import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

FILES: dict[str, Callable[[], bytes]] = {}
MAX_BYTES = 10_000_000


def named(name: str, *arguments, **options):
    """Enters what the function makes of these arguments into FILES; for use in rows below it."""

    def enter(make: Callable[..., bytes]) -> Callable[..., bytes]:
        FILES[name] = functools.partial(make, *arguments, **options)
        return make

    return enter


# --- PNG


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _zeros(count: int) -> bytes:
    packer, block = zlib.compressobj(9), bytes(2**20)
    parts = [packer.compress(block) for _ in range(count // 2**20)]
    return b"".join([*parts, packer.compress(bytes(count % 2**20)), packer.flush()])


@named("png 1 x 1,000,000 gray", 1, 1_000_000)
@named("png 1,000,000 x 1 gray", 1_000_000, 1)
@named("png 60 x 1,000,000 gray", 60, 1_000_000)
@named("png 8,000 x 8,000 1 bit", 8000, 8000, bits=1)
@named("png 13,000 x 13,000 1 bit", 13_000, 13_000, bits=1)
@named("png 13,000 x 13,000 gray", 13_000, 13_000)
@named("png 13,000 x 13,000 rgb", 13_000, 13_000, color=2)
@named("png 8,000 x 8,000 rgb", 8000, 8000, color=2)
@named("png 8,000 x 8,000 rgb 16 bit", 8000, 8000, bits=16, color=2)
@named("png 5,700 x 5,700 rgba 16 bit", 5700, 5700, bits=16, color=6)
@named("png 8,000 x 8,000 palette", 8000, 8000, color=3)
@named("png 8,000 x 8,000 gray interlaced", 8000, 8000, interlaced=True)
@named("png 2,000 x 2,000 rgb interlaced", 2000, 2000, color=2, interlaced=True)
@named("png 2,147,483,647 x 1", 2**31 - 1, 1, rows=0)
@named("png 2 x 2,147,483,647", 2, 2**31 - 1, rows=0)
@named("png 1,000 texts of 8 MB", 8, 8, before=("zTXt", 1000, 7_900_000))
@named("png 1,000 international texts", 8, 8, before=("iTXt", 1000, 7_900_000))
@named("png a profile of 8 MB", 8, 8, before=("iCCP", 1, 7_900_000))
@named("png 400,000 texts", 8, 8, before=("tEXt", 400_000, 0))
@named("png 700,000 unknown chunks", 8, 8, before=("abCd", 700_000, 0))
@named("png 700,000 empty parts", 8, 8, empty_parts=700_000)
def png(height, width, bits=8, color=0, interlaced=False, rows=None, before=None, empty_parts=0):
    """Black, of any size; `before`: a kind of chunk, how many, and bytes that each holds packed."""
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[color]
    row_bytes = 1 + (width * bits * channels + 7) // 8
    size = row_bytes * (height if rows is None else rows)
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, int(interlaced))
    data = _zeros(size * 5 // 4 if interlaced else size)
    extra = b""
    if before:
        kind, count, packed = before
        text = {"zTXt": b"a\0\0", "iTXt": b"a\0\1\0\0\0", "iCCP": b"a\0\0", "tEXt": b"a\0"}
        extra = _chunk(kind.encode(), text.get(kind, b"") + (_zeros(packed) if packed else b""))
        extra *= count
    palette = _chunk(b"PLTE", bytes(768)) if color == 3 else b""
    parts = _chunk(b"IDAT") * empty_parts
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [_chunk(b"IHDR", head), extra, palette, parts, _chunk(b"IDAT", data), _chunk(b"IEND")]
    )


# --- BMP


@named("bmp 1 x 2,000,000 1 bit", 1, 2_000_000, 1)
@named("bmp 2,000,000 x 1 1 bit", 2_000_000, 1, 1)
@named("bmp 8,800 x 8,800 1 bit", 8800, 8800, 1)
@named("bmp 4,400 x 4,400 4 bit", 4400, 4400, 4)
@named("bmp 3,100 x 3,100 8 bit", 3100, 3100, 8)
@named("bmp 2,200 x 2,200 16 bit", 2200, 2200, 16)
@named("bmp 1,800 x 1,800 24 bit", 1800, 1800, 24)
@named("bmp 1,500 x 1,500 32 bit", 1500, 1500, 32)
@named("bmp upside down 1 x 70,000,000", -1, 70_000_000, 1)
@named("bmp 1 x 134,217,728 claimed", 1, 2**27, 32, data=100)
def bmp(height, width, bits, data=None):
    size = abs((width * bits + 31) // 32 * 4 * height) if data is None else data
    colors = struct.pack("<II", 0, 0xFFFFFF) if bits == 1 else bytes(4 * 2 ** min(bits, 8))
    colors = colors if bits <= 8 else b""
    start = 54 + len(colors)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, size, 1, 1, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + size, 0, 0, start) + head + colors + bytes(size)


# --- JPEG: the tables of a small one, another size, and the bits of blocks that are all the same.


def _small_jpeg(mode: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (16, 16), 0 if mode == "CMYK" else 128).convert(mode).save(
        buffer, "JPEG", **options
    )
    return buffer.getvalue()


def _claim(data: bytes, height: int, width: int) -> bytes:
    place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


def _repeated(bits: str, count: int) -> bytes:
    """`bits`, `count` times, as bytes; ones at the end."""
    whole = np.frombuffer((bits * 8).encode(), np.uint8) - ord("0")
    eight = np.packbits(whole).tobytes()
    rest = (bits * (count % 8) + "1" * 8)[
        : -(len(bits) * (count % 8)) % 8 + len(bits) * (count % 8)
    ]
    last = int(rest or "0", 2).to_bytes(len(rest) // 8, "big")
    return (eight * (count // 8) + last).replace(b"\xff", b"\xff\0")


_LUMA, _CHROMA = "001010", "0000"  # no difference, end of block: of the standard tables


@named("jpeg 200 megapixels of a phone", 12_240, 16_320)
@named("jpeg 13,000 x 13,000 4:4:4", 13_000, 13_000, subsampling=0)
@named("jpeg 13,000 x 13,000 gray", 13_000, 13_000, mode="L")
@named("jpeg 16,300 x 16,300 gray", 16_300, 16_300, mode="L")
@named("jpeg 7,000 x 7,000 4:4:4", 7000, 7000, subsampling=0)
@named("jpeg 6,300 x 6,300", 6300, 6300)
@named("jpeg 65,500 x 65,500", 65_500, 65_500, blocks=10)
@named("jpeg 1 x 65,500", 1, 65_500)
@named("jpeg 65,500 x 1", 65_500, 1)
@named("jpeg 3,000 x 65,500", 3000, 65_500)
@named("jpeg 65,500 x 3,000", 65_500, 3000)
@named("jpeg a restart for each block", 2000, 2000, mode="L", restarts=True)
@named("jpeg 13,000 x 13,000 cut short", 13_000, 13_000, blocks=5)
@named("jpeg 9,000 x 9,000 inverted cmyk", 9000, 9000, mode="CMYK")
@named("jpeg 2,000,000 comments", 64, 64, comments=2_000_000)
def jpeg(height, width, mode="RGB", subsampling=2, blocks=None, restarts=False, comments=0):
    data = _small_jpeg(mode, **({"subsampling": subsampling} if mode == "RGB" else {}))
    data = _claim(data, height, width)
    start = data.find(b"\xff\xda")
    start += 2 + struct.unpack(">H", data[start + 2 : start + 4])[0]
    unit, side = {"L": (_LUMA, 8), "CMYK": (_LUMA * 4, 8)}.get(
        mode, (_LUMA + 2 * _CHROMA, 8) if subsampling == 0 else (4 * _LUMA + 2 * _CHROMA, 16)
    )
    count = -(-height // side) * -(-width // side) if blocks is None else blocks
    if restarts:
        one = np.frombuffer(_repeated(unit, 1), np.uint8)
        marks = 0xD0 + np.arange(count, dtype=np.uint8)[:, None] % 8
        whole = np.concatenate(
            [np.tile(one, (count, 1)), np.full((count, 1), 0xFF, np.uint8), marks], axis=1
        )
        head = data[: data.find(b"\xff\xda")] + b"\xff\xdd\0\4\0\1"
        return head + data[len(head) - 6 : start] + whole.tobytes() + b"\xff\xd9"
    extra = b"\xff\xfe\0\2" * comments
    return data[:2] + extra + data[2:start] + _repeated(unit, count) + b"\xff\xd9"


def _segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


@named("jpeg progressive 1,000 scans", 2000, 2000, 1000)
@named("jpeg progressive 200 scans", 5000, 5000, 200)
@named("jpeg progressive 10 scans of 50 megapixels", 7000, 7000, 9)
@named("jpeg progressive 10 scans of 64 megapixels", 8000, 8000, 9)
@named("jpeg progressive 40 scans of 26 megapixels", 5100, 5100, 39)
@named("jpeg progressive 255 scans of 4 megapixels", 2048, 2048, 254)
@named("jpeg progressive 13,000 x 13,000", 13_000, 13_000, 0)
@named("jpeg progressive 8,100 x 8,100 4:4:4", 8100, 8100, 3, sampling=0x11)
@named("jpeg progressive 5,700 x 5,700 cmyk", 5700, 5700, 3, sampling=0x11, channels=4)
@named("jpeg progressive 16,000 x 16,000 gray", 16_000, 16_000, 0, channels=1)
@named("jpeg progressive tiny with 90,000 scans", 16, 16, 90_000)
@named("jpeg progressive 224 x 224 with 600,000 scans", 224, 224, 600_000)
@named("jpeg sequential, a scan for each channel", 8000, 8000, 0, frame=0xC0, interleaved=False)
def progressive_jpeg(
    height, width, extra_scans, channels=3, sampling=0x22, frame=0xC2, interleaved=True
):
    """Gray; then scans that say in few bytes that no block has more to it."""
    ids = range(1, channels + 1)
    blocks = {
        n: -(-height // (8 if n == 1 or sampling == 0x11 else 16))
        * -(-width // (8 if n == 1 or sampling == 0x11 else 16))
        for n in ids
    }
    parts = [
        b"\xff\xd8",
        _segment(0xDB, b"\0" + bytes([1] * 64)),
        _segment(
            frame,
            struct.pack(">BHHB", 8, height, width, channels)
            + b"".join(bytes([n, sampling if n == 1 else 0x11, 0]) for n in ids),
        ),
        # Tables of one code of one bit: no difference; and 16,384 blocks and more are at an end.
        _segment(0xC4, b"\0\1" + bytes(15) + b"\0"),
        _segment(0xC4, b"\x10\1" + bytes(15) + (b"\xe0" if frame == 0xC2 else b"\0")),
    ]
    last = 0 if frame == 0xC2 else 63
    bits_of_block = 1 if frame == 0xC2 else 2

    def scan(names, first, last, data, shifts=0):
        head = bytes([len(names), *(b for n in names for b in (n, 0)), first, last, shifts])
        return _segment(0xDA, head) + data

    if interleaved:
        parts.append(scan(ids, 0, last, bytes(sum(blocks.values()) * bits_of_block // 8 + 64)))
    else:
        parts += [scan([n], 0, last, bytes(blocks[n] * bits_of_block // 8 + 64)) for n in ids]
    runs = ("0" + "1" * 14) * -(-blocks[1] // 32_767)
    runs += "1" * (-len(runs) % 8)
    data = int(runs, 2).to_bytes(len(runs) // 8, "big").replace(b"\xff", b"\xff\0")
    parts.append(scan([1], 1, 63, data, 0x10) * extra_scans)  # each refines all 63 of every block
    return b"".join(parts) + b"\xff\xd9"


# --- GIF


def _sub_blocks(data: bytes, lengths: list[int]) -> bytes:
    """`data` cut into parts of these lengths, over and over."""
    if len(lengths) == 1 and len(data) % lengths[0] == 0:
        size = lengths[0]
        rows = np.frombuffer(data, np.uint8).reshape(-1, size)
        heads = np.full((len(rows), 1), size, np.uint8)
        return np.concatenate([heads, rows], axis=1).tobytes() + b"\0"
    parts, place, turn = [], 0, 0
    while place < len(data):
        part = data[place : place + lengths[turn % len(lengths)]]
        parts.append(bytes([len(part)]) + part)
        place, turn = place + len(part), turn + 1
    return b"".join(parts) + b"\0"


def _lzw(pixels: int) -> bytes:
    """Codes of `pixels` zeros in two colors: clear, then a single pixel, over and over."""
    # 3 bits each: clear (4) and 0, from the lowest bit up: eight codes in three bytes.
    codes = [4, 0] * (pixels + 4 - pixels % 4)
    bits = "".join(f"{code:03b}"[::-1] for code in codes[:8])
    unit = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, 24, 8))
    return unit * (pixels // 4) + bytes([5])


@named("gif one-byte parts", 1000, 1000, parts=[1], pixels=3_999_999)
@named("gif two-byte parts", 1000, 1000, parts=[2], pixels=3_999_998)
@named("gif parts of one and two bytes", 1000, 1000, parts=[1, 2], pixels=2_000_000)
@named("gif parts of 254", 1000, 1000, parts=[254], pixels=1_000_000)
@named("gif 16,000 x 16,000", 16_000, 16_000)
@named("gif 8,000 x 8,000", 8000, 8000)
@named("gif 1 x 65,535", 1, 65_535)
@named("gif 65,535 x 1", 65_535, 1)
@named("gif 65,535 x 65,535", 65_535, 65_535)
@named("gif 3,000,000 extensions", 8, 8, extensions=3_000_000)
@named(
    "gif an extension of one-byte parts", 8, 8, extension=b"\x21\xfe" + b"\1a" * 4_500_000 + b"\0"
)
def gif(height, width, parts=(255,), pixels=100, extensions=0, extension=b""):
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    extra = extension + b"\x21\xfe\0" * extensions
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2"
    return head + extra + frame + _sub_blocks(_lzw(pixels), list(parts)) + b"\x3b"


# --- WebP


@named("webp 16,383 x 16,383 lossless", 16_383, 16_383, lossless=True)
@named("webp 8,000 x 8,000 lossless", 8000, 8000, lossless=True)
@named("webp 8,000 x 8,000", 8000, 8000)
@named("webp 5,000 x 5,000", 5000, 5000)
@named("webp 1 x 16,383", 1, 16_383)
@named("webp 1,000,000 chunks", 8, 8, chunks=1_000_000)
def webp(height, width, lossless=False, chunks=0):
    buffer = io.BytesIO()
    options = {"lossless": True, "quality": 0} if lossless else {"quality": 1}
    Image.new("RGB", (width, height), (9, 9, 9)).save(buffer, "WEBP", method=0, **options)
    data = buffer.getvalue()
    if chunks:
        sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        extended = b"VP8X" + struct.pack("<IB3x", 10, 0) + sides
        body = b"WEBP" + extended + b"abcd\0\0\0\0" * chunks + data[12:]
        data = b"RIFF" + struct.pack("<I", len(body)) + body
    return data
