"""The figures of a preflight, for people and as JSON. Everything about time is an estimate."""

import collections
import dataclasses
from typing import Any

from keras_resnet.preflight.compiler import Compiled
from keras_resnet.preflight.hlo import (
    AllReduce,
    Instruction,
    all_reduces,
    estimated_cycles,
    instructions,
)
from keras_resnet.preflight.lowering import Lowered
from keras_resnet.preflight.topologies import Topology

FITS, DOES_NOT_FIT, DOES_NOT_COMPILE = 0, 3, 4  # exit codes
TOP = 12  # instructions to list


@dataclasses.dataclass(frozen=True)
class Report:
    """A step, where it should run, and what the compiler said.

    Attributes:
        topology: the slice.
        lowered: the step of one replica.
        compiled: what became of it.
        parts: how often the program runs in a step (`accumulate_steps`).
        engine: whose step it is: "tensorflow", of one replica by itself, or "jax", of the whole
            slice, sums over its chips included.
    """

    topology: Topology
    lowered: Lowered
    compiled: Compiled
    parts: int = 1
    engine: str = "tensorflow"

    @property
    def exit_code(self) -> int:
        if self.compiled.out_of_memory or not self.fits_by_size:
            return DOES_NOT_FIT
        return DOES_NOT_COMPILE if self.compiled.error else FITS

    @property
    def hbm_limit_bytes(self) -> int:
        return self.compiled.hbm_limit_bytes or self.topology.chip.replica_hbm_bytes

    @property
    def fits_by_size(self) -> bool:
        return self.compiled.hbm_needed_bytes <= self.hbm_limit_bytes

    def instructions(self) -> list[Instruction]:
        return instructions(self.compiled.text, self.lowered.layers)

    def all_reduces(self) -> list[AllReduce]:
        """The sums over chips in the program; of one replica alone there are none."""
        return all_reduces(self.compiled.text) if self.engine == "jax" else []

    def _hidden_bytes(self, one: AllReduce) -> int:
        """As much of a sum as goes over the links, by formula, while a chip computes."""
        seconds = self.topology.all_reduce_seconds(one.size)
        behind = one.hidden_cycles / self.topology.chip.clock
        return round(one.size * min(1.0, behind / seconds)) if seconds else one.size

    def figures(self) -> dict[str, Any]:
        """Returns what `--json` writes; None where there is no figure.

        Bytes, seconds, and images a second. `images_per_second_per_chip` is the computation alone,
        `images_per_second` of the whole slice adds the sum over its chips by formula: of all of it
        with the TensorFlow engine, whose program has none, and with JAX of what the chips wait for.
        """
        topology, chip, lowered = self.topology, self.topology.chip, self.lowered
        compiled = self.compiled
        cycles = estimated_cycles(self.instructions()) * self.parts or None
        seconds = cycles and cycles / chip.clock
        sums = self.all_reduces()
        summed = sum(one.size for one in sums) if sums else lowered.gradient_bytes
        hidden = sum(self._hidden_bytes(one) for one in sums)
        reduce = topology.all_reduce_seconds(summed - hidden)
        images = lowered.batch * self.parts
        rate = seconds and images / (seconds + reduce) * topology.replicas
        code = self.exit_code
        return {
            "engine": self.engine,
            "topology": topology.name,
            "chips": topology.chips,
            "hosts": topology.hosts,
            "replicas": topology.replicas,
            "batch_per_replica": images,
            "batch_size": images * topology.replicas,
            "compiles": code in (FITS, DOES_NOT_FIT),
            "fits": code == FITS,
            "error": compiled.error,
            "hbm_needed_bytes": compiled.hbm_needed_bytes or None,
            "hbm_limit_bytes": self.hbm_limit_bytes,
            "variable_bytes": lowered.variable_bytes,
            "parameters": lowered.parameters,
            "model_flops": lowered.model_flops * self.parts,
            "flops": compiled.flops * self.parts or None,
            "bytes_accessed": compiled.bytes_accessed * self.parts or None,
            "arithmetic_intensity": compiled.flops / compiled.bytes_accessed
            if compiled.bytes_accessed
            else None,
            "estimated_cycles": cycles,
            "step_seconds": seconds,
            "images_per_second_per_chip": seconds and images / seconds * chip.cores,
            "images_per_second": rate,
            "images_per_second_per_host": rate and rate / topology.hosts,
            "model_flop_utilisation": seconds
            and lowered.model_flops * self.parts / seconds / (chip.flops / chip.cores),
            "all_reduce_bytes": summed,
            "all_reduces": len(sums) or None,
            "all_reduce_hidden_bytes": hidden if sums else None,
            "all_reduce_seconds_by_formula": reduce,
            "cycles_by_kind": self.cycles_by("kind"),
            "cycles_by_stage": self.cycles_by("stage"),
            "instructions": [
                dataclasses.asdict(instruction) for instruction in self.instructions()[:TOP]
            ],
            "note": chip.note if self.engine == "tensorflow" else "",  # which it is about
        }

    def cycles_by(self, attribute: str) -> dict[str, int]:
        """Returns the estimated cycles by "kind" or "stage" of the instructions."""
        total: collections.Counter[str] = collections.Counter()
        for instruction in self.instructions():
            total[getattr(instruction, attribute)] += instruction.cycles * self.parts
        return dict(total.most_common())


def describe(report: Report, measured_input: float | None = None) -> str:
    """Returns the report as text.

    Args:
        report: what to say.
        measured_input: images/s that `benchmark input` measured on a host, if it did.
    """
    figures, chip = report.figures(), report.topology.chip
    lines = [
        f"{figures['topology']}, engine {figures['engine']}: chips {figures['chips']}, "
        f"hosts {figures['hosts']}; "
        f"{figures['batch_per_replica']} images per "
        f"replica, {figures['batch_size']:,} in all; {figures['parameters']:,} parameters"
    ]
    if figures["note"]:
        lines.append(f"note         {figures['note']}")
    needed, limit = figures["hbm_needed_bytes"], figures["hbm_limit_bytes"]
    memory = f"{_gib(needed)} of {_gib(limit)} per replica" if needed else "not known"
    if not figures["compiles"]:
        return "\n".join([*lines, f"compiles     no: {figures['error']}"])
    lines += [
        f"compiles     {'yes' if not figures['error'] else 'yes, but it needs too much memory'}",
        f"memory       {memory}: {'fits' if figures['fits'] else 'does NOT fit'}",
    ]
    if not figures["estimated_cycles"]:
        unknown = "step         not known: jaxlib cannot write down what libtpu has made"
        return "\n".join(
            [*lines, f"compiler     {figures['error']}" if figures["error"] else unknown]
        )
    seconds, reduce = figures["step_seconds"], figures["all_reduce_seconds_by_formula"]
    lines += [
        f"work         {figures['flops'] / 1e12:.2f} TFLOP, {figures['bytes_accessed'] / 1e9:.1f} "
        f"GB moved, {figures['arithmetic_intensity']:.0f} FLOP a byte (the compiler's count)",
        f"step         {figures['estimated_cycles'] / 1e6:.1f} M cycles, {1000 * seconds:.1f} ms "
        f"at {chip.clock / 1e9:g} GHz (estimate)",
        f"speed        {figures['images_per_second_per_chip']:,.0f} images/s per chip, "
        f"{figures['images_per_second']:,.0f} for the slice (estimates)",
        f"utilization  {figures['model_flop_utilisation']:.1%} of {chip.flops / 1e12:g} TFLOP/s "
        "(model FLOPs, estimate)",
        f"all-reduce   {_all_reduce(figures)}, {1000 * reduce:.2f} ms (by formula, not measured)",
        f"input        every host must deliver {figures['images_per_second_per_host']:,.0f} "
        f"images/s{_against(measured_input, figures['images_per_second_per_host'])}",
        "",
        *_shares("kind of instruction", figures["cycles_by_kind"]),
        *_shares("stage of the network", figures["cycles_by_stage"]),
        "",
        "most expensive instructions",
        f"  {'M cycles':>8}  {'MB':>6}  {'kind':<12}  layer",
    ]
    lines += [
        f"  {entry['cycles'] / 1e6:>8.2f}  {entry['hbm_bytes'] / 1e6:>6.0f}  {entry['kind']:<12}  "
        f"{entry['layer'] or entry['op_name'] or entry['name']}"
        f"{' (backward)' if entry['backward'] else ''}"
        for entry in figures["instructions"]
    ]
    return "\n".join(lines)


def _all_reduce(figures: dict[str, Any]) -> str:
    size = f"{figures['all_reduce_bytes'] / 1e6:.0f} MB"
    if figures["all_reduces"] is None:
        return f"{size} of gradients"
    hidden = figures["all_reduce_hidden_bytes"] / figures["all_reduce_bytes"]
    count = figures["all_reduces"]
    return (
        f"{size} in {count} sum{'s' if count > 1 else ''}, {hidden:.0%} of it behind computation; "
        "what the chips wait for"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _against(measured: float | None, needed: float) -> str:
    if measured is None:
        return "; keras-resnet benchmark input says what one delivers"
    verdict = "enough" if measured >= needed else f"only {measured / needed:.0%} of it"
    return f"; one was measured at {measured:,.0f}: {verdict}"


def _shares(title: str, cycles: dict[str, int]) -> list[str]:
    total = sum(cycles.values())
    parts = [f"{name} {value / total:.0%}" for name, value in cycles.items()]
    return [f"by {title}: {', '.join(parts)}"]
