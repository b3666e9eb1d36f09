"""Over which axis of a mesh the replicas of a training step stand, for the layers that ask (JAX).

`tf.distribute` tells a layer by itself on which replica it runs. Inside `jax.shard_map` nothing
but the axis' name leads to the other replicas, so whoever traces a step there says it.
"""

import contextlib
import contextvars
from collections.abc import Iterator

_axis: contextvars.ContextVar[str | None] = contextvars.ContextVar("replica_axis", default=None)


@contextlib.contextmanager
def replica_axis(name: str | None) -> Iterator[None]:
    """What is traced inside runs on one replica of several, along the axis `name`.

    Enter it in the function that `jax.shard_map` maps, or around the call that traces it. The step
    that was traced keeps to it. It holds for the thread (or task) that entered it. The gradient of
    a sum over replicas is taken to be the sum of the replicas' gradients, as it is with
    `jax.shard_map(..., check_vma=False)`.

    Args:
        name: of an axis that `jax.shard_map` maps; `None` where there are no replicas, also inside
            another `replica_axis`.
    """
    token = _axis.set(name)
    try:
        yield
    finally:
        _axis.reset(token)


def current_replica_axis() -> str | None:
    """The axis of the innermost `replica_axis`, or `None` outside of any."""
    return _axis.get()
