"""From the config key `strategy` to a `tf.distribute.Strategy`."""

import os
from collections.abc import Callable

import tensorflow as tf

from keras_resnet.errors import UserError


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Returns the strategy called `name`; "auto" takes TPU, else all GPUs, else one, else the CPU.

    Raises:
      UserError: the devices it needs are not there.
    """
    if name == "auto":
        name = _best_available()
    return STRATEGIES[name]()


def describe(strategy: tf.distribute.Strategy) -> str:
    """Returns the strategy and its devices in words, for example "OneDeviceStrategy on CPU"."""
    replicas = strategy.num_replicas_in_sync
    kind = device_kind(strategy)
    return f"{type(strategy).__name__} on {f'{replicas} × ' if replicas > 1 else ''}{kind}"


def device_kind(strategy: tf.distribute.Strategy) -> str:
    """Returns "TPU", "GPU" or "CPU": what the replicas compute on."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return "TPU"
    return tf.DeviceSpec.from_string(strategy.extended.worker_devices[0]).device_type


def _best_available() -> str:
    # A TPU cannot be listed before it is initialised; the variable is how a TPU VM announces it.
    if os.environ.get("TPU_NAME"):
        return "tpu"
    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one_device"


def _cpu() -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def _one_device() -> tf.distribute.Strategy:
    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


def _mirrored() -> tf.distribute.Strategy:
    gpus = tf.config.list_logical_devices("GPU")
    # Without GPUs: every logical CPU, of which a test or a laptop can configure several. Collective
    # operations, the default, cannot serve groups of two sizes in one process on CPU.
    devices = gpus or tf.config.list_logical_devices("CPU")
    reduce = None if gpus else tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(
        [device.name for device in devices], cross_device_ops=reduce
    )


def _tpu() -> tf.distribute.Strategy:
    address = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"strategy=tpu: no TPU at TPU_NAME={address!r} ({reason}); on a TPU VM install "
            "keras-resnet-tpu[tpu] and set TPU_NAME=local, elsewhere take strategy=auto"
        ) from error


STRATEGIES: dict[str, Callable[[], tf.distribute.Strategy]] = {
    "cpu": _cpu,
    "one_device": _one_device,
    "mirrored": _mirrored,
    "tpu": _tpu,
}
