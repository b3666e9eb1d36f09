"""1×1 convolutions whose kernel's gradient is a product of matrices (TensorFlow, CPU).

With AMX oneDNN computes that gradient by its backward convolution at 270 to 370 GFLOP/s in
bfloat16, and the same numbers as a product of matrices at 570 to 920 (measured on two cores; in
float32 both run at 200 to 320).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_resnet.layers.subsampling_conv import SubsamplingConv2D, pick_pixels


@dataclasses.dataclass(frozen=True)
class KernelProduct:
    """A 1×1 convolution of images, channels last; callable with the value of its input."""

    conv: keras.layers.Conv2D

    def __call__(self, values: Sequence[Any]) -> Any:
        conv = self.conv
        x, kernel = (ops.cast(v, conv.compute_dtype) for v in (values[0], conv.kernel))
        strides = conv.strides
        if isinstance(conv, SubsamplingConv2D):
            x, strides = pick_pixels(x, strides, "channels_last"), (1, 1)
        output = _one_by_one(x, kernel, strides)
        if not conv.use_bias:
            return output
        # As Keras adds it: what oneDNN makes of a bias and a sum may crash, see `patterns`.
        return output + ops.reshape(ops.cast(conv.bias, output.dtype), (1, 1, 1, -1))


def _one_by_one(x: Any, kernel: Any, strides: tuple[int, ...]) -> Any:
    import tensorflow as tf

    from keras_resnet.fused.onednn_arithmetic import kernel_gradient

    @tf.custom_gradient
    def computed(x: Any, kernel: Any) -> tuple[Any, Any]:
        def gradient(upstream: Any) -> tuple[Any, Any]:
            by_x = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, *strides, 1],
                padding="VALID",
            )
            picked = pick_pixels(x, strides, "channels_last") if max(strides) > 1 else x
            return by_x, kernel_gradient(picked, upstream)[None, None]

        return tf.nn.conv2d(x, kernel, strides, "VALID"), gradient

    return computed(x, kernel)
