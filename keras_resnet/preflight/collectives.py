"""The sums over chips in a compiled program, and what goes on behind them."""

import dataclasses
import re

from keras_resnet.preflight.hlo import (
    CALLED,
    CYCLES,
    Bodies,
    all_bytes,
    computations,
    opcode_of,
    operands_of,
    result_of,
)

_CHAIN = re.compile(r'chain_id="(\d+)"')


@dataclasses.dataclass(frozen=True)
class AllReduce:
    """One sum over the chips.

    Attributes:
        name: in the program.
        size: bytes that are summed.
        hidden_cycles: the compiler's estimate of what a chip computes while it goes on; 0 where the
            chip waits for it.
    """

    name: str
    size: int
    hidden_cycles: int


def all_reduces(text: str) -> list[AllReduce]:
    """Returns the sums over chips of a compiled HLO module, in the order in which they begin.

    The compiler has no estimate of how long they take. One that it has split into a beginning and
    an end goes on behind what is scheduled between the two. Its "async collective fusions" are
    such a beginning and end as well, and between them fusions that move a part while they compute.
    """
    entry, bodies = computations(text)
    found: dict[str, AllReduce] = {}
    running: dict[str, int] = {}  # name of the beginning -> cycles since
    for name, rest in bodies.get(entry, ()):
        kind, operands = opcode_of(rest), operands_of(rest)
        if kind == "all-reduce":
            found[name] = AllReduce(name, all_bytes(result_of(rest)), 0)
        elif kind == "all-reduce-start":
            found[name] = AllReduce(name, all_bytes(result_of(rest)), 0)
            running[name] = 0
        elif kind == "async-start" and (size := _summed_bytes(rest, bodies)):
            found[name] = AllReduce(name, size, 0)
            running[name] = 0
        elif kind == "fusion" and (begins := _in_fusions(rest, bodies, "AsyncCollectiveStart")):
            found[begins] = AllReduce(name, _summed_bytes(rest, bodies), 0)
            running[begins] = 0
        elif kind == "fusion" and (ends := _in_fusions(rest, bodies, "AsyncCollectiveDone")):
            found[ends] = dataclasses.replace(found[ends], hidden_cycles=running.pop(ends))
        elif kind in ("all-reduce-done", "async-done") and operands and operands[0] in running:
            begun = operands[0]
            found[begun] = dataclasses.replace(found[begun], hidden_cycles=running.pop(begun))
        elif cycles := CYCLES.search(rest):
            running = {begun: since + int(cycles[1]) for begun, since in running.items()}
    return list(found.values())


def _in_fusions(rest: str, bodies: Bodies, target: str) -> str:
    """The chain of an all-reduce that a fusion begins or ends with a call of `target`, or ""."""
    for called in CALLED.findall(rest):
        lines = [inner for _, inner in bodies.get(called, ())]
        if any(f'custom_call_target="{target}"' in line for line in lines):
            chains = [_CHAIN.search(line) for line in lines if opcode_of(line) == "all-reduce"]
            return next((f"chain {chain[1]}" for chain in chains if chain), "")
    return ""


def _summed_bytes(rest: str, bodies: Bodies) -> int:
    """Bytes that are summed over chips in a computation that an instruction calls."""
    return sum(
        all_bytes(result_of(inner))
        for called in CALLED.findall(rest)
        for _, inner in bodies.get(called, ())
        if opcode_of(inner) == "all-reduce"
    )
