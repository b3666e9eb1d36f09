"""Reading a program that the TPU compiler has optimized: what each instruction costs and is for."""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^  (?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"([a-z][\w\-]*)\(")
CALLED = re.compile(r"(?:calls|to_apply|body|called_computations)=\{?%?([\w.\-]+)")
_SHAPE = re.compile(r"\b(pred|bf16|f8\w*|[suf]\d+)\[([\d,]*)\](\{[^}]*\})?")
CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
TRIPS = re.compile(r'"known_trip_count":\{"n":"?(\d+)')
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
    entry, bodies = computations(text)
    layers = frozenset(layers)
    found = [
        _instruction(name, rest, cycles * trips, bodies, sizes, layers)
        for name, rest, cycles, trips, sizes in _costly(entry, bodies, 1)
    ]
    return sorted(found, key=lambda instruction: -instruction.cycles)


def estimated_cycles(found: Collection[Instruction]) -> int:
    """The sum of the compiler's estimates.

    Copies that go on behind computation (copy-start, slice-start) have none, so that nothing is
    counted twice.
    """
    return sum(instruction.cycles for instruction in found)


def computations(text: str) -> tuple[str, Bodies]:
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
    sizes = {name: hbm_bytes_of(result_of(rest)) for name, rest in bodies.get(computation, ())}
    for name, rest in bodies.get(computation, ()):
        opcode = opcode_of(rest)
        if opcode in ("while", "call", "conditional"):
            count = TRIPS.search(rest)
            for called in CALLED.findall(rest):
                yield from _costly(called, bodies, trips * int(count[1] if count else 1))
        elif cycles := CYCLES.search(rest):
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
    return Instruction(
        name=name,
        cycles=cycles,
        kind=_kind(rest, bodies),
        backward=bool(re.search(r"gradient_tape|transpose\(|Grad\b|Backprop", op_name)),
        op_name=op_name,
        layer=_layer(op_name, layers),
        hbm_bytes=hbm_bytes_of(result_of(rest))
        + sum(sizes.get(operand, 0) for operand in operands_of(rest)),
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


def result_of(rest: str) -> str:
    """The part of an instruction that says its shape: what is before the opcode."""
    opcode = _OPCODE.search(re.sub(r"\{[^}]*\}", lambda found: " " * len(found[0]), rest))
    return rest[: opcode.start()] if opcode else rest


def opcode_of(rest: str) -> str:
    blank = re.sub(r"\{[^}]*\}", "", rest)
    opcode = _OPCODE.search(blank)
    return opcode[1] if opcode else ""


def operands_of(rest: str) -> list[str]:
    """The names of what an instruction reads, each once, in their order."""
    return list(dict.fromkeys(re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])))


def _kind(rest: str, bodies: Bodies) -> str:
    opcodes = {opcode_of(rest)}
    pending = CALLED.findall(rest)
    while pending:
        for _, inner in bodies.get(pending.pop(), ()):
            opcodes.add(opcode_of(inner))
            if "fusion(" in inner or "call(" in inner:
                pending += CALLED.findall(inner)
    for kind, telling in _KINDS[:-1]:
        if opcodes & set(telling):
            return kind
    return "copy" if opcode_of(rest) in _KINDS[-1][1] else "elementwise"


def hbm_bytes_of(shapes: str) -> int:
    """Bytes of the shapes in a text, without those in other memory than HBM, "S(1)" and so on."""
    return all_bytes(shapes, ignored=re.compile(r"S\([1-9]"))


def all_bytes(shapes: str, ignored: re.Pattern[str] | None = None) -> int:
    """Bytes of the shapes in a text, but for those whose layout matches `ignored`."""
    total = 0
    for dtype, sizes, layout in _SHAPE.findall(shapes):
        if ignored and ignored.search(layout):
            continue
        digits = re.search(r"\d+", dtype)
        bits = int(digits[0]) if digits else 8  # pred takes a byte
        total += math.prod(int(size) for size in sizes.split(",") if size) * bits // 8
    return total
