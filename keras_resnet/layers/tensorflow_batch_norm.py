"""What batch normalization needs of TensorFlow: the fused operation and sums over replicas.

Imported by `BatchNormalization` on the TensorFlow backend only. Vectors are float32 of shape
(channels,) throughout (float64 for float64 inputs).
"""

import math

import tensorflow as tf


def has_fused_kernel(inputs) -> bool:
    """Whether TensorFlow's fused operation takes a tensor of this type."""
    return isinstance(inputs, tf.Tensor) and inputs.dtype in (
        tf.float32,
        tf.bfloat16,
        tf.float16,
    )


def fused_training(inputs, axis, scale, offset, epsilon):
    """Normalize by the batch's own statistics in one fused operation.

    Args:
        inputs: tensor of any rank >= 2, in a type of `has_fused_kernel`.
        axis: the channels' axis.
        scale, offset: vectors, gamma and beta.
        epsilon: added to the variance; any positive number (old versions of cuDNN wanted 1e-5 or
            more, today its CUDNN_BN_MIN_EPSILON is 0).

    Returns:
        Outputs (shape and type of the inputs), mean, biased variance and the number of values a
        channel has (a Python int where the shape is static, else an int64 scalar). Without any
        values, mean and variance are NaN. No gradient flows through mean and variance.
    """
    to_kernel, from_kernel = _kernel_layout(inputs, axis)
    normalized = tf.raw_ops.FusedBatchNormV3(
        x=to_kernel(inputs),
        scale=scale,
        offset=offset,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        is_training=True,
    )
    count = values_per_channel(inputs, axis)
    # The operation returns the unbiased variance, Keras' moving statistics hold the biased one.
    # For one value the operation divides by 1, not by 0, so 0 it is in either way.
    if isinstance(count, int):
        biased = (count - 1) / count if count else math.nan
    else:
        wide_count = tf.cast(count, tf.float32)
        biased = (wide_count - 1) / wide_count
    variance = normalized.batch_variance * biased
    return from_kernel(normalized.y), normalized.batch_mean, variance, count


def fused_inference(inputs, axis, scale, offset, mean, variance, epsilon):
    """Normalize by given statistics; gradients flow to inputs, scale and offset.

    Measured on CPU in a stack of convolutions, it is as fast as one multiplication and one
    addition, or up to 6 % faster.
    """
    to_kernel, from_kernel = _kernel_layout(inputs, axis)
    normalized = tf.raw_ops.FusedBatchNormV3(
        x=to_kernel(inputs),
        scale=scale,
        offset=offset,
        mean=tf.cast(mean, tf.float32),
        variance=tf.cast(variance, tf.float32),
        epsilon=epsilon,
        is_training=False,
    )
    return from_kernel(normalized.y)


def moments(inputs, axis, mask):
    """Mean and biased variance in two passes, for what the fused operation does not take.

    Args:
        inputs: tensor of any floating-point type and rank.
        axis: the channels' axis.
        mask: `None`, or a tensor of the inputs' shape without its last axis, true (or not 0)
            where values count.

    Returns:
        Mean, biased variance, and the number of values of each channel, all vectors. Where there
        are no values, mean and variance are 0.
    """
    wide, axes = _wide(inputs), _other_axes(inputs, axis)
    count, mask = _count(wide, axis, mask)
    divisor = tf.maximum(count, 1)
    mean = tf.reduce_sum(_masked(wide, mask), axes) / divisor
    distance = wide - tf.reshape(mean, broadcast_shape(inputs, axis))
    return mean, tf.reduce_sum(_masked(distance, mask) ** 2, axes) / divisor, count


def synchronized_moments(inputs, axis, mask, shift):
    """Mean and biased variance of every replica's inputs together, in one pass and one sum.

    Every replica adds its count, sum and sum of squares of `inputs - shift`, so replicas may
    hold different numbers of examples, or none. Differentiable: the gradient of a sum over
    replicas is the sum of their gradients.

    Args:
        inputs: this replica's tensor.
        axis: the channels' axis.
        mask: `None`, or a tensor of the inputs' shape without its last axis, true (or not 0)
            where values count.
        shift: vector, the same on every replica; the nearer to the mean, the more precise is the
            variance, which comes from a difference of squares.

    Returns:
        Mean, biased variance, and the number of values of each channel, all vectors. Where there
        are no values, mean is `shift` and variance 0.
    """
    wide, axes = _wide(inputs), _other_axes(inputs, axis)
    count, mask = _count(wide, axis, mask)
    shift = tf.cast(shift, wide.dtype)
    distance = _masked(wide - tf.reshape(shift, broadcast_shape(inputs, axis)), mask)
    sums = tf.stack([count, tf.reduce_sum(distance, axes), tf.reduce_sum(distance**2, axes)])
    count, total, total_of_squares = tf.unstack(sum_over_replicas(sums))
    divisor = tf.maximum(count, 1)
    mean = total / divisor
    variance = tf.maximum(total_of_squares / divisor - mean**2, 0)
    return shift + mean, variance, count


def shifted_moments(inputs, shift, replicas):
    """Mean, biased variance and number of values of a channel, in one pass, differentiable.

    Args:
        inputs: float tensor, channels last.
        shift: vector, the same on every replica; the nearer to the mean, the more precise is the
            variance, which comes from a difference of squares.
        replicas: whether those of all replicas count.
    """
    shift = tf.stop_gradient(shift)
    if replicas:
        mean, variance, count = synchronized_moments(inputs, len(inputs.shape) - 1, None, shift)
        return mean, variance, count
    axes = _other_axes(inputs, len(inputs.shape) - 1)
    distance = _wide(inputs) - shift
    count = values_per_channel(inputs, len(inputs.shape) - 1)
    divisor = tf.maximum(tf.cast(count, distance.dtype), 1)
    mean = tf.reduce_sum(distance, axes) / divisor
    variance = tf.maximum(tf.reduce_sum(distance**2, axes) / divisor - mean**2, 0)
    return shift + mean, variance, count


def mean_over_replicas(mean, variance, count):
    """Average batch statistics over the replicas that have any, outside the gradient.

    Replicas weigh the same whatever their number of examples: on each the moving statistics
    estimate what that replica normalized with. With one replica nothing is done.

    Returns:
        Mean, variance, and a count that is 0 if no replica had any values.
    """
    if not several_replicas():
        return mean, variance, count
    has_values = tf.reduce_max(tf.convert_to_tensor(count)) > 0
    statistics = tf.stack([mean, variance, tf.ones_like(mean)])
    statistics = tf.where(has_values, statistics, tf.zeros_like(statistics))
    mean, variance, replicas = tf.unstack(sum_over_replicas(tf.stop_gradient(statistics)))
    divisor = tf.maximum(replicas, 1)
    return mean / divisor, variance / divisor, replicas


def several_replicas() -> bool:
    """Whether this code runs inside `strategy.run` on one replica of several."""
    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1


def values_per_channel(inputs, axis):
    """Number of values of each channel: an int if the shape is static, else an int64 scalar."""
    static = inputs.shape.as_list()
    del static[axis]
    if None not in static:
        return math.prod(static)
    dynamic = tf.shape(inputs, out_type=tf.int64)
    return tf.reduce_prod(tf.gather(dynamic, _other_axes(inputs, axis)))


def broadcast_shape(inputs, axis) -> list[int]:
    """Shape that a vector takes to be broadcast over `inputs`: -1 at `axis`, 1 elsewhere."""
    shape = [1] * len(inputs.shape)
    shape[axis] = -1
    return shape


def _wide(inputs):
    return tf.cast(inputs, tf.float64 if inputs.dtype == tf.float64 else tf.float32)


def _count(wide, axis, mask):
    """Number of values of each channel as a vector, and the mask broadcast to the inputs."""
    if mask is None:
        count = tf.cast(values_per_channel(wide, axis), wide.dtype)
        return tf.fill([wide.shape[axis]], count), None
    mask = tf.broadcast_to(tf.cast(mask, tf.bool)[..., tf.newaxis], tf.shape(wide))
    return tf.reduce_sum(tf.cast(mask, wide.dtype), _other_axes(wide, axis)), mask


def _masked(tensor, mask):
    return tensor if mask is None else tf.where(mask, tensor, tf.zeros_like(tensor))


def sum_over_replicas(tensor):
    """The sum of every replica's tensor, differentiable."""
    try:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tensor)
    except RuntimeError as error:
        raise RuntimeError(
            "Batch normalization cannot reach the other replicas from here: the model was called "
            "in a tf.function (compiled with jit, perhaps) inside strategy.run. Call it without "
            "that function, or prepare it with keras_resnet.layers.defer_moving_statistics(model), "
            "which works for layers without synchronized=True."
        ) from error


def _other_axes(inputs, axis) -> list[int]:
    axes = list(range(len(inputs.shape)))
    del axes[axis]
    return axes


def _kernel_layout(inputs, axis):
    """Functions into and out of the layout of the fused operation: rank 4, channels last.

    Channels elsewhere are transposed, since the CPU kernel knows no other layout; in a graph for
    GPU, TensorFlow's layout optimization (and XLA) picks the layout and drops transpositions.
    """
    rank = len(inputs.shape)
    forward = [*_other_axes(inputs, axis), axis % rank]
    backward = [forward.index(i) for i in range(rank)]
    moves = forward != backward or forward != list(range(rank))

    def to_kernel(tensor):
        tensor = tf.transpose(tensor, forward) if moves else tensor
        return tensor if rank == 4 else tf.reshape(tensor, [-1, 1, 1, inputs.shape[axis]])

    def from_kernel(tensor):
        if rank != 4:
            # tf.shape of the inputs, as two dimensions or more may be unknown
            shape = tf.gather(tf.shape(inputs), forward)
            tensor = tf.reshape(tensor, shape)
        tensor = tf.transpose(tensor, backward) if moves else tensor
        tensor.set_shape(inputs.shape)
        return tensor

    return to_kernel, from_kernel
