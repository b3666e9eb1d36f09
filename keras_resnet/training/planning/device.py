"""What a run will compute on, and about how fast: enough to choose a network that fits."""

import dataclasses
import os

from ml_collections import ConfigDict

from keras_resnet import tpu_chips
from keras_resnet.backend import engine_name

# Multiply-adds of the forward pass a second, in training: ResNet-50's 4.09e9 times images/s.
# A core: 9.5 images/s in float32 and 14.8 in bfloat16 on two (docs/results.md).
_CORE = {"float32": 19e9, "mixed_bfloat16": 30e9}
# A GPU that multiplies bfloat16, and an older one: 1,000 and 150 images/s, cautiously.
_GPU = {"float32": 0.6e12, "mixed_bfloat16": 4e12}
# A chip of v5e: 128 images in 106 million cycles of 0.94 GHz (docs/tpu.md).
_TPU = 4.6e12
# Seconds of a step beside its multiply-adds: a small network on a CPU, batches of 8 (measured).
_STEP = {"CPU": 0.02, "GPU": 0.005, "TPU": 0.005}
# What reading a photo takes of a core: the code of each pixel, and making each pixel that is left
# at a half, a quarter or an eighth of the sides: 1.25 ms for 500 × 375, 24 ms for 4,000 × 3,000 at
# a quarter. A pixel that is kept decoded is only copied (docs/data.md).
_CODE, _PIXEL, _COPY = 1.8e-9, 5e-9, 2e-9


@dataclasses.dataclass(frozen=True)
class Device:
    """What computes.

    Attributes:
        kind: "CPU", "GPU" or "TPU".
        count: of replicas.
        cores: of the processor, which reads the images.
        speed: multiply-adds of the forward pass a second in training, about.
    """

    kind: str
    count: int
    cores: int
    speed: float

    def __str__(self) -> str:
        if self.kind == "CPU":
            return f"{self.cores} CPU core{'s' if self.cores > 1 else ''}"
        return f"{self.count} GPU{'s' if self.count > 1 else ''}" if self.kind == "GPU" else "a TPU"

    def seconds_of_image(
        self, multiply_adds: float, reading_seconds: float, batch_size: int
    ) -> float:
        """About how long training takes for one image.

        Args:
            multiply_adds: of the network's forward pass.
            reading_seconds: of a core, to read the image.
            batch_size: images of a step.
        """
        computing = multiply_adds / self.speed + _STEP[self.kind] / batch_size
        reading = reading_seconds / self.cores
        return computing + reading if self.kind == "CPU" else max(computing, reading)


def reading_seconds(pixels: float, ratio: int, kept: bool = False) -> float:
    """Returns about what reading a photo takes of a core.

    Args:
        pixels: of the file.
        ratio: that it is decoded at, see `scaled_decoding` of `Preprocessing`.
        kept: whether data.cache=decoded has decoded it already.
    """
    left = pixels / ratio**2
    return left * _COPY if kept else pixels * _CODE + left * _PIXEL


def find_device(config: ConfigDict) -> Device:
    """Returns what a run with `config` would compute on here; TensorFlow's devices do not start.

    Args:
        config: reads `engine`, `strategy`, `devices` and `precision`.

    Raises:
        UserError: there is a TPU, and TensorFlow would not take it.
    """
    if engine_name(config.engine) == "jax":
        return _of_jax(config)
    import tensorflow as tf

    from keras_resnet.training.tensorflow.precision import precision_here

    cores = _cores()
    precision = "float32" if precision_here(config) == "float32" else "mixed_bfloat16"
    if config.strategy == "tpu" or (config.strategy == "auto" and os.environ.get("TPU_NAME")):
        return Device("TPU", 1, cores, _TPU)
    gpus = 0 if config.strategy == "cpu" else len(tf.config.list_physical_devices("GPU"))
    if gpus:
        count = 1 if config.strategy == "one_device" else min(config.devices or gpus, gpus)
        return Device("GPU", count, cores, count * _GPU[precision])
    tpu_chips.refuse_idle(config.strategy)  # before the images are looked at
    count = max(config.devices, 1) if config.strategy in ("auto", "mirrored") else 1
    return Device("CPU", count, cores, cores * _CORE[precision])


def _of_jax(config: ConfigDict) -> Device:
    """The same with engine=jax, whose devices start."""
    from keras_resnet.training.jax.devices import make_mesh, resolve_precision
    from keras_resnet.training.jax.mesh import device_kind

    mesh = make_mesh(config)
    precision = resolve_precision(config, mesh).precision
    precision = "float32" if precision == "float32" else "mixed_bfloat16"
    kind, count, cores = device_kind(mesh), mesh.devices.size, _cores()
    speed = {"TPU": count * _TPU, "GPU": count * _GPU[precision], "CPU": cores * _CORE[precision]}
    return Device(kind, count, cores, speed[kind])


def _cores() -> int:
    """Of the processor, those that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return cores or 1
