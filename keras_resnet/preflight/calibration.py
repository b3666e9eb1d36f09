"""Predicted against published: what the compiler's estimate is off by on real chips.

The compiler's cycles charge bfloat16 that is read and written like float32, so that memory-bound
steps come out too slow, and by how much depends on the generation of the chip. One factor a
generation corrects for it. It is fitted to figures that others have published for ResNet-50, and
tested on each of them by leaving it out.
"""

import dataclasses
import functools
import math
from typing import Any

from keras_resnet.preflight.topologies import CHIPS, Topology

TOLERANCE = 0.2  # of a published figure that a prediction may be off by
_SUMMED_BYTES = 102_440_624  # gradients and moving statistics of ResNet-50, float32

# Chip, images on a replica -> estimated cycles of this project's training step of ResNet-50, 224
# pixels, mixed_bfloat16: `resnet50_imagenet_tpu` with engine=jax, fused_step=never (the published
# ones have no such fusion) and no compiler flags; libtpu 0.0.52.
_CYCLES = {
    ("v4", 128): 56_528_679,
}


@dataclasses.dataclass(frozen=True)
class Published:
    """A speed that somebody else has measured and published: ResNet-50, ImageNet, bfloat16.

    Attributes:
        chip: generation.
        chips: how many took part.
        batch: images of a chip.
        images_per_second: of a chip.
        year: when it was measured.
        source: where it is from.
        measured: what time it counts.
        url: of the source.
    """

    chip: str
    chips: int
    batch: int
    images_per_second: float
    year: int
    source: str
    measured: str
    url: str

    def compiler_seconds(self) -> float:
        """The compiler's estimate of the computation of this project's step with that batch."""
        chip = CHIPS[self.chip]
        return _CYCLES[self.chip, self.batch // chip.cores] / chip.clock

    def sum_seconds(self) -> float:
        """The sum over the chips, by formula."""
        return Topology("", CHIPS[self.chip], self.chips).all_reduce_seconds(_SUMMED_BYTES)

    def factor(self) -> float:
        """What the compiler's estimate has to be multiplied by to come to the figure."""
        return (self.batch / self.images_per_second - self.sum_seconds()) / self.compiler_seconds()

    def predicted(self, factor: float) -> float:
        """Images a second of a chip, by the compiler's estimate times a factor."""
        return self.batch / (factor * self.compiler_seconds() + self.sum_seconds())


PUBLISHED: tuple[Published, ...] = ()


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What is known of the estimates for a generation of chips.

    Attributes:
        chip: its name.
        rows: the published figures, with what was predicted for each without it.
        time_factor: of the compiler's estimate of the computation; 1 where nothing calibrates it.
    """

    chip: str
    rows: tuple[tuple[Published, float], ...]
    time_factor: float

    @property
    def largest_error(self) -> float | None:
        """The largest share by which a prediction missed a figure that it was not fitted to."""
        errors = [predicted / row.images_per_second - 1 for row, predicted in self.rows]
        return max(errors, key=abs) if errors else None

    @property
    def calibrated(self) -> bool:
        return self.largest_error is not None and abs(self.largest_error) <= TOLERANCE

    def figures(self) -> dict[str, Any]:
        """Returns what the JSON has."""
        return {
            "calibrated": self.calibrated,
            "time_factor": self.time_factor,
            "largest_error": self.largest_error,
            "published": [
                dataclasses.asdict(row) | {"predicted_images_per_second": predicted}
                for row, predicted in self.rows
            ],
        }

    def describe(self) -> str:
        """Returns the line of the report."""
        if not self.rows:
            return (
                f"uncalibrated: no published speed of ResNet-50 on {self.chip} is known to check "
                "the estimate against"
            )
        pairs = ", ".join(
            f"{predicted:,.0f}/{row.images_per_second:,.0f}" for row, predicted in self.rows
        )
        said = f"predicted/published {pairs} images/s per chip"
        if not self.calibrated:
            return f"uncalibrated: off by {self.largest_error:+.0%}; {said}"
        return (
            f"calibrated: {said} (each left out of the fit, off by {self.largest_error:+.0%} at "
            f"most); the estimate times {self.time_factor:.2f}"
        )


@functools.cache
def calibration(chip: str) -> Calibration:
    """Returns what the published figures make of the estimates for `chip`."""
    rows = [row for row in PUBLISHED if row.chip == chip]
    if len(rows) < 2:
        return Calibration(chip, (), 1.0)
    left_out = tuple(
        (row, row.predicted(_mean([other.factor() for other in rows if other is not row])))
        for row in rows
    )
    found = Calibration(chip, left_out, _mean([row.factor() for row in rows]))
    return found if found.calibrated else dataclasses.replace(found, time_factor=1.0)


def _mean(factors: list[float]) -> float:
    """The geometric mean: a factor of 2 and one of 1/2 cancel."""
    return math.exp(sum(math.log(factor) for factor in factors) / len(factors))
