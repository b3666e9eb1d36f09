"""The max pool of the ImageNet stem: three wide, stride 2, a border of one."""

import contextlib

import keras
from keras import ops

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


def _on_tpu() -> bool:
    """Whether what TensorFlow traces now will be compiled for a TPU by its strategy."""
    import tensorflow as tf

    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)


@keras.saving.register_keras_serializable(package="keras_resnet")
class PaddedMaxPool(keras.layers.Layer):
    """Max pool of 3 with stride 2 over an input with one pixel around it.

    Without `zero_pad` the pixel never wins, as in PyTorch's `MaxPool(3, stride=2, padding=1)`;
    with it, it is 0, as in keras.applications. After a ReLU both are the same (and 0 is kinder to
    8-bit quantization); in a pre-activation network the stem's convolution comes straight to the
    pool. Keras' own "same" padding has the pixel on one side only for even sizes, which shifts the
    grid against every published weight file.

    TensorFlow pads by a copy of the input. On a TPU, where that copy would be the second most
    expensive instruction of ResNet-50, XLA's own windowed reduction and its gradient pad without.

    Input and output: a float tensor of rank 3, 4 or 5; a spatial size n becomes ceil(n / 2).

    Args:
        zero_pad: whether the border is 0.
        data_format: "channels_last" or "channels_first"; `None` takes
            `keras.config.image_data_format()`.
    """

    def __init__(self, zero_pad: bool = False, data_format: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.zero_pad = zero_pad
        self.data_format = data_format or keras.config.image_data_format()
        self.built = True

    def _spatial_axes(self, rank: int) -> range:
        return range(1, rank - 1) if self.data_format == "channels_last" else range(2, rank)

    def call(self, inputs):
        rank = len(inputs.shape)
        axes = self._spatial_axes(rank)
        if keras.backend.backend() == "tensorflow":
            sizes_are_known = all(inputs.shape[axis] for axis in axes)
            if sizes_are_known and (_compiled_for_tpu or _on_tpu()):
                # Here and not above: it loads parts of TensorFlow that nothing else needs.
                from keras_resnet.layers.tensorflow_max_pool import windowed_max_pool

                return windowed_max_pool(inputs, axes, self.zero_pad)
        border = [(1, 1) if i in axes else (0, 0) for i in range(rank)]
        value = 0.0 if self.zero_pad else float("-inf")
        padded = ops.pad(inputs, border, constant_values=value)
        return ops.max_pool(padded, 3, strides=2, data_format=self.data_format)

    def compute_output_shape(self, input_shape):
        axes = self._spatial_axes(len(input_shape))
        return tuple(
            (size + 1) // 2 if i in axes and size is not None else size
            for i, size in enumerate(input_shape)
        )

    def get_config(self):
        return {
            **super().get_config(),
            "zero_pad": self.zero_pad,
            "data_format": self.data_format,
        }
