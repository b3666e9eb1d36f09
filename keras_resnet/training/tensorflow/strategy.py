"""From the config key `strategy` to a `tf.distribute.Strategy`."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet.errors import UsageError, UserError
from keras_resnet.training.cohort import refuse_what_jax_is_told, told_to_jax
from keras_resnet.training.introduction import introduction_of
from keras_resnet.training.tensorflow import cluster, meeting
from keras_resnet.training.workdir import WorkDir


def make_strategy(
    name: str,
    devices: int = 0,
    connect_timeout: float = 300.0,
    introduction: Callable[[], Mapping[str, Any]] = dict,
) -> tf.distribute.Strategy:
    """Returns the strategy called `name`; "auto" takes what `STRATEGIES` can use best.

    Args:
        name: auto or a key of `STRATEGIES`.
        devices: number of GPUs for mirrored, or of logical CPUs into which the CPU is split where
            there are none; 0 takes what there is.
        connect_timeout: seconds that multi_worker waits for the other hosts.
        introduction: gives what must be the same on every host of multi_worker, by name; called
            only where there are several.

    Raises:
        UsageError: `devices` does not fit the strategy.
        UserError: the devices or hosts it needs are not there, or a host differs.
    """
    if name == "auto":
        name = _best_available(devices)
    make, used = STRATEGIES[name]
    if devices > 1 and used:
        raise UsageError(f"config.devices={devices} is for strategy=mirrored; {name} uses {used}")
    return make(devices, connect_timeout, introduction)


def strategy_of(config: ConfigDict) -> tf.distribute.Strategy:
    """Returns the strategy of `strategy`, `devices` and `connect_timeout`; hosts compare `config`.

    The first call that touches TensorFlow's devices in a process: only before its runtime starts
    can the CPU be split and XLA's cache (`xla_cache`) be set.
    """
    if config.xla_cache:
        _keep_compiled_code(config.xla_cache)
    return make_strategy(
        config.strategy,
        config.devices,
        config.connect_timeout,
        lambda: introduction_of(config),
    )


def check_pod(config: ConfigDict, workdir: str | os.PathLike) -> None:
    """Refuses a run on several hosts of a TPU that needs what only one of them has.

    One process drives a pod, but every worker reads data and writes checkpoints by itself. A pod is
    announced by TPU_NAME: "local" is the TPU of this host.

    Raises:
        UserError: the work directory or the data are not in a bucket, or the workers would have to
            ask this host for images (a cache) or to run Python (data.on_error=skip,
            data.sampler=balanced).
    """
    name, data = os.environ.get("TPU_NAME", "local"), config.data
    if name in ("", "local") or config.strategy not in ("auto", "tpu"):
        return
    local = "If it is the TPU of this one host, set TPU_NAME=local"
    paths = {"--workdir": str(workdir)}
    if data.source != "synthetic":
        paths["config.data.path"] = data.path
    for key, path in paths.items():
        if not path.startswith("gs://"):
            raise UserError(
                f"TPU_NAME={name!r} is a pod: {key}={path!r} must be in gs://, as its workers have "
                f"no common disk. {local}"
            )
    # "auto" may come to hold the images in the memory of this host.
    needs = (
        ("cache", data.cache, "none"),
        ("on_error", data.on_error, "stop"),
        ("sampler", data.sampler, "shuffle"),
    )
    for key, value, needed in needs:
        if value != needed and data.source != "synthetic":
            raise UserError(
                f"TPU_NAME={name!r} is a pod: config.data.{key}={value!r} must be {needed!r}, as "
                f"all its workers would depend on what this host holds. {local}"
            )


def check_told_as_tensorflow_is(config: ConfigDict, workdir: str | os.PathLike) -> None:
    """Refuses a new run that is told of other processes in JAX's way only.

    What was begun on JAX may go on here: its config.json still has the keys.

    Raises:
        UsageError: each process would train everything by itself.
    """
    if not told_to_jax(config) or cluster.announced() or WorkDir(workdir).is_begun():
        return
    refuse_what_jax_is_told(
        config,
        "engine=tensorflow is not told of other processes by this; set config.engine=jax, or "
        f"TF_CONFIG='{cluster.EXAMPLE}' on every host",
    )


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


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """True for the one process of a run that writes its files."""
    resolver = strategy.cluster_resolver
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or resolver is None:
        return True
    kind, index = resolver.task_type, resolver.task_id
    has_chief = "chief" in resolver.cluster_spec().jobs
    return kind == "chief" or (kind in (None, "worker") and not has_chief and not index)


def _best_available(devices: int) -> str:
    if cluster.announced():
        return "multi_worker"
    # A TPU cannot be listed before it is initialized; the variable is how a TPU VM announces it.
    if os.environ.get("TPU_NAME"):
        return "tpu"
    gpus = len(tf.config.list_physical_devices("GPU"))
    return "mirrored" if devices > 1 or (gpus > 1 and devices != 1) else "one_device"


def _cpu(*_) -> tf.distribute.Strategy:
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def _one_device(*_) -> tf.distribute.Strategy:
    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.OneDeviceStrategy("/gpu:0" if gpus else "/cpu:0")


def _mirrored(devices: int, *_) -> tf.distribute.Strategy:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if devices > len(gpus):
            raise UserError(f"config.devices={devices}: this machine has {len(gpus)} GPUs")
        names = [device.name for device in tf.config.list_logical_devices("GPU")]
        return tf.distribute.MirroredStrategy(names[: devices or None])
    _split_cpu(devices)
    # Without GPUs: logical CPUs. Collective operations, the default, cannot serve groups of two
    # sizes in one process on CPU.
    names = [device.name for device in tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(
        names[: devices or None], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def _split_cpu(devices: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    parts = tf.config.get_logical_device_configuration(cpu) or [None]
    if devices <= len(parts):
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * devices
        )
    except RuntimeError as error:
        raise UserError(
            f"config.devices={devices}: TensorFlow has started with {len(parts)} logical CPUs in "
            "this process, and they cannot be split any more; set it in a new one"
        ) from error


def _multi_worker(
    _, connect_timeout: float, introduction: Callable[[], Mapping[str, Any]]
) -> tf.distribute.Strategy:
    hosts = cluster.resolve()
    if len(hosts.addresses) > 1:
        meeting.wait_for_hosts(hosts, connect_timeout, introduction())
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        # The hosts have equally many full batches. Not to be asked before each batch whether all
        # have one saves a collective, and keeps the static shape of batches (mixing needs it).
        strategy.extended.experimental_enable_get_next_as_optional = False
        return strategy
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"strategy=multi_worker: {hosts.addresses[hosts.index]} could not join "
            f"{', '.join(hosts.addresses)} ({reason})"
        ) from error


def _tpu(*_) -> tf.distribute.Strategy:
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


def _keep_compiled_code(folder: str) -> None:
    flag = f"--tf_xla_persistent_cache_directory={os.path.abspath(os.path.expanduser(folder))}"
    os.makedirs(folder, exist_ok=True)
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if "--tf_xla_persistent_cache_directory" not in flags:  # the user's own comes first
        os.environ["TF_XLA_FLAGS"] = f"{flags} {flag}".strip()


# Name -> (what makes it of the further arguments of `make_strategy`, the devices it takes in words;
# "" where config.devices says which).
STRATEGIES: dict[str, tuple[Callable[..., tf.distribute.Strategy], str]] = {
    "cpu": (_cpu, "one"),
    "one_device": (_one_device, "one"),
    "mirrored": (_mirrored, ""),
    "multi_worker": (_multi_worker, "all GPUs of each host, else its CPU"),
    "tpu": (_tpu, "all cores"),
}
