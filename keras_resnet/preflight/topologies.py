"""TPU chips and slices: what the estimates need to know of them."""

import dataclasses
import math
import re

from keras_resnet.errors import UsageError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Chip:
    """A generation of TPU. Figures are of one chip, peak values of the manufacturer.

    Attributes:
        name: as in a topology.
        accelerator: its name in accelerator types and TPU_ACCELERATOR_TYPE.
        smallest: the slice that the compiler is asked for: one host.
        cores: replicas of TPUStrategy on a chip. From v4 on both cores work as one.
        dimensions: of the torus that the chips form.
        flops: bfloat16 operations a second.
        hbm_bytes: memory.
        hbm_bandwidth: bytes a second.
        ici_bandwidth: bytes a second to the neighbors, all links together, one direction.
        clock: cycles a second; follows from `flops` and the size of the matrix units.
        chips_per_host: in a slice of several hosts.
        most_chips_on_a_host: the largest slice that is one host.
        config: libtpu's name for how the chip runs. v4 compiles for one of its two cores by itself
            alone unless asked for "megacore", which is how Cloud TPU runs it; v5p needs no asking.
        note: what a user of TensorFlow must know.
    """

    name: str
    accelerator: str
    smallest: str
    cores: int
    dimensions: int
    flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    ici_bandwidth: float
    clock: float
    chips_per_host: int = 4
    most_chips_on_a_host: int = 4
    config: str = "default"
    note: str = ""

    @property
    def replica_hbm_bytes(self) -> int:
        return self.hbm_bytes // self.cores

    def accelerator_type(self, sides: str) -> str:
        """Type of a slice: counted in chips from v5e on, in cores before and for v5p."""
        chips = math.prod(int(size) for size in sides.split("x"))
        return f"{self.accelerator}-{chips * self._units_per_chip}"

    @property
    def _units_per_chip(self) -> int:
        return 1 if self.accelerator in ("v5litepod", "v6e") else 2


_UNPROVEN = "TensorFlow on several chips of v6e is unproven"
# Cloud TPU documentation, "TPU architecture", a page per generation (flops, memory, bandwidths);
# links of v2 and v3: Jouppi et al., "A Domain-Specific Supercomputer for Training Deep Neural
# Networks" (2020), table 3: four of 496 and of 656 Gbit/s. The documentation counts both directions
# of a link, this table one.
_ROWS = (
    Chip("v2", "v2", "2x2", 2, 2, 46e12, 16 << 30, 700e9, 4 * 62e9 / 2, 0.70e9),
    Chip("v3", "v3", "2x2", 2, 2, 123e12, 32 << 30, 900e9, 4 * 82e9 / 2, 0.94e9),
    Chip(
        *("v4", "v4", "2x2x1", 1, 3, 275e12, 32 << 30, 1228e9, 150e9, 1.05e9),
        config="megacore",
    ),
    Chip(
        *("v5e", "v5litepod", "2x2", 1, 2, 197e12, 16 << 30, 819e9, 100e9, 1.50e9),
        most_chips_on_a_host=8,
    ),
    Chip("v5p", "v5p", "2x2x1", 1, 3, 459e12, 95 << 30, 2765e9, 300e9, 1.75e9),
    Chip(
        *("v6e", "v6e", "2x2", 1, 2, 918e12, 32 << 30, 1640e9, 200e9, 1.75e9),
        most_chips_on_a_host=8,
        note=_UNPROVEN,
    ),
    Chip(
        *("tpu7x", "tpu7x", "2x2x1", 2, 3, 2307e12, 192 << 30, 7380e9, 600e9, 2.20e9),
        note="TensorFlow does not run on TPU7x: an estimate of the compiler, nothing to rent",
    ),
)
CHIPS = {chip.name: chip for chip in _ROWS}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of a TPU.

    Attributes:
        name: such as "v5e:2x4".
        chip: its generation.
        chips: how many.
    """

    name: str
    chip: Chip
    chips: int

    @property
    def sides(self) -> str:
        """Such as "2x4"."""
        return self.name.partition(":")[2]

    @property
    def replicas(self) -> int:
        return self.chips * self.chip.cores

    @property
    def hosts(self) -> int:
        if self.chips <= self.chip.most_chips_on_a_host:
            return 1
        return -(-self.chips // self.chip.chips_per_host)

    def images_per_replica(self, batch_size: int, accumulate_steps: int) -> int:
        """Images of a replica, in one of the parts of `accumulate_steps`.

        Raises:
            UsageError: the global batch cannot be shared out so.
        """
        share = self.replicas * accumulate_steps
        if batch_size % share:
            raise UsageError(
                f"config.batch_size={batch_size} does not divide by the {self.replicas} replicas "
                f"of {self.name} times config.accumulate_steps={accumulate_steps}; take "
                f"{max(batch_size // share, 1) * share}"
            )
        return batch_size // share

    def all_reduce_seconds(self, size: int) -> float:
        """Seconds to sum `size` bytes over all chips, by formula.

        Rings send and receive 2 (n - 1) / n times the data (Patarasuk and Yuan 2009, section 3),
        here over all links of a chip at once at their full bandwidth, latency left out.
        """
        return 2 * (self.chips - 1) / self.chips * size / self.chip.ici_bandwidth


def parse_topology(text: str) -> Topology:
    """Returns the slice called "GENERATION:AxB" or "GENERATION:AxBxC".

    Raises:
        UsageError: there is no such generation, or its slices have another number of sides.
    """
    match = re.fullmatch(r"([a-z0-9]+):([1-9]\d*(?:x[1-9]\d*)+)", text.lower())
    if match is None or match[1] not in CHIPS:
        examples = ", ".join(f"{chip.name}:{chip.smallest}" for chip in _ROWS)
        generation = text.split(":")[0]
        raise UsageError(
            f"--topology={text}: a generation and the sides of the slice in chips, such as "
            f"{examples}.{did_you_mean(generation, CHIPS)}"
        )
    chip = CHIPS[match[1]]
    sides = [int(side) for side in match[2].split("x")]
    if len(sides) != chip.dimensions:
        raise UsageError(
            f"--topology={text}: slices of {chip.name} have {chip.dimensions} sides, such as "
            f"{chip.name}:{chip.smallest}"
        )
    return Topology(f"{chip.name}:{match[2]}", chip, math.prod(sides))
