"""The depthwise convolution of `BlurPool` where TensorFlow trains in 16 bits on a CPU."""

import tensorflow as tf

from keras_resnet.layers.padded_max_pool import is_compiled_for_tpu


def has_slow_gradient(inputs) -> bool:
    """Whether TensorFlow's own gradient for an input is not oneDNN's, as in 16 bits on a CPU."""
    in_16_bits = inputs.dtype in (tf.bfloat16, tf.float16) and len(inputs.shape) == 4
    return in_16_bits and not (is_compiled_for_tpu() or tf.config.list_logical_devices("GPU"))


def depthwise_conv(inputs, kernel, stride: int):
    """As `keras.ops.depthwise_conv` without padding, whose gradient is computed in float32.

    Of 16 images of 112×112×64 both directions took 69 ms of two cores with AVX-512 in bfloat16,
    31 ms with a gradient in float32.

    Args:
        inputs: batch × height × width × channels.
        kernel: height × width × channels × 1, a constant of the same dtype.
        stride: of both axes.
    """
    strides = (1, stride, stride, 1)

    @tf.custom_gradient
    def computed(x):
        def gradient(upstream):
            by_x = tf.nn.depthwise_conv2d_backprop_input(
                tf.shape(x),
                tf.cast(kernel, tf.float32),
                tf.cast(upstream, tf.float32),
                strides,
                "VALID",
            )
            return tf.cast(by_x, x.dtype)

        return tf.nn.depthwise_conv2d(x, kernel, strides, "VALID"), gradient

    return computed(inputs)
