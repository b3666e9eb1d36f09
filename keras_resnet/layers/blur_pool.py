"""A low-pass filter where an anti-aliased network strides (Zhang 2019)."""

import math

import keras
import numpy as np
from keras import ops

from keras_resnet.axes import PerAxis, frozen, per_axis

BLUR_PADDINGS = ("symmetric", "same")


@keras.saving.register_keras_serializable(package="keras_resnet")
class BlurPool(keras.layers.Layer):
    """Blur each channel with a binomial filter, then subsample.

    Zhang, "Making Convolutional Networks Shift-Invariant Again" (2019), section 3.2; timm's
    `BlurPool2d`. With a stride of 2 the filter is [1, 2, 1] / 4 along each axis, for a stride of s
    it has 2s - 1 taps. Around the input are its own pixels, mirrored without the outermost
    ("reflect"). There are no variables: it is a depthwise convolution with a constant kernel, in
    3-D and where strides differ a weighted sum of shifted inputs along each axis.

    Input and output: a float tensor of rank 3, 4 or 5; a spatial size n becomes ceil(n / stride).

    Args:
        strides: positive integer, or one for each spatial axis; an axis of stride 1 is blurred
            only if `size` says so.
        size: taps of the filter, odd, likewise; None as above.
        padding: "symmetric": `size // 2` pixels on both sides; "same": that of Keras and
            TensorFlow, which has fewer of them before the input where the stride divides its size.
        data_format: "channels_last" or "channels_first"; None takes
            `keras.config.image_data_format()`.

    Raises:
        ValueError: for an argument outside the ranges above, or an input of fewer than
            `size // 2 + 1` pixels, which have no mirror image.
    """

    def __init__(
        self,
        strides: PerAxis = 2,
        size: PerAxis | None = None,
        padding: str = "symmetric",
        data_format: str | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if padding not in BLUR_PADDINGS:
            raise ValueError(
                f"`padding` of a BlurPool is one of {', '.join(BLUR_PADDINGS)}; received "
                f"{padding!r}."
            )
        self.strides = frozen(strides)
        self.size = frozen(size)
        self.padding = padding
        self.data_format = data_format or keras.config.image_data_format()
        self.built = True

    def _filters(self, rank: int) -> list[tuple[int, int, int]]:
        """Axis, stride and taps of each spatial axis of a tensor of that rank."""
        last = self.data_format == "channels_last"
        axes = range(1, rank - 1) if last else range(2, rank)
        strides = per_axis(self.strides, len(axes), "strides")
        sizes = tuple(2 * stride - 1 for stride in strides)
        if self.size is not None:
            sizes = per_axis(self.size, len(axes), "size")
        if any(size % 2 == 0 for size in sizes):
            raise ValueError(f"`size` of a BlurPool must be odd, received {self.size!r}.")
        return list(zip(axes, strides, sizes, strict=True))

    def _border(self, n: int, stride: int, size: int) -> tuple[int, int]:
        """Pixels before and after an axis of `n`, as far as windows reach."""
        reach = (-(-n // stride) - 1) * stride + size - n  # of all windows, over both ends
        before = size // 2 if self.padding == "symmetric" else max(reach, 0) // 2
        return before, max(reach - before, 0)

    def _check(self, shape) -> None:
        for axis, _, size in self._filters(len(shape)):
            n, least = shape[axis], size // 2 + 1
            if n is not None and n < least:
                raise ValueError(
                    f"{self.name!r} mirrors {size // 2} of the pixels at each border, for which "
                    f"an axis needs at least {least}; received the shape {tuple(shape)}. Take "
                    "larger inputs, or a network without anti-aliasing or with "
                    "antialias='average'."
                )

    def call(self, inputs, training=None):
        self._check(inputs.shape)
        filters = [each for each in self._filters(len(inputs.shape)) if each[1:] != (1, 1)]
        # The outermost first: it has the longest runs of memory to copy, and fewer of them.
        for axis, stride, size in reversed(filters):
            inputs = self._padded(inputs, axis, stride, size)
        return self._filtered(inputs, training)

    def _padded(self, x, axis: int, stride: int, size: int):
        n = x.shape[axis]
        # A size that is open is padded in full, and the windows begin later.
        before, after = (size // 2, size // 2) if n is None else self._border(n, stride, size)
        parts = [_cut(x, axis, i, i + 1) for i in range(before, 0, -1)]
        parts += [x, *(_cut(x, axis, -i - 1, -i) for i in range(1, after + 1))]
        x = ops.concatenate(parts, axis) if len(parts) > 1 else x
        if n is None and self.padding == "same":
            n = ops.shape(x)[axis] - before - after
            reach = (-(-n // stride) - 1) * stride + size - n
            x = _cut(x, axis, before - reach // 2, None)
        return x

    def _filtered(self, x, training):
        """The windows of a padded tensor."""
        filters = self._filters(len(x.shape))
        strides = [stride for _, stride, _ in filters]
        taps = [_binomial(size) for _, _, size in filters]
        if len(filters) > 2 or len(set(strides)) > 1:
            for (axis, stride, _), weights in zip(filters, taps, strict=True):
                x = _sum_of_shifts(x, axis, stride, weights)
            return x
        channels = x.shape[-1 if self.data_format == "channels_last" else 1]
        kernel = taps[0] if len(taps) == 1 else np.multiply.outer(*taps)
        kernel = np.broadcast_to(kernel[..., None, None], (*kernel.shape, channels, 1))
        kernel = ops.convert_to_tensor(kernel, x.dtype)
        if training and keras.backend.backend() == "tensorflow":
            from keras_resnet.layers import tensorflow_blur_pool as own

            if self.data_format == "channels_last" and own.has_slow_gradient(x):
                return own.depthwise_conv(x, kernel, strides[0])
        return ops.depthwise_conv(x, kernel, strides[0], "valid", self.data_format)

    def compute_output_shape(self, input_shape):
        self._check(input_shape)
        shape = list(input_shape)
        for axis, stride, _ in self._filters(len(shape)):
            if shape[axis] is not None:
                shape[axis] = -(-shape[axis] // stride)
        return tuple(shape)

    def multiply_adds(self, output_shape) -> int:
        """Multiplications, each with its addition, for an output of that shape."""
        taps = math.prod(size for _, _, size in self._filters(len(output_shape)))
        return math.prod(output_shape) * taps

    def get_config(self):
        return {
            **super().get_config(),
            "strides": self.strides,
            "size": self.size,
            "padding": self.padding,
            "data_format": self.data_format,
        }


def _binomial(size: int) -> np.ndarray:
    """Row `size` of Pascal's triangle, with the sum 1: exact in 16 bits for up to 9 taps."""
    row = [math.comb(size - 1, k) for k in range(size)]
    return np.array(row, "float32") / 2 ** (size - 1)


def _cut(x, axis: int, start, stop, step: int | None = None):
    """A slice of one axis."""
    return x[(*(slice(None),) * axis, slice(start, stop, step))]


def _sum_of_shifts(x, axis: int, stride: int, weights: np.ndarray):
    if len(weights) == 1:
        return x if stride == 1 else _cut(x, axis, None, None, stride)
    last = len(weights) - 1
    first, *rest = (
        float(weight) * _cut(x, axis, i, i - last or None, stride)
        for i, weight in enumerate(weights)
    )
    return sum(rest, first)
