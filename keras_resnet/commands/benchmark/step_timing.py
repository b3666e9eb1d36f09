"""The bare compiled training step, timed on a batch that is in memory."""

import resource
import statistics
import time
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.architectures import get_architecture
from keras_resnet.config import training_image_size
from keras_resnet.fused import describe
from keras_resnet.input_pipeline.sources.noise import Synthetic
from keras_resnet.models.costs import profile
from keras_resnet.training.engine import Engine, find_engine
from keras_resnet.training.progress import Timeline
from keras_resnet.training.schedules import make_schedule
from keras_resnet.training.teachers import teach

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
    engine: Any = bare_engine(config)
    batches = fixed_batches(engine)

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        engine.train(batches, count)
        return time.perf_counter() - begin

    first = seconds(1)
    seconds(steps)
    rates = sorted(config.batch_size * steps / seconds(steps) for _ in range(rounds))
    images_per_second = statistics.median(rates)
    multiply_adds = profile(engine.model, (training_image_size(config),) * 2 + (3,)).multiply_adds
    operations = multiply_adds * _OPERATIONS_PER_MULTIPLY_ADD
    if engine.steps.teacher:
        operations += 2 * engine.steps.teacher.multiply_adds
    return {
        "model": config.model.name,
        "image_size": training_image_size(config),
        "batch_size": config.batch_size,
        "device": engine.description,
        "precision": engine.config.precision,
        "xla": config.xla,
        "step": describe(engine.steps.form),
        "steps": steps,
        "rounds": rounds,
        "images_per_second": images_per_second,
        "images_per_second_range": [rates[0], rates[-1]],
        "first_step_seconds": first,
        "peak_memory_bytes": _peak_memory(engine),
        "model_flops_per_second": images_per_second * operations,
    }


def bare_engine(config: ConfigDict, devices: Any = None) -> Engine:
    """Returns an engine that can train, for as many classes as the architecture has.

    Args:
        config: a checked config; its data set is not opened, its teacher is, if it has one.
        devices: a strategy or mesh for the engine, instead of the config's.
    """
    classes = [str(number) for number in range(get_architecture(config.model.name).classes)]
    timeline = Timeline(config, train_examples=1000 * config.batch_size)
    # Which engine it is decides what `devices` are: the seam leaves them to the config.
    kind: Any = find_engine(config)
    engine = kind(config, devices)
    engine.build(classes, make_schedule(config, timeline))
    teach(engine, len(classes))
    return engine


def fixed_batches(engine: Engine) -> Any:
    """Returns an endless pass over one batch of noise on the devices, for `engine.train`."""
    config = engine.config
    source = Synthetic(
        title="noise",
        num_examples=config.batch_size,
        class_names=tuple(engine.model.class_names),
    )
    source.multi_label = config.data.multi_label
    return engine.train_batches(source, 0, 1 << 30)


def _peak_memory(engine: Any) -> int:
    """Of one device; on a CPU of the process."""
    if "CPU" in engine.description:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if mesh := getattr(engine, "mesh", None):
        return mesh.devices[0].memory_stats()["peak_bytes_in_use"]
    import tensorflow as tf

    kind = "TPU" if "TPU" in engine.description else "GPU"
    return tf.config.experimental.get_memory_info(f"{kind}:0")["peak"]
