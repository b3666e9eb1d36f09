"""Whether a record file is gzipped, told by its first bytes whatever its name is."""

import tensorflow as tf

GZIP = "GZIP"
_MAGIC = b"\x1f\x8b\x08"


def _table() -> list[int]:
    """CRC-32C (Castagnoli), which TFRecord files use, for each byte."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def compression(file: str) -> str:
    """GZIP or "", as `tf.data.TFRecordDataset` takes it.

    Raises:
        tf.errors.OpError: the file cannot be read.
    """
    with tf.io.gfile.GFile(file, "rb") as content:
        start = content.read(12)
    return GZIP if start.startswith(_MAGIC) and not _begins_with_length(start) else ""


def _begins_with_length(start: bytes) -> bool:
    """Whether 8 bytes are followed by their masked checksum, as the length of a record is.

    A record of 559,903 bytes has a length that looks like a gzip file.
    """
    table, checksum = _table(), 0xFFFFFFFF
    for byte in start[:8]:
        checksum = table[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    checksum ^= 0xFFFFFFFF
    masked = ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return start[8:12] == masked.to_bytes(4, "little")
