"""Reading a program that the TPU compiler has optimized: what each instruction costs and is for."""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"([a-z][\w\-]*)\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|called_computations)=\{?%?([\w.\-]+)")
_SHAPE = re.compile(r"\b(pred|bf16|f8\w*|[suf]\d+)\[([\d,]*)\](\{[^}]*\})?")
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
_CHAIN = re.compile(r'chain_id="(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
# Of each computation the (name, rest of the line) of its instructions.
Bodies = dict[str, list[tuple[str, str]]]
# The kinds of instructions, most telling first: what a fusion contains makes it one.
_KINDS = (
    ("convolution", ("convolution", "dot")),
    ("pooling", ("select-and-scatter", "reduce-window")),
    ("reduction", ("reduce",)),
    ("copy", ("copy", "copy-start", "copy-done", "transpose", "bitcast-convert")),
)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction that the TPU runs by itself.

    Attributes:
        name: in the program.
        cycles: the compiler's estimate, of all runs if it is in a loop.
        kind: convolution, pooling, reduction, copy or elementwise.
        backward: whether it belongs to the backward pass.
        op_name: where it comes from, in the names of TensorFlow.
        layer: the layer of the model, or "" (loss, normalization of the input, optimizer).
        hbm_bytes: size of the operands and results that are in the chip's main memory.
    """

    name: str
    cycles: int
    kind: str
    backward: bool
    op_name: str
    layer: str
    hbm_bytes: int

    @property
    def stage(self) -> str:
        """ "stage1" to "stage4", "stem", "head", or "other" without a layer."""
        if not self.layer:
            return "other"
        prefix = self.layer.partition("_")[0]
        return prefix if re.fullmatch(r"stage\d+|stem", prefix) else "head"


def instructions(text: str, layers: Collection[str] = ()) -> list[Instruction]:
    """Returns the instructions with an estimate, the most expensive first.

    Args:
        text: a compiled HLO module as text.
        layers: names of the layers of the model.
    """
    entry, bodies = _computations(text)
    layers = frozenset(layers)
    found = [
        _instruction(name, rest, cycles * trips, bodies, sizes, layers)
        for name, rest, cycles, trips, sizes in _costly(entry, bodies, 1)
    ]
    return sorted(found, key=lambda instruction: -instruction.cycles)


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
    entry, bodies = _computations(text)
    found: dict[str, AllReduce] = {}
    running: dict[str, int] = {}  # name of the beginning -> cycles since
    for name, rest in bodies.get(entry, ()):
        kind, operands = _opcode(rest), re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
        if kind == "all-reduce":
            found[name] = AllReduce(name, _all_bytes(_result_of(rest)), 0)
        elif kind == "all-reduce-start":
            found[name] = AllReduce(name, _all_bytes(_result_of(rest)), 0)
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
        elif cycles := _CYCLES.search(rest):
            running = {begun: since + int(cycles[1]) for begun, since in running.items()}
    return list(found.values())


def _in_fusions(rest: str, bodies: Bodies, target: str) -> str:
    """The chain of an all-reduce that a fusion begins or ends with a call of `target`, or ""."""
    for called in _CALLED.findall(rest):
        lines = [inner for _, inner in bodies.get(called, ())]
        if any(f'custom_call_target="{target}"' in line for line in lines):
            chains = [_CHAIN.search(line) for line in lines if _opcode(line) == "all-reduce"]
            return next((f"chain {chain[1]}" for chain in chains if chain), "")
    return ""


def _summed_bytes(rest: str, bodies: Bodies) -> int:
    """Bytes that are summed over chips in a computation that an instruction calls."""
    return sum(
        _all_bytes(_result_of(inner))
        for called in _CALLED.findall(rest)
        for _, inner in bodies.get(called, ())
        if _opcode(inner) == "all-reduce"
    )


def estimated_cycles(found: Collection[Instruction]) -> int:
    """The sum of the compiler's estimates. What overlaps in time counts twice in it."""
    return sum(instruction.cycles for instruction in found)


def _computations(text: str) -> tuple[str, Bodies]:
    """Returns the name of the entry, and of each computation the (name, rest of the line)."""
    entry = ""
    bodies: Bodies = {}
    current: list[tuple[str, str]] | None = None
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = bodies.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif current is not None and (instruction := _INSTRUCTION.match(line)):
            current.append((instruction[1], instruction[2]))
    return entry, bodies


def _costly(
    computation: str, bodies: Bodies, trips: int
) -> Iterator[tuple[str, str, int, int, dict[str, int]]]:
    """Yields (name, rest of its line, cycles, trips, bytes by name) of what has an estimate."""
    sizes = {name: _hbm_bytes(_result_of(rest)) for name, rest in bodies.get(computation, ())}
    for name, rest in bodies.get(computation, ()):
        opcode = _opcode(rest)
        if opcode in ("while", "call", "conditional"):
            count = _TRIPS.search(rest)
            for called in _CALLED.findall(rest):
                yield from _costly(called, bodies, trips * int(count[1] if count else 1))
        elif cycles := _CYCLES.search(rest):
            yield name, rest, int(cycles[1]), trips, sizes


def _instruction(
    name: str,
    rest: str,
    cycles: int,
    bodies: Bodies,
    sizes: dict[str, int],
    layers: Collection[str],
) -> Instruction:
    named = _OP_NAME.search(rest)
    op_name = named[1] if named else ""
    operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
    return Instruction(
        name=name,
        cycles=cycles,
        kind=_kind(rest, bodies),
        backward=bool(re.search(r"gradient_tape|transpose\(|Grad\b|Backprop", op_name)),
        op_name=op_name,
        layer=_layer(op_name, layers),
        hbm_bytes=_hbm_bytes(_result_of(rest))
        + sum(sizes.get(operand, 0) for operand in dict.fromkeys(operands)),
    )


def _layer(op_name: str, layers: Collection[str]) -> str:
    # TensorFlow appends _1 to a layer's scope where the layer is called a second time; JAX wraps it
    # in what it does with it, as in transpose(jvp(LAYER)).
    for wrapped in reversed(op_name.split("/")):
        part = wrapped.rpartition("(")[2].rstrip(")")
        for name in (part, re.sub(r"_\d+$", "", part)):
            if name in layers:
                return name
    return ""


def _result_of(rest: str) -> str:
    """The part of an instruction that says its shape: what is before the opcode."""
    opcode = _OPCODE.search(re.sub(r"\{[^}]*\}", lambda found: " " * len(found[0]), rest))
    return rest[: opcode.start()] if opcode else rest


def _opcode(rest: str) -> str:
    blank = re.sub(r"\{[^}]*\}", "", rest)
    opcode = _OPCODE.search(blank)
    return opcode[1] if opcode else ""


def _kind(rest: str, bodies: Bodies) -> str:
    opcodes = {_opcode(rest)}
    pending = _CALLED.findall(rest)
    while pending:
        for _, inner in bodies.get(pending.pop(), ()):
            opcodes.add(_opcode(inner))
            if "fusion(" in inner or "call(" in inner:
                pending += _CALLED.findall(inner)
    for kind, telling in _KINDS[:-1]:
        if opcodes & set(telling):
            return kind
    return "copy" if _opcode(rest) in _KINDS[-1][1] else "elementwise"


def _hbm_bytes(shapes: str) -> int:
    """Bytes of the shapes in a text, without those in other memory than HBM, "S(1)" and so on."""
    return _all_bytes(shapes, ignored=re.compile(r"S\([1-9]"))


def _all_bytes(shapes: str, ignored: re.Pattern[str] | None = None) -> int:
    """Bytes of the shapes in a text, but for those whose layout matches `ignored`."""
    total = 0
    for dtype, sizes, layout in _SHAPE.findall(shapes):
        if ignored and ignored.search(layout):
            continue
        digits = re.search(r"\d+", dtype)
        bits = int(digits[0]) if digits else 8  # pred takes a byte
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits // 8
    return total
