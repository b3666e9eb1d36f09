"""Whether a record file is gzipped, told by its first bytes whatever its name is."""

import tensorflow as tf

from keras_resnet.input_pipeline.crc32c import masked_crc32c

GZIP = "GZIP"
_MAGIC = b"\x1f\x8b\x08"


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
    return start[8:12] == masked_crc32c(start[:8])
