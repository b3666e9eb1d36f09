"""What `folded.py` needs of TensorFlow on a CPU, where oneDNN runs a graph operation by operation.

Only imported on that backend. Its products of bfloat16 have results in bfloat16, summed in float32
inside; there is none that ends in float32. So what has to be more exact is summed for each example
alone, and these parts then in float32.
"""

import dataclasses
import math
from typing import Any

import tensorflow as tf

from keras_resnet.fused.tensorflow_arithmetic import TensorFlowArithmetic, sizes_of


@dataclasses.dataclass(frozen=True)
class OneDnnArithmetic(TensorFlowArithmetic):
    """See `TensorFlowArithmetic`; here inputs are near zero where their products must be exact."""

    def gram(self, a: Any, b: Any) -> Any:
        """a'b in float32; of an input with itself each example's part is rounded to its type.

        Of inputs near zero that leaves a relative error of 3e-4, at most 8e-4, in a variance (16
        examples of 56×56 pixels, 64 channels). One product of all, as they are, had 2e-3, at most
        1e-2, behind ReLU, and 30 times the variance where means are 100 deviations; a product in
        float32 takes twice as long.
        """
        if a is not b:  # a gradient, as exact as the plain one
            return tf.cast(kernel_gradient(a, b), tf.float32)
        return _summed(tf.matmul(_by_example(a), _by_example(b), transpose_a=True))

    def plain_sums(self, a: Any) -> Any:
        # Not BiasAddGrad: it sums bfloat16 in bfloat16, and 50,000 summands lose nine tenths.
        return _summed(tf.reduce_sum(_by_example(a), 1))

    def column_sums(self, a: Any) -> Any:
        return self.plain_sums(a)

    def near_mean(self, x: Any, replicas: Any) -> Any:
        """A vector within sqrt(batch) deviations of the mean, as exact as x: of first examples."""
        first = tf.cast(_by_example(x)[:1], tf.float32)
        mean = tf.reduce_sum(first, (0, 1)) / tf.cast(tf.shape(first)[1], tf.float32)
        count = tf.cast(tf.shape(first)[:1], tf.float32)  # a replica may have no example
        mean, count = self.over_replicas((mean, count), replicas)
        return tf.cast(mean / tf.maximum(count, 1.0), x.dtype)

    def plus_vector(self, a: Any, vector: Any) -> Any:
        """a + vector as the operation that oneDNN takes into the convolution before it."""
        return tf.nn.bias_add(a, tf.cast(vector, a.dtype))

    def behind_relu(self, output: Any, upstream: Any) -> Any:
        """The gradient before a ReLU with this output."""
        return tf.raw_ops.ReluGrad(gradients=upstream, features=output)


def kernel_gradient(a: Any, upstream: Any) -> Any:
    """a'upstream, [C, D] in the type of the inputs: one product of matrices."""
    flat = [tf.reshape(each, (-1, each.shape[-1])) for each in (a, upstream)]
    return tf.matmul(*flat, transpose_a=True)


def _summed(parts: Any) -> Any:
    return tf.reduce_sum(tf.cast(parts, tf.float32), 0)


def _by_example(a: Any) -> Any:
    """[batch, pixels, channels]."""
    pixels, channels = sizes_of(a)[1:-1], a.shape[-1]
    static = all(isinstance(size, int) for size in pixels)
    count = math.prod(pixels) if static else tf.reduce_prod(tf.stack(pixels))
    return tf.reshape(a, (-1, count, channels))
