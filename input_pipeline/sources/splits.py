"""TFDS split syntax for sources that TFDS does not know: "train", "train[:80%]", "a+b[10:20]"."""

import dataclasses
import re
from collections.abc import Callable

from keras_resnet.input_pipeline.errors import DataError

_BOUND = r"-?\d+%?"
_PART = re.compile(rf"(?P<name>\w+)(\[(?P<start>{_BOUND})?:(?P<stop>{_BOUND})?\])?")


@dataclasses.dataclass(frozen=True)
class Part:
    """One slice of a named split; `start` and `stop` as written, "" where open.

    As in TFDS, both bounds are percentages where one of them is.
    """

    name: str
    start: str = ""
    stop: str = ""

    def select(self, size: int) -> range:
        """The positions it takes of a split with `size` examples.

        Raises:
            DataError: a bound lies beyond `size`.
        """
        percent = "%" in self.start + self.stop
        start = _position(self.start, percent, size) if self.start else 0
        stop = _position(self.stop, percent, size) if self.stop else size
        return range(start, max(start, stop))


def parse(split: str) -> list[Part]:
    """Splits "a[:80%]+b" into its parts.

    Raises:
        DataError: `split` is not written as TFDS writes splits.
    """
    parts = []
    for text in split.split("+"):
        match = _PART.fullmatch(text.strip())
        if not match:
            raise DataError(
                f"Cannot read the split {split!r}; write it as in 'train', 'train[:80%]', "
                "'train[80%:]', 'train[:1000]' or 'train+test'."
            )
        parts.append(Part(match["name"], match["start"] or "", match["stop"] or ""))
    return parts


def select(split: str, sizes: Callable[[str], int]) -> list[tuple[str, range]]:
    """(name, positions) of each part of `split`; `sizes` gives the examples of a named split."""
    return [(part.name, part.select(sizes(part.name))) for part in parse(split)]


def _position(bound: str, percent: bool, size: int) -> int:
    # Percentages are rounded to the closest whole example, as TFDS does by default.
    value = int(bound.rstrip("%"))
    if percent:
        value = round(value * size / 100)
    if abs(value) > size:
        raise DataError(f"The bound {bound} of a split lies beyond its {size:,} images.")
    return value + size if value < 0 else value
