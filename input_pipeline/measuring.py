"""How fast each stage of the training pipeline is, and what it costs on the processor."""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_resnet.input_pipeline.batching import STAGES, train_batches, training_chunks
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.sources.base import Source

_WARM_UP = 0.3  # of the seconds measured, before each round: autotuning, and what was prefetched


@dataclasses.dataclass(frozen=True)
class Stage:
    """What was measured of one stage; each pipeline measured ends with it.

    Attributes:
        name: read, decode (with the crop), augment or batch.
        images_per_second: of the pipeline up to this stage; median of the rounds.
        lowest, highest: of the rounds.
        cpu_seconds: per image, over all threads, of the pipeline up to this stage.
        own_cpu_seconds: what this stage adds to the one before.
        limit: images/s that this stage alone would let through on this machine.
    """

    name: str
    images_per_second: float
    lowest: float
    highest: float
    cpu_seconds: float
    own_cpu_seconds: float
    limit: float


@dataclasses.dataclass(frozen=True)
class Measurement:
    """All stages, in their order.

    Attributes:
        cores: what this process may use.
        bytes_per_image: mean size of an encoded image.
    """

    stages: tuple[Stage, ...]
    cores: int
    bytes_per_image: float

    @property
    def bottleneck(self) -> Stage:
        """The stage that would let the fewest images through if it had the machine to itself."""
        return min(self.stages, key=lambda stage: stage.limit)

    def cores_for(self, images_per_second: float) -> int:
        """The processor cores, as fast as those measured, that would make so many images."""
        return math.ceil(images_per_second * self.stages[-1].cpu_seconds)


def measure_stages(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    image_size: int,
    augment: Mapping[str, Any],
    sampler: str = "shuffle",
    seconds: float = 3.0,
    rounds: int = 3,
) -> Measurement:
    """Runs the training pipeline up to each of its stages in turn.

    Rounds are interleaved, so that a slow minute of the machine hits all stages. Reading is
    limited by what was measured of it, for it may wait for a disk; the other stages by the
    processor time they take and the cores there are.

    Args:
        source, batch_size, seed, image_size, augment, sampler: as for `train_batches`.
        seconds: for each stage in each round.

    Raises:
        DataError: the source is synthetic, or an argument of `train_batches` is not valid.
    """
    if source.is_synthetic:
        raise DataError("Synthetic data is neither read nor decoded: there is nothing to measure.")
    options = {
        "batch_size": batch_size,
        "seed": seed,
        "num_steps": 2**40,
        "image_size": image_size,
        "augment": augment,
        "sampler": sampler,
    }
    pipelines = {
        stage: iter(training_chunks(source, stage=stage, **options).prefetch(2)) for stage in STAGES
    }
    pipelines["batch"] = iter(train_batches(source, **options))
    rates: dict[str, list[float]] = {stage: [] for stage in pipelines}
    costs: dict[str, list[float]] = {stage: [] for stage in pipelines}
    for _ in range(rounds):
        for stage, batches in pipelines.items():
            _run(batches, seconds * _WARM_UP)
            rate, cost = _run(batches, seconds)
            rates[stage].append(rate)
            costs[stage].append(cost)
            time.sleep(seconds * 0.1)  # what is still prefetched must not count for the next
    cores = _usable_cores()
    return Measurement(
        stages=tuple(_stages(rates, costs, cores)),
        cores=cores,
        bytes_per_image=_mean_bytes(training_chunks(source, stage="read", **options)),
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _run(batches: Iterator, seconds: float) -> tuple[float, float]:
    """Images/s, and processor seconds per image."""
    images, begin, cpu = 0, time.perf_counter(), time.process_time()
    while (passed := time.perf_counter() - begin) < seconds or not images:
        images += len(next(batches)["label"])
    passed = time.perf_counter() - begin
    return images / passed, (time.process_time() - cpu) / images


def _stages(rates: Mapping, costs: Mapping, cores: int) -> Iterator[Stage]:
    before = 0.0
    for name, values in rates.items():
        cost = max(before, statistics.median(costs[name]))
        rate = statistics.median(values)
        own = cost - before
        yield Stage(
            name=name,
            images_per_second=rate,
            lowest=min(values),
            highest=max(values),
            cpu_seconds=cost,
            own_cpu_seconds=own,
            limit=rate if name == STAGES[0] else cores / own if own else math.inf,
        )
        before = cost


def _mean_bytes(chunks: tf.data.Dataset) -> float:
    sizes, count = 0, 0
    for chunk in chunks:
        sizes += int(tf.reduce_sum(chunk["bytes"]))
        count += len(chunk["bytes"])
        if count >= 1000:
            break
    return sizes / count
