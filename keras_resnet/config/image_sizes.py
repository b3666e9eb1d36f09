"""The sizes of training images over a run: what `data.image_size` says, a number or a schedule.

A schedule is pieces with commas between them, each of which goes to a share of the run:

    160@0.75,192            160 px for the first three quarters of the steps, then 192 px
    160..192:32@0.6-0.8     from 160 px to 192 px in steps of 32 px, between 60 and 80 % of it
    128@0.2,160..224@0.4-0.9,256@1

A ramp, `FROM..TO:STEP@START-END`, is FROM until START and TO from END on; between them each step of
the run has the size next to the straight line, as FFCV's `get_resolution`, of two that are as near
the later one. STEP is 32 where it is left out. The last piece goes to the end of the run: it has no
`@`, or one of 1.

Which size a step has depends on its number and that of all steps, on nothing else. Fractions are
exact: 0.7 of 10 steps are 7.
"""

import dataclasses
import functools
import math
import re
from fractions import Fraction
from typing import NamedTuple

EXAMPLE = "160@0.75,192"
ACCEPTED = f"a number of pixels, or a schedule of them such as {EXAMPLE} or 160..192:32@0.6-0.8"
TAKES = f"It takes {ACCEPTED} (docs/training.md)"
LARGEST = 2**14  # of a schedule, in pixels
_RAMP_STEP = 32

_WHOLE, _DECIMAL = re.compile(r"[0-9]{1,9}"), re.compile(r"[0-9]{0,9}\.[0-9]{1,9}|[0-9]{1,9}")
_COMMA, _AT, _DASH = re.compile(","), re.compile("@"), re.compile("-")


class Segment(NamedTuple):
    """Steps `first` to `end - 1` of a run, all on images of one size."""

    first: int
    end: int
    image_size: int


@dataclasses.dataclass(frozen=True)
class ImageSizes:
    """The sizes of the training images of a run.

    Attributes:
        changes: (share of the run, size that begins there), the first share 0, rising; neighbors
            have different sizes.
    """

    changes: tuple[tuple[Fraction, int], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Each size once, in the order in which they come."""
        return tuple(dict.fromkeys(size for _, size in self.changes))

    @property
    def last(self) -> int:
        """What the run ends with."""
        return self.changes[-1][1]

    def shares(self) -> dict[int, Fraction]:
        """Returns the share of the run that each size has."""
        shares: dict[int, Fraction] = {}
        ends = [share for share, _ in self.changes[1:]]
        for (start, size), end in zip(self.changes, [*ends, Fraction(1)], strict=True):
            shares[size] = shares.get(size, Fraction(0)) + end - start
        return shares

    def segments(self, total_steps: int) -> tuple[Segment, ...]:
        """Returns the steps of each size, in a run of `total_steps`.

        Step t, from 0, has the size of the last change that is at t / total_steps or before.

        Raises:
            ValueError: the run has not a step for the last size.
        """
        firsts = [math.ceil(share * total_steps) for share, _ in self.changes]
        if firsts[-1] >= total_steps > 0:
            raise ValueError(
                f"of the {total_steps:,} steps of this run none is left for {self.last} px, so the "
                "schedule never reaches its end; begin it earlier, or train for more steps"
            )
        segments: list[Segment] = []
        for first, end, (_, size) in zip(
            firsts, [*firsts[1:], total_steps], self.changes, strict=True
        ):
            if first == end > 0:  # a short run passes over it
                continue
            if segments and segments[-1].image_size == size:
                segments[-1] = segments[-1]._replace(end=end)
            else:
                segments.append(Segment(first, end, size))
        return tuple(segments)


def image_sizes(value: int | str) -> ImageSizes:
    """Returns the sizes that a number, for the whole run, or a schedule stands for.

    Raises:
        ValueError: as `parse_image_sizes`.
    """
    if isinstance(value, str):
        return parse_image_sizes(value)
    return ImageSizes(((Fraction(0), value),))


@functools.lru_cache(maxsize=64)
def parse_image_sizes(text: str) -> ImageSizes:
    """Reads a schedule.

    Raises:
        ValueError: it is none; says at which character, and what it takes.
    """
    scanner = _Scanner(text)
    changes: list[tuple[Fraction, int]] = []
    start = Fraction(0)
    while True:
        found, end = _piece(scanner, start)
        changes += found
        if scanner.at_end():
            break
        scanner.take(_COMMA, "',' or the end")
        if end == 1:
            raise scanner.error("a piece that has no steps, as the one before it ends with the run")
        start = end
    if end < 1:
        raise ValueError(
            f"it never reaches its end: nothing says the size after {float(end):g} of the run. "
            f"Leave out the last @, or add a piece. {TAKES}"
        )
    kept = [change for i, change in enumerate(changes) if not i or changes[i - 1][1] != change[1]]
    return ImageSizes(tuple(kept))


def _piece(scanner: "_Scanner", start: Fraction) -> tuple[list[tuple[Fraction, int]], Fraction]:
    """Reads the piece that begins at a share of the run; returns its changes, and where it ends.

    A piece that does not say where goes to the end of the run.
    """
    place, first = scanner.place, scanner.size()
    if not scanner.skip(".."):
        end = scanner.share(start) if scanner.skip("@") else Fraction(1)
        return [(start, first)], end
    last = scanner.size()
    step = scanner.size() if scanner.skip(":") else _RAMP_STEP
    count, rest = divmod(abs(last - first), step)
    if rest or not count:
        raise scanner.error(
            f"{first}..{last}, which is not a number of steps of {step} px (:STEP sets it)", place
        )
    scanner.take(_AT, "'@' and the shares of the run between which the size changes")
    begin = scanner.share(start, may_be_same=True)
    scanner.take(_DASH, "'-' and the share of the run at which the size is reached")
    end = scanner.share(begin)
    # Of two sizes the later one begins half way between them.
    towards = step if last > first else -step
    ramp = [
        (begin + (end - begin) * Fraction(2 * number - 1, 2 * count), first + number * towards)
        for number in range(1, count + 1)
    ]
    return [(start, first), *ramp], end if not scanner.at_end() else Fraction(1)


class _Scanner:
    """Reads a text from left to right; spaces between its parts mean nothing."""

    def __init__(self, text: str):
        self.text, self.place = text, 0
        self._pass_spaces()

    def at_end(self) -> bool:
        return self.place == len(self.text)

    def skip(self, mark: str) -> bool:
        """Says whether `mark` comes next, and goes past it."""
        if not self.text.startswith(mark, self.place):
            return False
        self.place += len(mark)
        self._pass_spaces()
        return True

    def take(self, pattern: re.Pattern[str], wanted: str) -> str:
        """Returns what comes next, which is `wanted`."""
        found = pattern.match(self.text, self.place)
        if found is None:
            raise self.error(f"{self._next()}, where {wanted} must be")
        self.place = found.end()
        self._pass_spaces()
        return found[0]

    def size(self) -> int:
        place, size = self.place, int(self.take(_WHOLE, "a number of pixels"))
        if not 1 <= size <= LARGEST:
            raise self.error(f"{size}, which is not from 1 to {LARGEST:,} px", place)
        return size

    def share(self, after: Fraction, may_be_same: bool = False) -> Fraction:
        """Returns the share of the run that comes next, which is past `after`."""
        place, text = self.place, self.take(_DECIMAL, "a share of the run, such as 0.75,")
        share = Fraction(text)
        if share > 1:
            raise self.error(f"{text}, which is more than 1, the whole run", place)
        if share < after or (share == after and not may_be_same):
            past = "not after" if not may_be_same else "before"
            raise self.error(f"{text}, which is {past} {float(after):g}, where it goes on", place)
        return share

    def error(self, what: str, place: int | None = None) -> ValueError:
        where = (self.place if place is None else place) + 1
        return ValueError(f"at character {where} it has {what}. {TAKES}")

    def _next(self) -> str:
        rest = self.text[self.place :]
        return repr(rest[0]) if rest else "its end"

    def _pass_spaces(self) -> None:
        while self.text[self.place : self.place + 1].isspace():
            self.place += 1
