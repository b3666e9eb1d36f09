"""What bounds a step: the bytes that it moves, or the operations that it does.

Williams, Waterman and Patterson, "Roofline" (2009): no program is faster than its bytes at the
memory's peak rate, nor than its operations at the matrix units' peak rate.
"""

import dataclasses

from keras_resnet.preflight.hlo import (
    CALLED,
    TRIPS,
    Bodies,
    all_bytes,
    computations,
    hbm_bytes_of,
    opcode_of,
    operands_of,
    result_of,
)
from keras_resnet.preflight.topologies import Chip

# What moves nothing, or what is counted at its other end; of a conditional nobody knows the branch.
_NO_TRAFFIC = {
    *("parameter", "constant", "iota", "partition-id", "replica-id", "conditional"),
    *("get-tuple-element", "tuple", "bitcast", "after-all"),
    *("slice-start", "copy-done", "all-reduce-done", "async-done"),
}


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The two limits of a step, for one replica.

    Attributes:
        hbm_bytes: read and written in the main memory.
        bytes_seconds: these at the memory's peak rate.
        flops_seconds: the compiler's operations at the peak rate of the matrix units.
    """

    hbm_bytes: float
    bytes_seconds: float
    flops_seconds: float

    @property
    def bound(self) -> str:
        """ "bytes" or "flops": the limit that is nearer."""
        return "bytes" if self.bytes_seconds >= self.flops_seconds else "flops"

    def figures(self, step_seconds: float) -> dict[str, float | str]:
        """Returns what the JSON has; the last two are how often each limit fits into the step."""
        return {
            "bound": self.bound,
            "hbm_bytes": self.hbm_bytes,
            "bytes_seconds": self.bytes_seconds,
            "flops_seconds": self.flops_seconds,
            "step_over_bytes": step_seconds / self.bytes_seconds,
            "step_over_flops": step_seconds / self.flops_seconds,
        }


def roofline(chip: Chip, hbm_bytes: float, flops: float) -> Roofline | None:
    """Returns the limits of one replica's step on `chip`; None without bytes or operations."""
    if not hbm_bytes or not flops:
        return None
    return Roofline(
        hbm_bytes=hbm_bytes,
        bytes_seconds=hbm_bytes / (chip.hbm_bandwidth / chip.cores),
        flops_seconds=flops / (chip.flops / chip.cores),
    )


def hbm_traffic(text: str) -> int:
    """Returns the bytes that a compiled HLO module reads and writes in the chip's main memory.

    By the shapes of operands and results there, once for each instruction that uses them; what
    stays in on-chip memory is left out. The compiler's own "bytes accessed" counts that as well.
    """
    entry, bodies = computations(text)
    return _traffic(entry, bodies)


def _traffic(computation: str, bodies: Bodies) -> int:
    total = 0
    sizes = {name: hbm_bytes_of(result_of(rest)) for name, rest in bodies.get(computation, ())}
    for name, rest in bodies.get(computation, ()):
        opcode = opcode_of(rest)
        if opcode in ("while", "call"):
            count = TRIPS.search(rest)
            trips = int(count[1]) if count else 1
            total += trips * sum(_traffic(called, bodies) for called in CALLED.findall(rest))
        elif opcode == "slice-done":  # its beginning names the whole array
            total += all_bytes(result_of(rest))
        elif opcode == "copy-start":  # its result is source and destination
            total += sizes[name]
        elif opcode not in _NO_TRAFFIC:
            total += sizes[name] + sum(sizes.get(operand, 0) for operand in operands_of(rest))
    return total
