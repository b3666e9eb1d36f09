"""The bare compiled training step, timed on a batch that is in memory."""

import resource
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet.architectures import get_architecture
from keras_resnet.config import training_image_size
from keras_resnet.models.costs import profile
from keras_resnet.training.host_batches import HostBatches
from keras_resnet.training.progress import Timeline
from keras_resnet.training.schedules import make_schedule
from keras_resnet.training.tensorflow import TensorFlowEngine
from keras_resnet.training.tensorflow.strategy import device_kind

# Chowdhery et al. 2022, appendix B: a multiply-add is two operations, and the backward pass costs
# twice the forward one: a product for the gradient of the input and one for that of the weights.
_OPERATIONS_PER_MULTIPLY_ADD = 2 * 3


def measure_step(config: ConfigDict, *, steps: int, rounds: int) -> dict[str, Any]:
    """Times the training step of `config` on one fixed batch of noise.

    Args:
        config: a checked config; its data set is not opened.
        steps: number of steps to time in each round.
        rounds: number of rounds, after the first step and a round to warm up.

    Returns:
        Figures by name: images_per_second and its range (slowest, fastest round),
        first_step_seconds, peak_memory_bytes (of the process on CPU, of one device elsewhere),
        model_flops_per_second, and what was measured.
    """
    engine = bare_engine(config)
    iterator = fixed_batches(engine)

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        engine.steps.train_loop(iterator, tf.constant(count)).numpy()
        return time.perf_counter() - begin

    first = seconds(1)
    seconds(steps)
    rates = sorted(config.batch_size * steps / seconds(steps) for _ in range(rounds))
    images_per_second = statistics.median(rates)
    multiply_adds = profile(engine.model, (training_image_size(config),) * 2 + (3,)).multiply_adds
    return {
        "model": config.model.name,
        "image_size": training_image_size(config),
        "batch_size": config.batch_size,
        "device": engine.description,
        "precision": engine.config.precision,
        "xla": config.xla,
        "steps": steps,
        "rounds": rounds,
        "images_per_second": images_per_second,
        "images_per_second_range": [rates[0], rates[-1]],
        "first_step_seconds": first,
        "peak_memory_bytes": _peak_memory(engine.strategy),
        "model_flops_per_second": images_per_second * multiply_adds * _OPERATIONS_PER_MULTIPLY_ADD,
    }


def bare_engine(
    config: ConfigDict, strategy: tf.distribute.Strategy | None = None
) -> TensorFlowEngine:
    """Returns an engine that can train, for as many classes as the architecture has."""
    classes = [str(number) for number in range(get_architecture(config.model.name).classes)]
    timeline = Timeline(config, train_examples=1000 * config.batch_size)
    engine = TensorFlowEngine(config, strategy)
    engine.build(classes, make_schedule(config, timeline))
    return engine


def fixed_batches(engine: TensorFlowEngine) -> Iterator[Any]:
    """Returns an endless distributed iterator over one batch of noise."""
    config, random = engine.config, np.random.default_rng(0)

    def make_batches(_, batch_size: int, num_shards: int, **options) -> tf.data.Dataset:
        size, pixels = batch_size // num_shards, training_image_size(config)
        classes = len(engine.model.class_names)
        if config.data.multi_label:
            labels = random.integers(0, 2, (size, classes)).astype("float32")
        else:
            labels = random.integers(0, classes, size, "int32")
        batch = {
            "image": random.integers(0, 256, (size, pixels, pixels, 3), "uint8"),
            "label": labels,
        }
        return tf.data.Dataset.from_tensors(batch).repeat()

    batches = HostBatches(make_batches, None, config.batch_size, config.accumulate_steps, {})
    return iter(engine.distribute(batches))


def _peak_memory(strategy: tf.distribute.Strategy) -> int:
    if device_kind(strategy) == "CPU":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return tf.config.experimental.get_memory_info(f"{device_kind(strategy)}:0")["peak"]
