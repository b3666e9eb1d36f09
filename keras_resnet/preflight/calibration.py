"""Predicted against published: a correction of the compiler's estimate, and how far it is proven.

The compiler's cycles charge bfloat16 that is read and written as if it were float32, so that steps
that are bound by memory come out too slow, on v4 by 30 %. What published speeds of ResNet-50 do
agree with, on three generations of chips, is that a step takes the time of its bytes and that of
its operations, both at the chip's peak rates, one after the other. The weights of the two are
fitted to the published figures and come out near 1; each figure, and each generation, is predicted
from the others.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from keras_resnet.preflight.published import PUBLISHED, Published
from keras_resnet.preflight.roofline import Roofline

TOLERANCE = 0.2  # of a published figure that a prediction may be off by
# Of the corrected to the compiler's own time. Those of the published figures are 0.69 to 1.0; a
# program outside is bound by something else, such as channels that do not fill the matrix units.
PLAUSIBLE = (0.6, 1.1)

Weights = tuple[float, float]


def fit(rows: Sequence[Published]) -> Weights:
    """Returns the weights of bytes and operations that the figures agree with best.

    Least squares of the relative errors of the time of a step, without the sum over the chips.

    Args:
        rows: two or more, of more than one generation.
    """
    shares = [
        (row.limits.bytes_seconds / seconds, row.limits.flops_seconds / seconds)
        for row in rows
        for seconds in [row.step_seconds]
    ]
    bb = sum(moved * moved for moved, _ in shares)
    bf = sum(moved * done for moved, done in shares)
    ff = sum(done * done for _, done in shares)
    b, f = (sum(column) for column in zip(*shares, strict=True))
    determinant = bb * ff - bf * bf
    return (ff * b - bf * f) / determinant, (bb * f - bf * b) / determinant


def predict(row: Published, weights: Weights) -> float:
    """Returns images a second of a chip for the run that a figure is of."""
    return row.batch / (_seconds(row.limits, weights) + row.sum_seconds)


def _seconds(limits: Roofline, weights: Weights) -> float:
    return weights[0] * limits.bytes_seconds + weights[1] * limits.flops_seconds


@dataclasses.dataclass(frozen=True)
class Checked:
    """A published figure, and what is predicted for it by weights that do not know it.

    Attributes:
        published: the figure.
        predicted: images a second of a chip, from all other figures.
        across: the same from the other generations alone.
    """

    published: Published
    predicted: float
    across: float

    @property
    def error(self) -> float:
        """The share by which the worse of the two misses."""
        measured = self.published.images_per_second
        return max(self.predicted / measured - 1, self.across / measured - 1, key=abs)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What is known of the estimates for a generation of chips.

    Attributes:
        chip: its name.
        checked: its published figures.
        weights: of bytes and operations, from all figures of all generations.
    """

    chip: str
    checked: tuple[Checked, ...]
    weights: Weights

    @property
    def largest_error(self) -> float | None:
        return max((row.error for row in self.checked), key=abs, default=None)

    @property
    def calibrated(self) -> bool:
        return self.largest_error is not None and abs(self.largest_error) <= TOLERANCE

    def seconds(self, limits: Roofline | None, compiler_seconds: float) -> float | None:
        """Returns the corrected time of a step, or None if the correction does not fit the program.

        Args:
            limits: of the step; None if they are not known.
            compiler_seconds: by the compiler's cycles.
        """
        if limits is None:
            return None
        seconds = _seconds(limits, self.weights)
        return seconds if PLAUSIBLE[0] <= seconds / compiler_seconds <= PLAUSIBLE[1] else None

    def figures(self) -> dict[str, Any]:
        """Returns what the JSON has."""
        return {
            "calibrated": self.calibrated,
            "bytes_weight": self.weights[0],
            "flops_weight": self.weights[1],
            "largest_error": self.largest_error,
            "published": [
                row.published.figures()
                | {
                    "predicted_images_per_second": row.predicted,
                    "predicted_from_other_chips": row.across,
                }
                for row in self.checked
            ],
        }

    def describe(self) -> str:
        """Returns the line of the report."""
        if not self.checked:
            return (
                f"uncalibrated: no published speed of ResNet-50 on {self.chip} is known to check "
                "the estimate against"
            )
        pairs = ", ".join(
            f"{row.predicted:,.0f}/{row.published.images_per_second:,.0f}" for row in self.checked
        )
        return (
            f"{'calibrated' if self.calibrated else 'uncalibrated'}: predicted/published {pairs} "
            f"images/s per chip, each from the others, off by {self.largest_error:+.0%} at most"
        )


@functools.cache
def calibration(chip: str) -> Calibration:
    """Returns what the published figures say of the estimates for `chip`."""
    elsewhere = [row for row in PUBLISHED if row.chip != chip]
    checked = tuple(
        Checked(
            row,
            predict(row, fit([other for other in PUBLISHED if other is not row])),
            predict(row, fit(elsewhere)),
        )
        for row in PUBLISHED
        if row.chip == chip
    )
    return Calibration(chip, checked, fit(PUBLISHED))
