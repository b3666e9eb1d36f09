"""What the first bytes of an image file say: its format, and how EXIF turns it. Standard library.

EXIF is that of CIPA DC-008 (2.32), section 4.6.4: orientation is tag 0x0112 of the first directory.
"""

import dataclasses
import struct

import numpy as np

# Format -> how its files start, and the endings of names that it is known by.
_STARTS = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF8",
    "BMP": b"BM",
    "WebP": b"RIFF",
}
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WebP": (".webp",),
}
_ORIENTATION = 0x0112
_MOST_ENTRIES = 1000  # of a directory; a real one has some dozens


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        format: a key of SUFFIXES, or "".
        orientation: 1 to 8 as EXIF has it; 1, upright, where nothing is said.
    """

    format: str
    orientation: int


def read(head: bytes) -> Header:
    """The header in the first bytes of a file; whatever they are, it does not raise."""
    found = next((name for name, start in _STARTS.items() if head.startswith(start)), "")
    exif = {"JPEG": _exif_of_jpeg, "PNG": _exif_of_png, "WebP": _exif_of_webp}.get(found)
    try:
        return Header(found, _orientation(exif(head)) if exif else 1)
    except (struct.error, IndexError):  # cut off or damaged: nothing is said
        return Header(found, 1)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """A square image [n, n] as EXIF says that it is to be shown."""
    turned = {
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.T,
        6: lambda x: x.T[:, ::-1],
        7: lambda x: x.T[::-1, ::-1],
        8: lambda x: x.T[::-1],
    }
    return turned[orientation](image) if orientation in turned else image


def _exif_of_jpeg(head: bytes) -> bytes:
    place = 2
    while place + 4 <= len(head) and head[place] == 0xFF:
        kind, length = head[place + 1], struct.unpack_from(">H", head, place + 2)[0]
        if kind == 0xE1 and head[place + 4 : place + 10] == b"Exif\0\0":
            return head[place + 10 : place + 2 + length]
        if kind == 0xDA or length < 2:  # the pixels begin
            break
        place += 2 + length
    return b""


def _exif_of_png(head: bytes) -> bytes:
    place = 8
    while place + 8 <= len(head):
        length, kind = struct.unpack_from(">I4s", head, place)
        if kind == b"eXIf":
            return head[place + 8 : place + 8 + length]
        place += 12 + length
    return b""


def _exif_of_webp(head: bytes) -> bytes:
    place = 12
    while place + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, place)
        if kind == b"EXIF":
            return head[place + 8 : place + 8 + length].removeprefix(b"Exif\0\0")
        place += 8 + length + length % 2
    return b""


def _orientation(exif: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    place = struct.unpack_from(f"{order}I", exif, 4)[0]
    count = struct.unpack_from(f"{order}H", exif, place)[0]
    for entry in range(min(count, _MOST_ENTRIES)):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, place + 2 + 12 * entry)
        if tag == _ORIENTATION:
            return value if 1 <= value <= 8 else 1
    return 1
