"""Speeds of ResNet-50 on TPUs that others have measured and published.

ImageNet at 224 pixels, bfloat16, forward and backward pass and update. docs/tpu.md has the same as
a table, with the figures that were left aside, and why.
"""

import dataclasses
from typing import Any

from keras_resnet.preflight.roofline import Roofline, roofline
from keras_resnet.preflight.topologies import CHIPS, Topology

# Gradients and moving statistics of ResNet-50, float32.
_SUMMED_BYTES = 102_440_624
_IMAGES = 4 * 1_281_167  # of a block of four epochs, as MLPerf's logs have them


@dataclasses.dataclass(frozen=True)
class Program:
    """What the compiler makes of this project's step of ResNet-50, for one replica.

    `resnet50_imagenet_tpu` with engine=jax, fused_step=never (the published programs have no such
    fusion) and no flags of the compiler; libtpu 0.0.52.

    Attributes:
        cycles: the sum of the compiler's estimates.
        hbm_bytes: read and written in the main memory.
        flops: the compiler's count.
    """

    cycles: int
    hbm_bytes: int
    flops: float


# Chip, images on a replica.
PROGRAMS = {
    ("v2", 128): Program(167_173_301, 35_272_686_042, 3.07573e12),
    ("v3", 128): Program(130_748_342, 35_272_686_042, 3.07573e12),
    ("v4", 128): Program(56_528_679, 30_271_387_338, 3.07470e12),
    ("v4", 256): Program(113_864_035, 64_386_920_714, 6.14908e12),
}


@dataclasses.dataclass(frozen=True)
class Published:
    """A published speed.

    Attributes:
        chip: generation.
        chips: how many took part.
        batch: images of a chip.
        images_per_second: of a chip.
        year: when it was measured.
        source: where it is from.
        measured: what the time has in it.
        url: of the source.
    """

    chip: str
    chips: int
    batch: int
    images_per_second: float
    year: int
    source: str
    measured: str
    url: str

    @property
    def program(self) -> Program:
        return PROGRAMS[self.chip, self.batch // CHIPS[self.chip].cores]

    @property
    def limits(self) -> Roofline:
        """Of this project's step with that batch."""
        limits = roofline(CHIPS[self.chip], self.program.hbm_bytes, self.program.flops)
        assert limits is not None
        return limits

    @property
    def compiler_seconds(self) -> float:
        """The step by the compiler's cycles, without the sum over the chips."""
        return self.program.cycles / CHIPS[self.chip].clock

    @property
    def sum_seconds(self) -> float:
        """The sum over the chips, by formula."""
        return Topology("", CHIPS[self.chip], self.chips).all_reduce_seconds(_SUMMED_BYTES)

    @property
    def step_seconds(self) -> float:
        """What was measured, without that sum."""
        return self.batch / self.images_per_second - self.sum_seconds

    def figures(self) -> dict[str, Any]:
        """Returns what the JSON has; the compiler's own estimate among it."""
        seconds = self.compiler_seconds + self.sum_seconds
        return dataclasses.asdict(self) | {"compiler_images_per_second": self.batch / seconds}


def _mlperf(version: str, system: str, chips: int, seconds: float, measured: str) -> dict[str, Any]:
    """Fields of a figure from MLPerf's logs: the median time of a block of four epochs."""
    results = {"0.5": "google/resnet-{}/results/tpu"}.get(version, "Google/results/{}").format(
        system
    )
    return {
        "chips": chips,
        "images_per_second": _IMAGES / seconds / chips,
        "source": f"MLPerf Training {version}, Google, {system}",
        "measured": measured,
        "url": f"https://github.com/mlcommons/training_results_v{version}/tree/HEAD/{results}/resnet",
    }


_WITHOUT = "training alone, from the end of an evaluation to the next"
_WITH = "blocks of four epochs and an evaluation"
PUBLISHED = (
    Published("v2", batch=256, year=2018, **_mlperf("0.5", "tpuv2-8", 4, 1145.7, _WITHOUT)),
    Published(
        *("v2", 4, 256, 1_281_167 / 319.48 / 4, 2018),
        "DAWNBench, Google, TensorFlow 1.11",
        "epochs 2 to 90, each with a checkpoint",
        "https://github.com/stanford-futuredata/dawn-bench-entries/blob/HEAD/ImageNet/train/"
        "google_resnet50_tpu_tensorflow111.tsv",
    ),
    Published("v3", batch=256, year=2018, **_mlperf("0.5", "tpuv3-8", 4, 686.9, _WITHOUT)),
    Published("v3", batch=256, year=2019, **_mlperf("0.6", "tpu-v3-32", 16, 164.11, _WITH)),
    Published("v3", batch=256, year=2019, **_mlperf("0.6", "tpu-v3-128", 64, 40.97, _WITH)),
    Published("v3", batch=256, year=2019, **_mlperf("0.6", "tpu-v3-256", 128, 21.28, _WITH)),
    Published(
        *("v3", 4, 256, 125_100 * 1024 / (4.4 * 3600) / 4, 2021),
        "flax, ImageNet example, v3-8",
        "125,100 steps of 1,024 images in 4.4 hours, all in all",
        "https://github.com/google/flax/blob/HEAD/examples/imagenet/README.md",
    ),
    Published("v4", batch=256, year=2020, **_mlperf("0.7", "tpu-v4-16-TF", 8, 184.17, _WITH)),
    Published("v4", batch=128, year=2020, **_mlperf("0.7", "tpu-v4-128-TF", 64, 24.44, _WITH)),
    Published("v4", batch=128, year=2021, **_mlperf("1.0", "tpu-v4-128-TF", 64, 23.19, _WITH)),
)
