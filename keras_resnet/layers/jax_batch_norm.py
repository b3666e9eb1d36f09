"""What batch normalization needs of JAX: statistics in one pass, and the backward pass written out.

Imported by `BatchNormalization` on the JAX backend only. Vectors are float32 of shape (channels,)
throughout (float64 for float64 inputs). `replicas` is the axis of `jax.shard_map` over which
statistics are summed, or `None` for those of the inputs at hand: with a batch that `jax.jit` has
sharded these are the whole batch's.
"""

import functools
import math

import jax
import jax.numpy as jnp


def has_fused_kernel(inputs) -> bool:
    """Whether `fused_training` takes a tensor of this type."""
    return inputs.dtype in (jnp.float32, jnp.bfloat16, jnp.float16)


def fused_training(inputs, axis, gamma, beta, shift, epsilon, replicas, activates=False):
    """Normalize by the batch's own statistics, in as few passes over the inputs as there can be.

    Of the forward pass the backward one (Ioffe and Szegedy 2015, section 3) keeps the inputs and
    vectors: no copy in float32, nothing that is normalized. The outputs have the inputs' type, so
    that an activation behind them works on what is stored.

    Args:
        inputs: tensor of any rank >= 2, in a type of `has_fused_kernel`.
        axis: the channels' axis.
        gamma, beta: vectors, or `None` for 1 and 0.
        shift: vector, the same on every replica; the nearer to the mean, the more precise is the
            variance, which comes from a difference of squares.
        epsilon: added to the variance.
        replicas: see the module. The gradient is then that of the sum of the replicas' losses.
        activates: ReLU follows. The backward pass finds out where it was zero from the inputs,
            which it reads anyway, and not from the outputs.

    Returns:
        Outputs (shape and type of the inputs), mean, biased variance and the number of values a
        channel has (a Python int). Without any values, mean and variance are NaN. No gradient
        flows through mean and variance.
    """
    axis %= inputs.ndim
    shift = jax.lax.stop_gradient(shift.astype(jnp.float32))
    options = axis, epsilon, replicas, activates
    outputs, mean, variance = _normalized(inputs, gamma, beta, shift, *options)
    return outputs, mean, variance, _values_per_channel(inputs, axis, replicas)


def shifted_moments(inputs, shift, replicas):
    """Mean, biased variance and number of values of a channel, in one pass, differentiable.

    Args:
        inputs: float tensor, channels last.
        shift: vector, the same on every replica; the nearer to the mean, the more precise is the
            variance, which comes from a difference of squares.
        replicas: see the module.
    """
    shift = jax.lax.stop_gradient(shift)
    axes = _other_axes(inputs, -1)
    distance = _wide(inputs) - shift
    total, squares = _over_replicas((distance.sum(axes), (distance**2).sum(axes)), replicas)
    count = _values_per_channel(inputs, -1, replicas)
    mean = total / max(count, 1)
    return shift + mean, jnp.maximum(squares / max(count, 1) - mean**2, 0), count


def moments(inputs, axis, mask, replicas):
    """Mean and biased variance in two passes, for float64 and masks.

    Args:
        inputs: tensor of any floating-point type and rank.
        axis: the channels' axis.
        mask: `None`, or a tensor of the inputs' shape without its last axis, true (or not 0)
            where values count.
        replicas: see the module.

    Returns:
        Mean, biased variance, and the number of values of each channel, all vectors,
        differentiable. Where there are no values, mean and variance are 0.
    """
    wide, axes = _wide(inputs), _other_axes(inputs, axis)
    if mask is None:
        mask = jnp.ones((1,) * inputs.ndim, bool)
    else:
        mask = jnp.asarray(mask).astype(bool)[..., jnp.newaxis]
    mask = jnp.broadcast_to(mask, inputs.shape)

    def mean_of(values):
        return _over_replicas(jnp.where(mask, values, 0).sum(axes), replicas) / divisor

    count = _over_replicas(mask.astype(wide.dtype).sum(axes), replicas)
    divisor = jnp.maximum(count, 1)
    mean = mean_of(wide)
    distance = wide - mean.reshape(broadcast_shape(inputs, axis))
    return mean, mean_of(distance**2), count


def broadcast_shape(inputs, axis) -> list[int]:
    """Shape that a vector takes to be broadcast over `inputs`: -1 at `axis`, 1 elsewhere."""
    shape = [1] * inputs.ndim
    shape[axis] = -1
    return shape


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _normalized(inputs, gamma, beta, shift, axis, epsilon, replicas, activates):
    return _forward(inputs, gamma, beta, shift, axis, epsilon, replicas, activates)[0]


def _forward(inputs, gamma, beta, shift, axis, epsilon, replicas, activates):
    axes, shape = _other_axes(inputs, axis), broadcast_shape(inputs, axis)
    wide = _wide(inputs)
    distance = wide - shift.reshape(shape)
    # Not stacked: the TPU compiler took them apart again, in 76 operations of ResNet-50's step.
    total, squares = _over_replicas((distance.sum(axes), (distance**2).sum(axes)), replicas)
    count = _values_per_channel(inputs, axis, replicas) or math.nan
    from_shift = total / count
    mean = shift + from_shift
    variance = jnp.maximum(squares / count - from_shift**2, 0)
    reciprocal = jax.lax.rsqrt(variance + epsilon)
    factor = reciprocal if gamma is None else reciprocal * gamma
    outputs = (wide - mean.reshape(shape)) * factor.reshape(shape)
    if beta is not None:
        outputs = outputs + beta.reshape(shape)
    outputs = outputs.astype(inputs.dtype)
    if activates:
        outputs = jnp.maximum(outputs, 0)
    return (outputs, mean, variance), (inputs, mean, reciprocal, gamma, beta)


def _backward(axis, epsilon, replicas, activates, saved, upstream):
    inputs, mean, reciprocal, gamma, beta = saved
    axes, shape = _other_axes(inputs, axis), broadcast_shape(inputs, axis)
    wide_upstream = _wide(upstream[0])
    distance = _wide(inputs) - mean.reshape(shape)
    factor = reciprocal if gamma is None else reciprocal * gamma
    if activates:
        outputs = distance * factor.reshape(shape)
        outputs = outputs if beta is None else outputs + beta.reshape(shape)
        wide_upstream = jnp.where(outputs > 0, wide_upstream, 0)
    # What the replica's own loss says of gamma and beta ...
    by_beta = wide_upstream.sum(axes)
    by_gamma = (wide_upstream * distance).sum(axes) * reciprocal
    # ... and what all of them say of the mean and the variance that they share.
    all_by_beta, all_by_gamma = _over_replicas((by_beta, by_gamma), replicas)
    count = max(_values_per_channel(inputs, axis, replicas), 1)
    by_inputs = factor.reshape(shape) * (
        wide_upstream
        - (all_by_beta / count).reshape(shape)
        - distance * (all_by_gamma * reciprocal / count).reshape(shape)
    )
    return (
        by_inputs.astype(inputs.dtype),
        None if gamma is None else by_gamma,
        None if beta is None else by_beta,
        None,
    )


_normalized.defvjp(_forward, _backward)


def _wide(tensor):
    return tensor.astype(jnp.float64 if tensor.dtype == jnp.float64 else jnp.float32)


def _other_axes(inputs, axis) -> tuple[int, ...]:
    return tuple(i for i in range(inputs.ndim) if i != axis % inputs.ndim)


def _values_per_channel(inputs, axis, replicas) -> int:
    count = math.prod(inputs.shape[i] for i in _other_axes(inputs, axis))
    # The sum of a Python number is a Python number: the size of the axis, in every version of JAX.
    return count if replicas is None else count * jax.lax.psum(1, replicas)


def _over_replicas(sums, replicas):
    return sums if replicas is None else jax.lax.psum(sums, replicas)
