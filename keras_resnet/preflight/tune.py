"""Which flags of the compiler and which batch make a step fast, by the compiler's estimate."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from keras_resnet.preflight.report import FITS, Report

# What each is for, as far as it is known; docs/tpu.md has what they were found to give. A flag that
# a version of libtpu does not know is reported as such.
FLAGS: dict[str, str] = {
    "": "the compiler's own defaults",
    "--xla_tpu_scoped_vmem_limit_kib=65536": "more on-chip memory for one fusion, less for others",
    "--xla_tpu_scoped_vmem_limit_kib=32768": "half of that",
    "--xla_tpu_enable_experimental_fusion_cost_model=true": "another judgment of what to fuse",
    "--xla_tpu_rwb_fusion=false": "reductions are not fused with what follows them",
    "--xla_tpu_vmem_scavenging_mode=NONE": "no reuse of idle on-chip memory",
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One compilation of `tune`: what was tried, and its report."""

    flags: str
    batch: int
    report: Report

    @property
    def images_per_second(self) -> float:
        """Of a chip, by the compiler's cycles; 0 if it does not fit or compile.

        Without the correction, which may fit one trial and not another.
        """
        figures = self.report.figures()
        if not figures["fits"] or not figures["compiler_seconds"]:
            return 0.0
        cores = self.report.topology.chip.cores
        return cores * figures["batch_per_replica"] / figures["compiler_seconds"]


def tune(
    compile_with: Callable[[str, int], Report],
    batches: Sequence[int],
    flags: Sequence[str] = tuple(FLAGS),
) -> Iterator[Trial]:
    """Yields a trial for each set of flags with the first batch, then for the other batches.

    The other batches are tried with the flags that were best: everything with everything would
    take the product of the numbers in compilations of minutes.
    """
    trials: list[Trial] = []
    for option in flags:
        trials.append(Trial(option, batches[0], compile_with(option, batches[0])))
        yield trials[-1]
    best = max(trials, key=lambda trial: trial.images_per_second)
    for batch in batches[1:]:
        yield Trial(best.flags, batch, compile_with(best.flags, batch))


def describe(trial: Trial) -> str:
    """Returns a line about a trial."""
    figures = trial.report.figures()
    what = f"batch {trial.batch:>4}  {trial.flags or '(defaults)'}"
    if trial.report.exit_code != FITS or not figures["estimated_cycles"]:
        return f"{'does not fit or compile':>28}  {what}: {figures['error']}"
    return (
        f"{figures['estimated_cycles'] / 1e6:>7.1f} M cycles {trial.images_per_second:>8,.0f}/s"
        f"  {what}"
    )
