"""Sums of many arrays over the devices, in parts of one size that can go on behind computation."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

# libtpu sums single arrays of up to some megabytes behind computation. Larger ones, and what it
# puts together itself, are waited for: 85 of the 102 MB of ResNet-50's gradients, summed as they
# come (docs/tpu.md). A kernel of 512 times 2,048 is one part.
PART_BYTES = 4 << 20

# Options of the compiler by JAX's name of a device. Without these libtpu sums everything at the
# end, and waits. The last one keeps it from putting parts together. Libtpu refuses them for v4, v5p
# and TPU7x ("not supported/recommended on platforms other than TPU v5e").
OVERLAP = {
    "TPU v5 lite": {
        "xla_tpu_enable_async_collective_fusion": True,
        "xla_tpu_enable_async_collective_fusion_fuse_all_reduce": True,
        "xla_enable_async_all_reduce": True,
        "xla_jf_crs_combiner_threshold_in_bytes": 1 << 20,
    }
}


def sum_in_parts(arrays: Sequence[Any], axis: str, part_bytes: int = PART_BYTES) -> list[Any]:
    """The sum of each array over an axis of `jax.shard_map`.

    The same numbers as of `jax.lax.psum`. Large arrays are summed in slices; small ones are put
    together, from the last to the first, as a backward pass makes them.

    Args:
        arrays: of any shapes and types.
        axis: its name.
        part_bytes: the largest part.
    """
    summed: list[Any] = [None] * len(arrays)
    waiting: list[int] = []

    def send() -> None:
        for place, value in zip(
            waiting, _together([arrays[i] for i in waiting], axis), strict=True
        ):
            summed[place] = value
        waiting.clear()

    for place in reversed(range(len(arrays))):
        array = arrays[place]
        if array.nbytes > part_bytes:
            summed[place] = _in_slices(array, axis, part_bytes)
            continue
        total = array.nbytes + sum(arrays[i].nbytes for i in waiting)
        if waiting and (total > part_bytes or arrays[waiting[0]].dtype != array.dtype):
            send()
        waiting.append(place)
    send()
    return summed


def _together(arrays: Sequence[Any], axis: str) -> list[Any]:
    if len(arrays) < 2:
        return [jax.lax.psum(array, axis) for array in arrays]
    flat = jax.lax.psum(jnp.concatenate([array.reshape(-1) for array in arrays]), axis)
    parts = jnp.split(flat, list(itertools.accumulate(array.size for array in arrays))[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


def _in_slices(array: Any, axis: str, part_bytes: int) -> Any:
    count = math.ceil(array.nbytes / part_bytes)
    along = next((i for i, size in enumerate(array.shape) if size >= count), None)
    if along is None:  # no axis is as long
        return jax.lax.psum(array, axis)
    parts = jnp.array_split(array, count, along)
    return jnp.concatenate([jax.lax.psum(part, axis) for part in parts], along)
