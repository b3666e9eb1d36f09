"""Naming the image that made a graph fail. TensorFlow's own message does not say which it was."""

import itertools
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from input_pipeline.decoding import decode_image
from input_pipeline.errors import DataError
from input_pipeline.sources.base import Source

# How the files of a format start, and how complete ones end (None: they have no end mark).
_FORMATS = {
    "JPEG": (b"\xff\xd8\xff", b"\xff\xd9"),
    "PNG": (b"\x89PNG", b"IEND\xaeB`\x82"),
    "GIF": (b"GIF8", b"\x3b"),
    "BMP": (b"BM", None),
}
_READ_AHEAD = 256


def find_broken_image(source: Source) -> DataError | None:
    """The error for the first example that cannot be read or decoded, None if all can.

    Reads and decodes the whole source, several images at a time; meant for the moment after a
    graph has failed.
    """
    records = source.records()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while group := list(itertools.islice(records, _READ_AHEAD)):
            for problem in pool.map(lambda record: _problem(*record), group):
                if problem:
                    return DataError(problem)
    return None


def _problem(name: str, read: Callable[[], bytes]) -> str | None:
    try:
        encoded = read()
    except OSError as error:
        return f"{name} cannot be read: {error.strerror or error}."
    try:
        with tf.device("CPU:0"):
            decode_image(tf.constant(encoded))
    except tf.errors.OpError as error:
        return f"{name} {describe(encoded, error.message)}"
    return None


def describe(encoded: bytes, message: str) -> str:
    """What is wrong with an image file that TensorFlow refused with `message`."""
    if not encoded:
        return "is empty (0 bytes)."
    reason = re.sub(r"\{\{.*?\}\}|\[Op:.*|\n.*", "", message).strip(" .")
    for name, (start, end) in _FORMATS.items():
        if encoded.startswith(start):
            if end and not encoded.rstrip(b"\0\r\n").endswith(end):
                return (
                    f"is a truncated {name}: its {len(encoded):,} bytes stop before the end of the "
                    "image. Replace or remove it."
                )
            return f"is a damaged {name} ({len(encoded):,} bytes): {reason}. Replace or remove it."
    return (
        f"is no image that can be read (JPEG, PNG, GIF, BMP): its {len(encoded):,} bytes start "
        f"with {encoded[:16]!r}. Replace or remove it."
    )
