"""The figures of a preflight, for people and as JSON. Everything about time is an estimate."""

import collections
import dataclasses
import functools
from typing import Any

from keras_resnet.preflight.calibration import Calibration, calibration
from keras_resnet.preflight.collectives import AllReduce, all_reduces
from keras_resnet.preflight.compiler import Compiled
from keras_resnet.preflight.cost import Run
from keras_resnet.preflight.hlo import Instruction, estimated_cycles, instructions
from keras_resnet.preflight.lowering import Lowered
from keras_resnet.preflight.roofline import Roofline, hbm_traffic, roofline
from keras_resnet.preflight.topologies import Topology

FITS, DOES_NOT_FIT, DOES_NOT_COMPILE = 0, 3, 4  # exit codes
_REASONS = {FITS: "", DOES_NOT_FIT: "memory", DOES_NOT_COMPILE: "compiler"}
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
        image_size: pixels along each side of its images, 0 where nobody has said.
        run: the whole run of the config, if its number of examples is known and all of its images
            have this size; with a schedule of sizes `ReportBySize` has it.
    """

    topology: Topology
    lowered: Lowered
    compiled: Compiled
    parts: int = 1
    engine: str = "tensorflow"
    image_size: int = 0
    run: Run | None = None

    @property
    def calibration(self) -> Calibration:
        return calibration(self.topology.chip.name)

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

    @functools.cached_property
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

    def memory(self) -> dict[str, int] | None:
        """Returns the bytes of a replica's memory by what is in them; None without a program.

        `other` is the batch, the program itself, and the padding of all these to the chip's tiles.
        """
        if not self.compiled.temporary_bytes:
            return None
        variables, parameters = self.lowered.variable_bytes, self.lowered.gradient_bytes
        known = {
            "parameters": parameters,
            "optimizer": self.lowered.optimizer_bytes,
            "statistics_and_averages": variables - parameters - self.lowered.optimizer_bytes,
            "activations_and_temporaries": self.compiled.temporary_bytes,
        }
        return known | {"other": self.compiled.hbm_needed_bytes - sum(known.values())}

    def figures(self) -> dict[str, Any]:
        """Returns what `--json` writes; None where there is no figure.

        Bytes, seconds, and images a second. `images_per_second_per_chip` is the computation alone,
        `images_per_second` of the whole slice adds the sum over its chips by formula: of all of it
        with the TensorFlow engine, whose program has none, and with JAX of what the chips wait for.
        `step_seconds` and what follows from it is the corrected time where the chip is calibrated
        and the correction fits the program, otherwise the compiler's.
        """
        topology, compiled, code = self.topology, self.compiled, self.exit_code
        images = self.lowered.batch * self.parts
        return {
            "engine": self.engine,
            "topology": topology.name,
            "chips": topology.chips,
            "hosts": topology.hosts,
            "replicas": topology.replicas,
            "image_size": self.image_size or None,
            "batch_per_replica": images,
            "batch_size": images * topology.replicas,
            "compiles": not compiled.error,
            "fits": code == FITS,
            "reason": _REASONS[code],
            "error": compiled.error,
            "compile_seconds": compiled.compile_seconds or None,
            "hbm_needed_bytes": compiled.hbm_needed_bytes or None,
            "hbm_limit_bytes": self.hbm_limit_bytes,
            "hbm_limit_from": "compiler" if compiled.hbm_limit_bytes else "chip",
            "memory": self.memory(),
            "variable_bytes": self.lowered.variable_bytes,
            "parameters": self.lowered.parameters,
            "model_flops": self.lowered.model_flops * self.parts,
            "flops": compiled.flops * self.parts or None,
            "bytes_accessed": compiled.bytes_accessed * self.parts or None,
            "arithmetic_intensity": compiled.flops / compiled.bytes_accessed
            if compiled.bytes_accessed
            else None,
            **self._speed(),
            "calibration": self.calibration.figures(),
            "cycles_by_kind": self.cycles_by("kind"),
            "cycles_by_stage": self.cycles_by("stage"),
            "instructions": [
                dataclasses.asdict(instruction) for instruction in self.instructions[:TOP]
            ],
            # What it is about is TensorFlow.
            "note": topology.chip.note if self.engine == "tensorflow" else "",
        }

    def _speed(self) -> dict[str, Any]:
        """The part of the figures that is about time."""
        topology, chip = self.topology, self.topology.chip
        cycles = estimated_cycles(self.instructions) * self.parts or None
        by_compiler = cycles and cycles / chip.clock
        limits = self._limits if cycles else None
        corrected = by_compiler and self.calibration.seconds(limits, by_compiler)
        calibrated = self.calibration.calibrated and bool(corrected)
        seconds = corrected if calibrated else by_compiler
        sums = self._sums()
        images = self.lowered.batch * self.parts
        step = seconds and seconds + sums["all_reduce_seconds_by_formula"]
        rate = step and images / step * topology.replicas
        run = self.run
        model_flops = self.lowered.model_flops * self.parts
        return {
            "estimated_cycles": cycles,
            "compiler_seconds": by_compiler,
            "corrected_seconds": corrected,
            "calibrated": calibrated,
            "step_seconds": seconds,
            "images_per_second_per_chip": seconds and images / seconds * chip.cores,
            "images_per_second": rate,
            "images_per_second_per_host": rate and rate / topology.hosts,
            "model_flop_utilisation": seconds and model_flops / seconds / (chip.flops / chip.cores),
            "roofline": limits.figures(seconds) if limits and seconds else None,
            **sums,
            "run": run.figures(dict.fromkeys(run.steps_by_size, rate), topology.chips)
            if run and rate
            else None,
        }

    def _sums(self) -> dict[str, Any]:
        """The part of the figures that is about the sums over the chips."""
        sums = self.all_reduces()
        summed = sum(one.size for one in sums) if sums else self.lowered.gradient_bytes
        hidden = sum(self._hidden_bytes(one) for one in sums)
        return {
            "all_reduce_bytes": summed,
            "all_reduces": len(sums) or None,
            "all_reduce_hidden_bytes": hidden if sums else None,
            "all_reduce_seconds_by_formula": self.topology.all_reduce_seconds(summed - hidden),
        }

    @functools.cached_property
    def _limits(self) -> Roofline | None:
        moved = hbm_traffic(self.compiled.text) * self.parts
        return roofline(self.topology.chip, moved, self.compiled.flops * self.parts)

    def cycles_by(self, attribute: str) -> dict[str, int]:
        """Returns the estimated cycles by "kind" or "stage" of the instructions."""
        total: collections.Counter[str] = collections.Counter()
        for instruction in self.instructions:
            total[getattr(instruction, attribute)] += instruction.cycles * self.parts
        return dict(total.most_common())
