"""What `gram.py` needs of JAX. Only imported on that backend."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class JaxArithmetic:
    """Products and sums over all axes but the last; see `gram.py`."""

    sums_by_products: bool = False

    custom_gradient = staticmethod(jax.custom_gradient)

    def gram(self, a: Any, b: Any) -> Any:
        """a'b in float32: [C, D] of [..., C] and [..., D]."""
        axes = tuple(range(a.ndim - 1))
        precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
        return jax.lax.dot_general(
            a, b, ((axes, axes), ((), ())), precision, preferred_element_type=jnp.float32
        )

    def column_sums(self, a: Any) -> Any:
        """Sums of what may be computed on the way, float32[C]."""
        if not self.sums_by_products:
            return self.plain_sums(a)
        # 8 of them, the height of a tile: the matrix unit has the time that the vector unit lacks.
        ones = jnp.broadcast_to(jnp.ones((), a.dtype), (*a.shape[:-1], 8))
        return self.gram(a, ones)[:, 0]

    def plain_sums(self, a: Any) -> Any:
        return a.astype(jnp.float32).sum(tuple(range(a.ndim - 1)))

    def count(self, a: Any) -> float:
        """How many rows there are."""
        return float(math.prod(a.shape[:-1]))

    def product(self, a: Any, matrix: Any) -> Any:
        """a times a matrix that is rounded to its type, [..., D], as a 1×1 convolution."""
        space = "DHW"[5 - a.ndim :]
        kernel = matrix.astype(a.dtype).reshape((1,) * len(space) + matrix.shape)
        layout = (f"N{space}C", f"{space}IO", f"N{space}C")
        return jax.lax.conv_general_dilated(
            a, kernel, (1,) * len(space), "VALID", dimension_numbers=layout
        )

    def spread(self, a: Any, strides: tuple[int, ...], like: Any) -> Any:
        """Zeros of a shape with `a` at every so many pixels: the gradient of picking them."""
        edges = [(0, 0, 0)]
        for size, stride, wanted in zip(a.shape[1:-1], strides, like.shape[1:-1], strict=True):
            edges.append((0, wanted - (size - 1) * stride - 1, stride - 1))
        return jax.lax.pad(a, np.zeros((), a.dtype), [*edges, (0, 0, 0)])

    def exact(self, a: Any, b: Any) -> Any:
        """Product of small matrices in float32 proper."""
        return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)

    def over_replicas(self, values: tuple, replicas: Any) -> tuple:
        return values if replicas is None else jax.lax.psum(values, replicas)
