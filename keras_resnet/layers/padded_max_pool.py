"""The max pool of the ImageNet stem, with the borders that frameworks put around it."""

import contextlib

import keras
from keras import ops

from keras_resnet.axes import PerAxis, frozen, per_axis

POOL_PADDINGS = ("symmetric", "same", "end")

_compiled_for_tpu = False


@contextlib.contextmanager
def compiled_for_tpu():
    """What is traced inside is for the TPU compiler, although no TPUStrategy says so."""
    global _compiled_for_tpu
    before, _compiled_for_tpu = _compiled_for_tpu, True
    try:
        yield
    finally:
        _compiled_for_tpu = before


def is_compiled_for_tpu() -> bool:
    """Whether what TensorFlow traces now will be compiled for a TPU, by its strategy or by us."""
    import tensorflow as tf

    return _compiled_for_tpu or isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)


@keras.saving.register_keras_serializable(package="keras_resnet")
class PaddedMaxPool(keras.layers.Layer):
    """Max pool with a border: by default 3 wide, stride 2, one pixel around the input.

    Without `zero_pad` the border never wins, as in PyTorch's `MaxPool(3, stride=2, padding=1)`;
    with it, it is 0, as in keras.applications. After a ReLU both are the same (and 0 is kinder to
    8-bit quantization); in a pre-activation network the stem's convolution comes straight to the
    pool. Keras' own "same" padding has the pixel on one side only for even sizes, which shifts the
    grid against every published weight file.

    TensorFlow pads by a copy of the input. On a TPU, where that copy would be the second most
    expensive instruction of ResNet-50, XLA's own windowed reduction and its gradient pad without,
    and so it is on the JAX backend, everywhere.

    Input and output: a float tensor of rank 3, 4 or 5; a spatial size n becomes ceil(n / stride),
    with the padding "end" ceil((n - pool_size) / stride) + 1.

    Args:
        zero_pad: whether the border of "symmetric" is 0.
        data_format: "channels_last" or "channels_first"; `None` takes
            `keras.config.image_data_format()`.
        pool_size: width of the window, a number or one for each spatial axis.
        strides: of the window, likewise.
        padding: "symmetric": `pool_size // 2` pixels on both sides, for odd windows; "same": that
            of Keras and TensorFlow, more of it at the end; "end": only at the end, so far as a
            window begins inside, as in Caffe and PyTorch's `ceil_mode=True`.

    Raises:
        ValueError: for an argument outside the ranges above.
    """

    def __init__(
        self,
        zero_pad: bool = False,
        data_format: str | None = None,
        *,
        pool_size: PerAxis = 3,
        strides: PerAxis = 2,
        padding: str = "symmetric",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if padding not in POOL_PADDINGS:
            raise ValueError(
                f"`padding` of a pool is one of {', '.join(POOL_PADDINGS)}; received {padding!r}."
            )
        self.zero_pad = zero_pad
        self.data_format = data_format or keras.config.image_data_format()
        self.pool_size = frozen(pool_size)
        self.strides = frozen(strides)
        self.padding = padding
        self.built = True

    def _spatial_axes(self, rank: int) -> range:
        return range(1, rank - 1) if self.data_format == "channels_last" else range(2, rank)

    def _windows(self, shape) -> dict[int, tuple[int, int, tuple[int, int]]]:
        """Spatial axis -> size and stride of its window, pixels before and after the input."""
        axes = self._spatial_axes(len(shape))
        sizes = per_axis(self.pool_size, len(axes), "pool_size")
        strides = per_axis(self.strides, len(axes), "strides")
        return {
            axis: (size, stride, self._border(shape[axis], size, stride))
            for axis, size, stride in zip(axes, sizes, strides, strict=True)
        }

    def _border(self, n: int | None, size: int, stride: int) -> tuple[int, int]:
        """Pixels before and after; those that no window reaches may be among them."""
        if self.padding == "end":
            return 0, max(stride - 1, size - n) if n is not None else stride - 1
        if self.padding == "symmetric":
            if size % 2 == 0:
                raise ValueError(
                    f"`pool_size` is {self.pool_size!r}: an even window has no middle for "
                    "symmetric padding. The paddings 'same' and 'end' take it."
                )
            return size // 2, size // 2
        if n is None:  # Keras pads
            return 0, 0
        missing = max((-(-n // stride) - 1) * stride + size - n, 0)
        return missing // 2, missing - missing // 2

    def call(self, inputs):
        return self._pool(inputs, self.zero_pad and self.padding == "symmetric")

    def largest(self, inputs):
        """As a call, with a border that never wins: every window has the largest of its pixels."""
        return self._pool(inputs, zero_pad=False)

    def _pool(self, inputs, zero_pad: bool):
        axes = self._spatial_axes(len(inputs.shape))
        if keras.backend.backend() == "tensorflow":
            sizes_are_known = all(inputs.shape[axis] for axis in axes)
            if sizes_are_known and is_compiled_for_tpu():
                # Here and not above: it loads parts of TensorFlow that nothing else needs.
                from keras_resnet.layers.tensorflow_max_pool import windowed_max_pool

                return windowed_max_pool(inputs, self._windows(inputs.shape), zero_pad)
        size = per_axis(self.pool_size, len(axes), "pool_size")
        strides = per_axis(self.strides, len(axes), "strides")
        if self.padding == "same":
            return ops.max_pool(inputs, size, strides, "same", self.data_format)
        windows = self._windows(inputs.shape)
        if keras.backend.backend() == "jax":
            from keras_resnet.layers import jax_max_pool

            return jax_max_pool.windowed_max_pool(inputs, windows, zero_pad)
        border = [windows[i][2] if i in windows else (0, 0) for i in range(len(inputs.shape))]
        padded = ops.pad(inputs, border, constant_values=0.0 if zero_pad else float("-inf"))
        return ops.max_pool(padded, size, strides, "valid", self.data_format)

    def compute_output_shape(self, input_shape):
        shape = list(input_shape)
        for axis in self._spatial_axes(len(shape)):
            if shape[axis] is not None:
                size, stride, (before, after) = self._windows(input_shape)[axis]
                shape[axis] = (shape[axis] + before + after - size) // stride + 1
        return tuple(shape)

    def get_config(self):
        return {
            **super().get_config(),
            "zero_pad": self.zero_pad,
            "data_format": self.data_format,
            "pool_size": self.pool_size,
            "strides": self.strides,
            "padding": self.padding,
        }
