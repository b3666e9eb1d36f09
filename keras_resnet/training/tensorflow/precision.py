"""What `precision=auto` comes to: bfloat16 where the device multiplies it natively.

Elsewhere it is emulated and slower than float32.
"""

import os

import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet.backend import FIRST_BFLOAT16_GPU, cpu_multiplies_bfloat16
from keras_resnet.training.tensorflow import hosts
from keras_resnet.training.tensorflow.strategy import device_kind


def resolve_precision(config: ConfigDict, strategy: tf.distribute.Strategy) -> ConfigDict:
    """Returns `config`, in place of precision=auto with what that is on all devices of all hosts.

    Several hosts call it at the same place.
    """
    if config.precision != "auto":
        return config
    config = config.copy_and_resolve_references()
    config.precision = "mixed_bfloat16" if is_native_everywhere(strategy) else "float32"
    return config


def is_native_everywhere(strategy: tf.distribute.Strategy) -> bool:
    """Says whether all devices of all hosts multiply bfloat16; they call it at the same place."""
    native = multiplies_bfloat16(device_kind(strategy))
    return hosts.mean(strategy, float(native)) == 1.0


def multiplies_bfloat16(kind: str) -> bool:
    """Says whether the devices of this host multiply bfloat16 natively.

    Args:
        kind: "TPU", "GPU" or "CPU", of which a CPU does with AMX.
    """
    if kind == "TPU":
        return True
    if kind == "CPU":
        return cpu_multiplies_bfloat16()
    gpus = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    # Where TensorFlow does not know (GPUs of other makers) float32 is safe.
    return all(entry.get("compute_capability", (0, 0)) >= FIRST_BFLOAT16_GPU for entry in details)


def precision_here(config: ConfigDict) -> str:
    """Returns the precision of `config` on the fastest devices of this machine."""
    if config.precision != "auto":
        return config.precision
    gpu = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    kind = "TPU" if os.environ.get("TPU_NAME") else gpu
    return "mixed_bfloat16" if multiplies_bfloat16(kind) else "float32"
