"""The largest batch of a replica that fits into the chip's memory."""

from collections.abc import Callable

from keras_resnet.preflight.report import FITS, Report

GRANULARITY = 8  # images: batches that are no multiple of 8 are padded to one on the chip


def largest_batch(
    try_batch: Callable[[int], Report], first: Report, most_tries: int = 8
) -> tuple[int, list[Report]]:
    """Returns the largest batch per replica that compiles and fits, and what was tried.

    Memory grows with the batch nearly on a straight line through the size of the variables, so
    that the next guess comes from what was needed last, and halving is left for where it does not.

    Args:
        try_batch: makes a report for a number of images.
        first: the report of the config's own batch, which does not fit.
        most_tries: compilations at most; each takes minutes for a large network.

    Returns:
        The batch, 0 if not even 8 images fit, and the reports in the order of the tries.
    """
    fitting, failing = 0, first.lowered.batch
    tried: list[Report] = []
    last = first
    while failing - fitting > GRANULARITY and len(tried) < most_tries:
        last = try_batch(_guess(last, fitting, failing))
        tried.append(last)
        if last.exit_code == FITS:
            fitting = last.lowered.batch
        else:
            failing = last.lowered.batch
    return fitting, tried


def _guess(last: Report, fitting: int, failing: int) -> int:
    """A multiple of 8 strictly between `fitting` and `failing`."""
    fixed = last.lowered.variable_bytes
    needed = last.compiled.hbm_needed_bytes - fixed
    middle = (fitting + failing) // 2
    if needed > 0:
        middle = int(last.lowered.batch * (last.hbm_limit_bytes - fixed) / needed)
    lowest = fitting + GRANULARITY - fitting % GRANULARITY
    highest = (failing - 1) // GRANULARITY * GRANULARITY
    return max(lowest, min(middle // GRANULARITY * GRANULARITY, highest))
