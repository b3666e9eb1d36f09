"""Strided 1×1 convolutions that pick their pixels first, for few input channels."""

import keras
from keras import ops


def pick_pixels(inputs, strides, data_format: str):
    """Every `strides`-th pixel along each spatial axis: all that a 1×1 convolution looks at."""
    steps = [slice(None, None, stride) for stride in strides]
    if data_format == "channels_last":
        return inputs[(slice(None), *steps)]
    return inputs[(slice(None), slice(None), *steps)]


def corrupts_memory(kernel_size, strides, channels: int) -> bool:
    """Whether TensorFlow must not compute the gradient of a convolution's kernel.

    On processors with AVX-512 oneDNN, as of TensorFlow 2.21, writes beyond the end of an array
    there, if a strided 1×1 convolution of images or sequences has fewer than 16 input channels: 24
    of 104 shapes tried ended the process. With the pixels picked before, none did.
    """
    return max(kernel_size) == 1 < max(strides) and channels < 16 and len(strides) < 3


class _Subsampling(keras.layers.Layer):
    def convolution_op(self, inputs, kernel):
        return ops.conv(
            pick_pixels(inputs, self.strides, self.data_format),
            kernel,
            strides=1,
            padding="valid",
            data_format=self.data_format,
        )


_EXPLANATION = """Keras' `Conv{rank}D` of kernel size 1 with strides, as a subsampling before it.

    The same function and the same variables; see `corrupts_memory` for why. Arguments are those of
    `keras.layers.Conv{rank}D`.
    """


@keras.saving.register_keras_serializable(package="keras_resnet")
class SubsamplingConv1D(_Subsampling, keras.layers.Conv1D):
    __doc__ = _EXPLANATION.format(rank=1)


@keras.saving.register_keras_serializable(package="keras_resnet")
class SubsamplingConv2D(_Subsampling, keras.layers.Conv2D):
    __doc__ = _EXPLANATION.format(rank=2)


SUBSAMPLING_CONVOLUTIONS = {1: SubsamplingConv1D, 2: SubsamplingConv2D}
