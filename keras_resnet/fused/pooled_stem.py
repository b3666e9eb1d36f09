"""The stem's pool before its normalization: a quarter of the pixels to normalize.

The maximum commutes with every map that does not decrease, so with x -> relu(x * scale + shift)
where the scale is not negative. Where it is, the kernel's and gamma's signs are turned, which
leaves their product. Statistics are those of all pixels, as ever.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_resnet.layers import BatchNormalization, PaddedMaxPool


@dataclasses.dataclass(frozen=True)
class PooledStem:
    """Convolution, normalization, ReLU and pool of a stem; callable with the value of its input.

    Attributes:
        border: the zero padding before the convolution that blocks of pixels take along, if any.
        conv, norm, pool: the layers.
        blocks: the convolution takes blocks of pixels as channels (JAX).
    """

    border: keras.layers.Layer | None
    conv: keras.layers.Layer
    norm: BatchNormalization
    pool: PaddedMaxPool
    blocks: bool

    def __call__(self, values: Sequence[Any]) -> Any:
        (x,) = values
        gamma, beta = self.norm.scale_and_offset()
        sign = ops.stop_gradient(ops.where(gamma >= 0, 1.0, -1.0))
        raw = self._convolve(x, ops.cast(self.conv.kernel, "float32") * sign)
        shift = ops.cast(self.norm.moving_mean, "float32") * sign
        mean, variance, count = self.norm.batch_moments(raw, shift)
        self.norm.take_batch_statistics(mean * sign, variance, count)
        scale = gamma * sign * ops.rsqrt(variance + self.norm.epsilon)
        pooled = self.pool.largest(raw)
        z = ops.cast(pooled, "float32") * scale + (beta - mean * scale)
        return ops.relu(ops.cast(z, self.norm.compute_dtype))

    def _convolve(self, x: Any, kernel: Any) -> Any:
        conv = self.conv
        x, kernel = (ops.cast(value, conv.compute_dtype) for value in (x, kernel))
        if self.blocks and self.border is not None and len(conv.strides) == 2:
            pads = [before for before, _ in self.border.padding]
            if x.shape[-1] <= 4 and self.border.padding == tuple((pad, pad) for pad in pads):
                from keras_resnet.layers.jax_blocked_conv import blocked_conv

                return blocked_conv(x, kernel, conv.strides, pads)
        if self.border is not None:
            x = self.border(x)
        return conv.convolution_op(x, kernel)
