"""Convolutions whose kernels are standardized: zero mean and unit variance for each filter."""

from typing import Any

import keras
from keras import ops

from keras_resnet.layers.subsampling_conv import corrupts_memory, pick_pixels


class _Standardized(keras.layers.Layer):
    """What the three convolutions share; they are Keras' own in everything else."""

    def __init__(self, *args: Any, epsilon: float = 1e-8, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.padding == "causal":
            raise ValueError(
                f"{type(self).__name__} knows the paddings 'valid' and 'same', received 'causal'."
            )
        self.epsilon = epsilon

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        if kwargs.get("name") == "kernel":
            kwargs["autocast"] = False  # 16 bits are too few for statistics
        return super().add_weight(*args, **kwargs)

    def standardized_kernel(self):
        """The kernel that the layer convolves with: a tensor of the variable's shape, float32."""
        kernel = ops.cast(self.kernel, keras.backend.result_type(self.kernel.dtype, "float32"))
        mean, variance = ops.moments(kernel, list(range(len(kernel.shape) - 1)), keepdims=True)
        return (kernel - mean) * ops.rsqrt(variance + self.epsilon)

    def call(self, inputs):
        strides = self.strides
        if corrupts_memory(self.kernel_size, strides, self.kernel.shape[-2] * self.groups):
            inputs, strides = pick_pixels(inputs, strides, self.data_format), [1] * len(strides)
        outputs = ops.conv(
            inputs,
            ops.cast(self.standardized_kernel(), self.compute_dtype),
            strides=list(strides),
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        if self.use_bias:
            channels = len(inputs.shape) - 1 if self.data_format == "channels_last" else 1
            shape = [self.filters if i == channels else 1 for i in range(len(inputs.shape))]
            outputs = ops.add(outputs, ops.reshape(self.bias, shape))
        return outputs if self.activation is None else self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}

    def plain_config(self) -> dict[str, Any]:
        """The configuration of Keras' convolution that computes the same with the kernel above."""
        return {key: value for key, value in self.get_config().items() if key != "epsilon"}


_EXPLANATION = """Keras' `Conv{rank}D` with weight standardization.

    Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization"
    (2019), section 3: the layer convolves with (kernel - mean) / sqrt(variance + epsilon), mean
    and (biased) variance of each filter by itself. What is trained, stored and decayed is `kernel`.
    Statistics are computed in float32 under any dtype policy. Exports store the standardized
    kernel in a plain convolution (`keras_resnet.models.folding`).

    Args:
        *args: as for `keras.layers.Conv{rank}D`, as are all keywords but one.
        epsilon: added to the variance; 1e-8 is timm's and transformers' for Big Transfer.

    Raises:
        ValueError: for the padding "causal".
    """


@keras.saving.register_keras_serializable(package="keras_resnet")
class StandardizedConv1D(_Standardized, keras.layers.Conv1D):
    __doc__ = _EXPLANATION.format(rank=1)


@keras.saving.register_keras_serializable(package="keras_resnet")
class StandardizedConv2D(_Standardized, keras.layers.Conv2D):
    __doc__ = _EXPLANATION.format(rank=2)


@keras.saving.register_keras_serializable(package="keras_resnet")
class StandardizedConv3D(_Standardized, keras.layers.Conv3D):
    __doc__ = _EXPLANATION.format(rank=3)


# The one for a number of spatial axes, and Keras' convolution that takes its place in exports.
STANDARDIZED_CONVOLUTIONS = {1: StandardizedConv1D, 2: StandardizedConv2D, 3: StandardizedConv3D}
PLAIN_CONVOLUTIONS: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    StandardizedConv1D: keras.layers.Conv1D,
    StandardizedConv2D: keras.layers.Conv2D,
    StandardizedConv3D: keras.layers.Conv3D,
}
