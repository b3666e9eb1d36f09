"""The bare compiled training step, timed on a batch that is in memory."""

import resource
import statistics
import time
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet.architectures import get_architecture
from keras_resnet.config import training_image_size
from keras_resnet.models.costs import profile
from keras_resnet.training.tensorflow.strategy import describe, device_kind, strategy_of
from keras_resnet.training.tensorflow.trainer import Trainer

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
    strategy = strategy_of(config)
    trainer = bare_trainer(config, strategy)
    iterator = fixed_batches(trainer)

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        trainer.steps.train(iterator, tf.constant(count)).numpy()
        return time.perf_counter() - begin

    first = seconds(1)
    seconds(steps)
    rates = sorted(config.batch_size * steps / seconds(steps) for _ in range(rounds))
    images_per_second = statistics.median(rates)
    multiply_adds = profile(trainer.model, (training_image_size(config),) * 2 + (3,)).multiply_adds
    return {
        "model": config.model.name,
        "image_size": training_image_size(config),
        "batch_size": config.batch_size,
        "device": describe(strategy),
        "precision": config.precision,
        "xla": config.xla,
        "steps": steps,
        "rounds": rounds,
        "images_per_second": images_per_second,
        "images_per_second_range": [rates[0], rates[-1]],
        "first_step_seconds": first,
        "peak_memory_bytes": _peak_memory(strategy),
        "model_flops_per_second": images_per_second * multiply_adds * _OPERATIONS_PER_MULTIPLY_ADD,
    }


def bare_trainer(config: ConfigDict, strategy: tf.distribute.Strategy) -> Trainer:
    """Returns a trainer without a data set, for as many classes as the architecture has."""
    classes = [str(number) for number in range(get_architecture(config.model.name).classes)]
    return Trainer(config, strategy, classes, train_examples=1000 * config.batch_size)


def fixed_batches(trainer: Trainer):
    """Returns an endless distributed iterator over one batch of noise."""
    config, random = trainer.config, np.random.default_rng(0)

    def make_batches(_, batch_size: int, num_shards: int, **options) -> tf.data.Dataset:
        size, pixels = batch_size // num_shards, training_image_size(config)
        batch = {
            "image": random.integers(0, 256, (size, pixels, pixels, 3), "uint8"),
            "label": random.integers(0, len(trainer.model.class_names), size, "int32"),
        }
        return tf.data.Dataset.from_tensors(batch).repeat()

    return trainer.iterate(make_batches, None, parts=config.accumulate_steps)


def _peak_memory(strategy: tf.distribute.Strategy) -> int:
    if device_kind(strategy) == "CPU":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return tf.config.experimental.get_memory_info(f"{device_kind(strategy)}:0")["peak"]
