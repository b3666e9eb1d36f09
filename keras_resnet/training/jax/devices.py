"""From the config keys `strategy` and `devices` to a mesh of JAX devices with one axis.

The names are those of tf.distribute's strategies, so that one config serves both engines.
"""

import contextlib
import glob
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from keras_resnet.backend import FIRST_BFLOAT16_GPU, cpu_multiplies_bfloat16
from keras_resnet.errors import UsageError, UserError
from keras_resnet.tpu_chips import chips_here
from keras_resnet.training.jax import processes
from keras_resnet.training.jax.mesh import AXIS, device_kind


def make_mesh(config: ConfigDict) -> Mesh:
    """Returns the mesh of `strategy` and `devices`, whose only axis is AXIS.

    The first call that touches JAX's devices in a process: only before its runtime starts can the
    CPU be split and the other processes be met. TensorFlow, which reads the data, keeps to the CPU.

    Raises:
        UsageError: `devices` does not fit the strategy.
        UserError: the devices or processes it needs are not there, or a process differs.
    """
    import tensorflow as tf

    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    _pass_over_absent_tpu()
    if config.xla == "off":
        raise UsageError("config.xla='off': engine=jax compiles every step; take xla=auto")
    if config.xla_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(config.xla_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    if config.deterministic:
        _add_flag("--xla_gpu_deterministic_ops=true")
    processes.check_told_as_jax_is(config)
    name = config.strategy
    if name == "auto":
        name = "multi_worker" if processes.announced(config) else _automatic()
    make, used = _MESHES[name]
    if config.devices > 1 and used:
        raise UsageError(
            f"config.devices={config.devices} is for strategy=mirrored; {name} uses {used}"
        )
    try:
        devices = make(config)
    # A TPU that another process holds, a driver that is too old; an assertion without a word, where
    # JAX_PLATFORMS names what this installation has no part for.
    except (RuntimeError, AssertionError) as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).strip().splitlines() or [f"JAX_PLATFORMS={platforms!r} gives none"]
        raise UserError(
            f"config.strategy={config.strategy!r}: JAX cannot start its devices ({reason[0]}). "
            "keras-resnet doctor says more; strategy=cpu trains on the processor"
        ) from error
    if name == "all" and devices[0].platform == "cpu" and (chips := chips_here()):
        raise UserError(
            f"this machine has a TPU ({chips}), but JAX has started on the processor: another "
            "process may hold the TPU (sudo lsof /dev/accel* /dev/vfio/*), or libtpu is missing "
            "(pip install 'keras-resnet-tpu[jax-tpu]'); config.strategy=cpu trains on the processor"
        )
    if name == "all" and jax.process_count() > 1:
        raise UserError(
            f"this is one of the {jax.process_count()} hosts of a TPU slice, which strategy=auto "
            "would let train alone: take config.strategy=tpu, in the same command on every host"
        )
    # The devices of a process are neighbors, as the parts of the global batch are.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,))


def _automatic() -> str:
    """One host of several in a slice of GKE trains with the others, which it is told of."""
    names = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")
    several = any("," in os.environ.get(name, "") for name in names)
    return "tpu" if several and chips_here() else "all"


def resolve_precision(config: ConfigDict, mesh: Mesh) -> ConfigDict:
    """Returns `config`, in place of precision=auto with what that is on the devices.

    Several processes call it at the same place.
    """
    if config.precision != "auto":
        return config
    config = config.copy_and_resolve_references()
    config.precision = "mixed_bfloat16" if is_native_everywhere(mesh) else "float32"
    return config


def is_native_everywhere(mesh: Mesh) -> bool:
    """Says whether all devices of all processes multiply bfloat16, which call it together."""
    return processes.mean(float(_multiplies_bfloat16(mesh))) == 1.0


def _multiplies_bfloat16(mesh: Mesh) -> bool:
    kind = device_kind(mesh)
    if kind == "GPU":
        capability = getattr(mesh.devices[0], "compute_capability", "0.0")
        return tuple(int(part) for part in str(capability).split(".")) >= FIRST_BFLOAT16_GPU
    return kind == "TPU" or (kind == "CPU" and cpu_multiplies_bfloat16())


def _pass_over_absent_tpu() -> None:
    """Keeps libtpu, where it is there for preflight alone, from looking for a TPU for seconds."""
    is_there = importlib.util.find_spec("libtpu") and not importlib.util.find_spec("jax_plugins")
    devices = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/*")
    if is_there and not devices and not os.environ.get("JAX_PLATFORMS"):
        _before_start("jax_platforms", "cpu")


def _add_flag(flag: str) -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    if flag.partition("=")[0] not in flags:  # the user's own comes first
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()


def _cpu(config: ConfigDict) -> list[Any]:
    _before_start("jax_platforms", "cpu")
    return jax.devices("cpu")[:1]


def _one_device(config: ConfigDict) -> list[Any]:
    return jax.local_devices()[:1]


def _mirrored(config: ConfigDict) -> list[Any]:
    _before_start("jax_num_cpu_devices", config.devices)
    devices, count = jax.local_devices(), config.devices
    if count > len(devices):
        kind = devices[0].platform.upper()
        if kind == "CPU":
            raise UserError(
                f"config.devices={count}: JAX has started with {len(devices)} logical CPUs in this "
                "process, and they cannot be split any more; set it in a new one"
            )
        raise UserError(f"config.devices={count}: this machine has {len(devices)} {kind}s")
    return devices[: count or None]


def _all(config: ConfigDict) -> list[Any]:
    return _one_device(config) if config.devices == 1 else _mirrored(config)


def _multi_worker(config: ConfigDict) -> list[Any]:
    processes.join(config)
    return jax.devices()


def _tpu(config: ConfigDict) -> list[Any]:
    processes.join_pod(config)
    if jax.default_backend() != "tpu":
        raise UserError(
            f"strategy=tpu: JAX finds no TPU here, only {jax.default_backend()}; on a TPU VM "
            "install keras-resnet-tpu[jax-tpu], elsewhere take strategy=auto"
        )
    return jax.devices()


def _before_start(option: str, value: Any) -> None:
    """Sets an option that JAX reads when it starts; it has no effect any more afterwards."""
    if not value:
        return
    with contextlib.suppress(RuntimeError):  # it runs; who asks for too many devices is told
        jax.config.update(option, value)


# Strategy -> (its devices, which those are in words; "" where config.devices says which).
_MESHES: dict[str, tuple[Callable[[ConfigDict], list[Any]], str]] = {
    "all": (_all, ""),
    "cpu": (_cpu, "one"),
    "one_device": (_one_device, "one"),
    "mirrored": (_mirrored, ""),
    "multi_worker": (_multi_worker, "all devices of each process"),
    "tpu": (_tpu, "all chips"),
}
