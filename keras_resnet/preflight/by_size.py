"""A run whose images change their size: the step at each size, and what the whole run comes to."""

import dataclasses
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from keras_resnet.preflight.cost import Run
from keras_resnet.preflight.report import FITS, Report


@dataclasses.dataclass(frozen=True)
class ReportBySize:
    """The steps of a run with a schedule of image sizes.

    Attributes:
        reports: by size, that of the largest among them; others are missing where that cannot be
            trained on.
        shares: of the run, of every size in the order in which they come.
        run: the whole run, if its number of examples is known.
    """

    reports: Mapping[int, Report]
    shares: Mapping[int, Fraction]
    run: Run | None = None

    @property
    def exit_code(self) -> int:
        """That of the largest size that is not fine, if there is one."""
        codes = [self.reports[size].exit_code for size in sorted(self.reports, reverse=True)]
        return next((code for code in codes if code != FITS), FITS)

    def figures(self) -> dict[str, Any]:
        """Returns the figures of the largest size with those of all, and of the whole run.

        `sizes` has for each the figures of its step, its `share` of the run, and its `steps` and
        `minutes` where the number of examples is known. `run` is None unless all have a speed.
        """
        chips = self.reports[max(self.reports)].topology.chips
        found = {size: self.reports[size].figures() for size in self.shares if size in self.reports}
        rates = {size: row["images_per_second"] for size, row in found.items() if row["fits"]}
        rates = {size: rate for size, rate in rates.items() if rate}
        # A short run may pass over a size.
        whole = self.run and all(size in rates for size in self.run.steps_by_size)
        return found[max(found)] | {
            "sizes": [row | self._share(size, rates.get(size)) for size, row in found.items()],
            "sizes_not_compiled": [size for size in self.shares if size not in found],
            "run": self.run.figures(rates, chips) if self.run and whole else None,
        }

    def _share(self, size: int, rate: float | None) -> dict[str, Any]:
        """What one size has of the run."""
        steps = self.run.steps_by_size.get(size, 0) if self.run else None
        minutes = self.run.minutes(size, rate) if self.run and rate and steps else None
        return {
            "share": float(self.shares[size]),
            "steps": steps,
            "minutes": 0.0 if steps == 0 else minutes,
        }


def compile_each(
    largest: Report,
    shares: Mapping[int, Fraction],
    compile_at: Callable[[int], Report],
    run: Run | None,
) -> ReportBySize:
    """Compiles the step at each size but the largest, if that one can be trained on.

    Args:
        largest: the report of the largest size.
        shares: of the run, by size.
        compile_at: makes the report of a size.
        run: the whole run, if it is known.
    """
    reports = {largest.image_size: largest}
    if largest.exit_code == FITS:
        reports |= {size: compile_at(size) for size in shares if size not in reports}
    return ReportBySize(reports, shares, run)
