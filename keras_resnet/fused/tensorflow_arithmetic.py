"""What `gram.py` needs of TensorFlow. Only imported on that backend."""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_resnet.layers import is_compiled_for_tpu, tensorflow_batch_norm


@dataclasses.dataclass(frozen=True)
class TensorFlowArithmetic:
    """Products and sums over all axes but the last; see `gram.py`."""

    sums_by_products: bool = False

    custom_gradient = staticmethod(tf.custom_gradient)

    def gram(self, a: Any, b: Any) -> Any:
        """a'b in float32: [C, D] of [..., C] and [..., D]."""
        if is_compiled_for_tpu():
            return _dot_general(a, b, range(len(a.shape) - 1), range(len(a.shape) - 1))
        # No kernel for CPUs sums bfloat16 to float32, and sums in bfloat16 lose the variance.
        a, b = (tf.cast(tf.reshape(each, (-1, each.shape[-1])), tf.float32) for each in (a, b))
        return tf.matmul(a, b, transpose_a=True)

    def column_sums(self, a: Any) -> Any:
        """Sums of what may be computed on the way, float32[C]."""
        if not self.sums_by_products:
            return self.plain_sums(a)
        # 8 of them, the height of a tile: the matrix unit has the time that the vector unit lacks.
        ones = tf.ones((*sizes_of(a)[:-1], 8), a.dtype)
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

    def spread(self, a: Any, strides: tuple[int, ...], like: Any) -> Any:
        """Zeros of a shape with `a` at every so many pixels: the gradient of picking them."""
        if max(strides) == 1:
            return a
        rank = len(a.shape)
        spread = tf.raw_ops.StridedSliceGrad(
            shape=tf.shape(like),
            begin=[0] * rank,
            end=[0] * rank,
            strides=[1, *strides, 1],
            dy=a,
            begin_mask=(1 << rank) - 1,
            end_mask=(1 << rank) - 1,
        )
        spread.set_shape(like.shape)
        return spread

    def exact(self, a: Any, b: Any) -> Any:
        """Product of small matrices in float32 proper."""
        return (
            _dot_general(a, b, [len(a.shape) - 1], [0])
            if is_compiled_for_tpu()
            else tf.matmul(a, b)
        )

    def over_replicas(self, values: tuple, replicas: Any) -> tuple:
        if replicas is None:
            return values
        flat = [tf.reshape(tf.cast(value, tf.float32), [-1]) for value in values]
        total = tensorflow_batch_norm.sum_over_replicas(tf.concat(flat, 0))
        parts = tf.split(total, [each.shape[0] for each in flat])
        return tuple(
            tf.reshape(part, tf.shape(value)) for part, value in zip(parts, values, strict=True)
        )


def _dot_general(a: Any, b: Any, of_a: Any, of_b: Any) -> Any:
    """XLA's own operation, float32 [C, D], contracting axes of each.

    A reshape before `tf.matmul` would move what lies in tiles, and that of float32 is one of
    bfloat16 on a TPU.
    """
    # Here and not above: they load parts of TensorFlow that nothing else needs.
    from tensorflow.compiler.tf2xla.python import xla
    from tensorflow.compiler.xla import xla_data_pb2

    numbers = xla_data_pb2.DotDimensionNumbers(
        lhs_contracting_dimensions=of_a, rhs_contracting_dimensions=of_b
    )
    highest = xla_data_pb2.PrecisionConfig.Precision.HIGHEST
    precision = xla_data_pb2.PrecisionConfig(operand_precision=[highest] * 2)
    product = xla.dot_general(
        a,
        b,
        numbers,
        precision if a.dtype == tf.float32 else None,
        preferred_element_type=tf.float32,
    )
    kept = [size for axis, size in enumerate(a.shape) if axis not in of_a]
    product.set_shape((*kept, b.shape[-1]))
    return product


def sizes_of(a: Any) -> list[Any]:
    """Sizes, numbers where they are known."""
    known, dynamic = a.shape.as_list(), tf.shape(a)
    return [dynamic[i] if size is None else size for i, size in enumerate(known)]
