"""The mesh that a step runs on: one axis over all devices, and how things lie on it.

It and the step that uses it know no TensorFlow, so that preflight can compile them beside libtpu.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_resnet.layers.replicas import replica_axis

AXIS = "data"
EVERYWHERE = PartitionSpec()


def describe(mesh: Mesh) -> str:
    """Returns the devices in words, for example "JAX on 8 × TPU v5 lite in 2 processes"."""
    device, count = mesh.devices[0], mesh.devices.size
    kind = "CPU" if device.platform == "cpu" else device.device_kind
    hosts = jax.process_count()
    text = f"JAX on {f'{count} × ' if count > 1 else ''}{kind}"
    return f"{text} in {hosts} processes" if hosts > 1 else text


def device_kind(mesh: Mesh) -> str:
    """Returns "TPU", "GPU" or "CPU": what the replicas compute on."""
    return mesh.devices[0].platform.upper()


def over_examples(parts: int) -> PartitionSpec:
    """Returns how the arrays of a batch are split; in several parts their second axis is."""
    return PartitionSpec(None, AXIS) if parts > 1 else PartitionSpec(AXIS)


def split_over(mesh: Mesh, parts: int = 1) -> NamedSharding:
    """Returns how a batch of so many parts lies on the devices."""
    return NamedSharding(mesh, over_examples(parts))


def on_all(mesh: Mesh, step: Callable, specs: tuple, **options: Any) -> Any:
    """Compiles what a replica does; what it returns is the same on all of them.

    Args:
        mesh: of the replicas.
        step: of one of them, on its own part of the arguments.
        specs: how each argument lies on the devices.
        **options: of `jax.jit`.
    """

    def traced(*args):
        with replica_axis(AXIS):
            return step(*args)

    mapped = jax.shard_map(traced, mesh=mesh, in_specs=specs, out_specs=EVERYWHERE, check_vma=False)
    return jax.jit(mapped, **options)
