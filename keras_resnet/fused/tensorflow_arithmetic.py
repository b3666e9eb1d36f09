"""What `gram.py` needs of TensorFlow. Only imported on that backend."""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_resnet.layers import tensorflow_batch_norm


@dataclasses.dataclass(frozen=True)
class TensorFlowArithmetic:
    """Products and sums over all axes but the last; see `gram.py`."""

    sums_by_products: bool = False

    custom_gradient = staticmethod(tf.custom_gradient)

    def gram(self, a: Any, b: Any) -> Any:
        """a'b in float32: [C, D] of [..., C] and [..., D]."""
        a, b = (tf.reshape(each, (-1, each.shape[-1])) for each in (a, b))
        # The operation, as tf.matmul knows no type of the result for bfloat16.
        return tf.raw_ops.BatchMatMulV3(x=a, y=b, Tout=tf.float32, adj_x=True, adj_y=False)

    def column_sums(self, a: Any) -> Any:
        """Sums of what may be computed on the way, float32[C]."""
        if not self.sums_by_products:
            return self.plain_sums(a)
        # 8 of them, the height of a tile: the matrix unit has the time that the vector unit lacks.
        ones = tf.ones((*_shape(a)[:-1], 8), a.dtype)
        return self.gram(a, ones)[:, 0]

    def plain_sums(self, a: Any) -> Any:
        return tf.reduce_sum(tf.cast(a, tf.float32), list(range(len(a.shape) - 1)))

    def count(self, a: Any) -> Any:
        """How many rows there are."""
        count = tensorflow_batch_norm.values_per_channel(a, len(a.shape) - 1)
        return float(count) if isinstance(count, int) else tf.cast(count, tf.float32)

    def product(self, a: Any, matrix: Any) -> Any:
        """a times a matrix that is rounded to its type, [..., D], as a 1×1 convolution."""
        ones = [1] * (len(a.shape) - 2)
        kernel = tf.reshape(tf.cast(matrix, a.dtype), (*ones, *matrix.shape))
        return tf.nn.convolution(a, kernel)

    def exact(self, a: Any, b: Any) -> Any:
        """Product of small matrices in float32 proper."""
        return tf.matmul(a, b)

    def over_replicas(self, values: tuple, replicas: Any) -> tuple:
        if replicas is None:
            return values
        flat = [tf.reshape(tf.cast(value, tf.float32), [-1]) for value in values]
        total = tensorflow_batch_norm.sum_over_replicas(tf.concat(flat, 0))
        parts = tf.split(total, [each.shape[0] for each in flat])
        return tuple(
            tf.reshape(part, tf.shape(value)) for part, value in zip(parts, values, strict=True)
        )


def _shape(a: Any) -> list[Any]:
    """Sizes, numbers where they are known."""
    known, dynamic = a.shape.as_list(), tf.shape(a)
    return [dynamic[i] if size is None else size for i, size in enumerate(known)]
