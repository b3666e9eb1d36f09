"""Corrupt images: naming the one that made a graph fail, and keeping count of skipped ones.

TensorFlow's own messages do not say which image it was.
"""

import itertools
import logging
import math
import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from keras_resnet.input_pipeline.decoding import decode_window, whole_image
from keras_resnet.input_pipeline.errors import DataError, reason
from keras_resnet.input_pipeline.formats.limits import ABSURD, MAX_PIXELS, TOO_LARGE, UNSUPPORTED
from keras_resnet.printing import printable

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.sources.base import Source


def _ends_with(mark: bytes) -> Callable[[bytes], bool]:
    return lambda encoded: encoded.rstrip(b"\0\r\n").endswith(mark)


# How the files of a format start, and whether one is complete: by its end mark, or by the size
# that its header states.
_FORMATS = {
    "JPEG": (b"\xff\xd8\xff", _ends_with(b"\xff\xd9")),
    "PNG": (b"\x89PNG", _ends_with(b"IEND\xaeB`\x82")),
    "GIF": (b"GIF8", _ends_with(b"\x3b")),
    "BMP": (b"BM", lambda encoded: len(encoded) >= int.from_bytes(encoded[2:6], "little")),
    "WebP": (b"RIFF", lambda encoded: len(encoded) >= 8 + int.from_bytes(encoded[4:8], "little")),
}
_READ_AHEAD = 256
_NAMED = 10

_log = logging.getLogger("input_pipeline")


class SkippedImages:
    """Which images of a split turned out to be corrupt and were skipped; safe to use from threads.

    The first ten are logged with what is wrong with them. Each counts once, in however many epochs
    it is met.

    Attributes:
        error: set once more than the allowed share is corrupt.
    """

    def __init__(self, num_examples: int, max_share: float):
        self.num_examples = num_examples
        self.max_share = max_share
        self.error: DataError | None = None
        self._problems: dict[str, str] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._problems)

    @property
    def problems(self) -> list[str]:
        """A sentence for each, in the order they were met."""
        with self._lock:
            return list(self._problems.values())

    @property
    def by_name(self) -> dict[str, str]:
        """The same by the names of the images."""
        with self._lock:
            return dict(self._problems)

    def add(self, name: str, problem: str) -> None:
        """Notes a corrupt image.

        Raises:
            DataError: more than max_share of the examples are corrupt.
        """
        with self._lock:
            if name in self._problems:
                return
            self._problems[name] = problem
            count = len(self._problems)
            if count <= _NAMED:
                _log.warning("skipped (%d): %s", count, printable(problem))
            if count == _NAMED + 1:
                _log.warning("More corrupt images are skipped; only ten are named.")
            if count > self.max_share * self.num_examples:
                first = " | ".join(list(self._problems.values())[:_NAMED])
                self.error = DataError(
                    f"{count:,} of {self.num_examples:,} images are corrupt, more than "
                    f"max_broken_share={self.max_share:g} allows. The first ones: {first}"
                )
                raise self.error


def find_corrupt_image(source: "Source", ids: Iterable[Any] | None = None) -> DataError | None:
    """The error for the first example that cannot be read or decoded, None if all can.

    Reads and decodes several images at a time; meant for the moment after a graph has failed.
    Where the source skips corrupt images, it is the error for too many of them.

    Args:
        source: a `sources.Source`.
        ids: of the examples among which it must be; by default the whole source is searched.
    """
    if source.skipped is not None and source.skipped.error is not None:
        return source.skipped.error
    if ids is None:
        examples = ((lambda name=name: name, read) for name, read in source.records())
    else:
        # Their names last: of a packed file they may cost reading the records that were packed.
        examples = ((partial(source.example_name, h), partial(source.read, h)) for h in ids)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            while group := list(itertools.islice(examples, _READ_AHEAD)):
                problems = pool.map(lambda example: problem(example[1], source.max_pixels), group)
                for (name, _), found in zip(group, problems, strict=True):
                    if found:
                        return DataError(f"{name()} {found}")
        except tf.errors.OpError as error:  # records that cannot be read at all
            return DataError(f"{source.title} cannot be read: {reason(error)}.")
    return None


def problem(read: Callable[[], bytes], max_pixels: int = MAX_PIXELS) -> str | None:
    """Why an image cannot be read or decoded, as "is empty (0 bytes).", None if it can."""
    try:
        encoded = read()
    except OSError as error:
        return f"cannot be read: {error.strerror or error}."
    except tf.errors.OpError as error:
        return f"cannot be read: {reason(error)}."
    try:
        with tf.device("CPU:0"):
            # Large ones at an eighth of their sides: of what is read nothing is left out.
            decode_window(tf.constant(encoded), whole_image, whole_image, max_pixels=max_pixels)
    except tf.errors.OpError as error:
        return describe(encoded, error)
    return None


def describe(encoded: bytes, error: Exception) -> str:
    """What is wrong with an image file that TensorFlow refused with `error`."""
    if not encoded:
        return "is empty (0 bytes)."
    said = str(error)
    if TOO_LARGE in said:
        return _too_large(said[said.index(TOO_LARGE) :])
    if ABSURD in said:
        what = re.findall(r"\[([^\]]*)\]", said[said.index(ABSURD) :])[0]
        return f"{ABSURD} ({what}), which takes too long to decode. Replace or remove it."
    if UNSUPPORTED in said:
        kind = re.split(r"\n|\{\{|\[\[|\[Op:", said[said.index(UNSUPPORTED) :])[0]
        return f"is an {re.sub('[][]', '', kind).strip()}. Convert or remove it."
    for name, (start, is_complete) in _FORMATS.items():
        if encoded.startswith(start):
            if not is_complete(encoded):
                return (
                    f"is a truncated {name}: its {len(encoded):,} bytes stop before the end of the "
                    "image. Replace or remove it."
                )
            return (
                f"is a damaged {name} ({len(encoded):,} bytes): {reason(error)}. "
                "Replace or remove it."
            )
    return (
        f"is no image that can be read (JPEG, PNG, GIF, BMP, WebP): its {len(encoded):,} bytes "
        f"start with {encoded[:16]!r}. Replace or remove it."
    )


def _too_large(said: str) -> str:
    height, width, times, limit = (float(n) for n in re.findall(r"\[(-?[\d.e+]+)\]", said)[:4])
    counted = f", and each counts {times:,.4g} times in a file of its kind" if times > 1 else ""
    needed = math.ceil(height * width * times)
    advice = f"raise data.max_pixels to {needed:,}, or r" if 0 < needed < 2**31 else "R"
    return (
        f"claims {int(height):,} × {int(width):,} pixels (height × width){counted}; up to "
        f"{int(limit):,} (data.max_pixels) are decoded. {advice[0].upper()}{advice[1:]}eplace or "
        "remove it."
    )
