"""Batch normalization: Keras' layer and numbers, in fewer passes over the activations."""

import math

import keras
from keras import ops

from keras_resnet.layers.replicas import current_replica_axis


@keras.saving.register_keras_serializable(package="keras_resnet")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster, and at home on several replicas.

    Ioffe and Szegedy, "Batch Normalization" (2015). Arguments, configuration, variable names
    and results (to 1e-5 in float32) are those of Keras' layer; the defaults differ:

    - `momentum=0.9` instead of 0.99: after k steps the moving statistics still hold
      `momentum**k` of their initial values, so with 0.99 inference fails in short runs (measured
      accuracy on a small image set: 18.7 % with 0.99, 97.5 % with 0.9). Goyal et al., "Accurate,
      Large Minibatch SGD" (2017), and PyTorch (as momentum 0.1) use 0.9 too.
    - `epsilon=1e-5` instead of 1e-3, as in the references that the weights come from.

    What differs on the TensorFlow backend (on torch, and for `renorm=True`, Keras' own code runs):

    - Training in float32, bfloat16 or float16 runs TensorFlow's fused operation over inputs of
      any rank, with statistics in float32: one pass where Keras makes several, and no float32
      copy of the activations.
    - The moving statistics are the same on every replica of a `tf.distribute` strategy, always:
      the replicas' batch statistics are averaged before they go in (Keras lets the replicas drift
      apart). `defer_moving_statistics` postpones that for compiled code on several GPUs.
    - `synchronized=True` normalizes by the statistics of the global batch: one sum over replicas
      of (count, sum, sum of squares), exact for replicas of different sizes or without examples,
      gradient included. `mask` is taken into account (Keras does not synchronize under a mask).
    - A batch without examples leaves the moving statistics alone (in Keras they turn NaN).
    - Under `keras.RematScope` the layer is not recomputed: it keeps nothing but its input anyway,
      and a second call would update the moving statistics twice.

    What differs on the JAX backend:

    - Training in float32, bfloat16 or float16 makes one pass over the inputs for the statistics, in
      float32, and has a backward pass written out by `jax.custom_vjp`, for which nothing is kept
      but the inputs and three vectors. (So there is no forward-mode derivative, `jax.jvp`; second
      derivatives by `jax.grad` of `jax.grad` there are.)
    - Inside `jax.shard_map` each replica normalizes by, and updates the moving statistics with, its
      own part of the batch: whoever maps averages them. With `synchronized=True`, which Keras
      refuses on JAX, and under `keras_resnet.layers.replica_axis` these are the statistics of the
      global batch, a mask included and the gradient too. Without `jax.shard_map` a batch that
      `jax.jit` has sharded is one batch anyway, synchronized or not.
    - Empty batches and `keras.RematScope` as on TensorFlow.

    `moving_variance` averages the biased variance of the batch, sum((x - mean)²) / n, as Keras
    does; PyTorch's `running_var` averages the unbiased one, n / (n - 1) times as large.

    Precision of the variance: the fused operation on CPU is as good as two passes (relative error
    below 1e-5 up to |mean| = 1000 standard deviations). XLA compiles it to one pass of sums in
    float32, with a relative error that grows as (mean / standard deviation)². `synchronized=True`,
    and JAX always, make one pass over the distance from the moving mean, so there the error grows
    as ((mean - moving_mean) / standard deviation)² (measured on JAX, 50,176 values a channel: 3e-5
    where that is 10², 3e-3 for 100², 3 % for 300²); the variance is never negative. In float64 and
    under a mask JAX makes two passes.

    `trainable=False` runs the layer in inference mode, as Keras promises: it uses the moving
    statistics and does not change them, and gradients go on to the inputs.
    """

    def __init__(self, axis=-1, momentum=0.9, epsilon=1e-5, **kwargs):
        # Keras refuses this one on every backend but TensorFlow.
        synchronized = kwargs.get("synchronized", False)
        if keras.backend.backend() == "jax":
            kwargs["synchronized"] = False
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)
        self.synchronized = synchronized
        # Set by `defer_moving_statistics`; a way to run, no part of the configuration.
        self.averages_over_replicas = True

    def call(self, inputs, training=None, mask=None):
        backend = keras.backend.backend()
        renorm = getattr(self, "renorm", False)  # older versions of Keras 3 have no renorm
        if backend not in ("tensorflow", "jax") or renorm:
            return super().call(inputs, training=training, mask=mask)
        if training and self.trainable:
            self._check_mask(inputs, mask)
            return (
                self._training_call_on_jax(inputs, mask)
                if backend == "jax"
                else self._training_call(inputs, mask)
            )
        if backend == "jax":  # XLA makes one operation of Keras' code
            return super().call(inputs, training=False, mask=mask)
        from keras_resnet.layers import tensorflow_batch_norm as kernels

        if not kernels.has_fused_kernel(inputs):
            return super().call(inputs, training=False, mask=mask)
        scale, offset = self.scale_and_offset()
        return kernels.fused_inference(
            inputs,
            self.axis,
            scale,
            offset,
            ops.convert_to_tensor(self.moving_mean),
            ops.convert_to_tensor(self.moving_variance),
            self.epsilon,
        )

    def rematerialized_call(self, fn, *args, **kwargs):
        """`fn` itself: see the class docstring on `keras.RematScope`."""
        return fn

    def _check_mask(self, inputs, mask):
        if mask is not None and len(mask.shape) != len(inputs.shape) - 1:
            raise ValueError(
                "The mask of a BatchNormalization layer has one dimension less than its inputs "
                f"(no channels), received mask.shape={mask.shape}, inputs.shape={inputs.shape}."
            )

    def activated_call(self, inputs):
        """The training call and ReLU, in one operation (JAX, 32 or 16 bits, no mask)."""
        return self._training_call_on_jax(ops.cast(inputs, self.compute_dtype), None, True)

    def _training_call_on_jax(self, inputs, mask, activates=False):
        """Normalize by the batch's statistics and update the moving ones (JAX)."""
        from keras_resnet.layers import jax_batch_norm as kernels

        replicas = current_replica_axis() if self.synchronized else None
        if mask is None and kernels.has_fused_kernel(inputs):
            outputs, mean, variance, count = kernels.fused_training(
                inputs,
                self.axis,
                ops.cast(self.gamma, "float32") if self.scale else None,
                ops.cast(self.beta, "float32") if self.center else None,
                ops.convert_to_tensor(self.moving_mean),
                self.epsilon,
                replicas,
                activates,
            )
        else:
            mean, variance, count = kernels.moments(inputs, self.axis, mask, replicas)
            outputs = self._normalize(kernels, inputs, mean, variance)
            mean, variance = ops.stop_gradient(mean), ops.stop_gradient(variance)
        self._update_moving_statistics(mean, variance, count)
        return outputs

    def _training_call(self, inputs, mask):
        """Normalize by the batch's statistics and update the moving ones (TensorFlow)."""
        from keras_resnet.layers import tensorflow_batch_norm as kernels

        if self.synchronized and kernels.several_replicas():
            mean, variance, count = kernels.synchronized_moments(
                inputs, self.axis, mask, ops.convert_to_tensor(self.moving_mean)
            )
            outputs = self._normalize(kernels, inputs, mean, variance)
            self._update_moving_statistics(mean, variance, count)
            return outputs
        if mask is None and kernels.has_fused_kernel(inputs):
            scale, offset = self.scale_and_offset()
            outputs, mean, variance, count = kernels.fused_training(
                inputs, self.axis, scale, offset, self.epsilon
            )
        else:
            mean, variance, count = kernels.moments(inputs, self.axis, mask)
            outputs = self._normalize(kernels, inputs, mean, variance)
        self.take_batch_statistics(mean, variance, count)
        return outputs

    def _normalize(self, kernels, inputs, mean, variance):
        """Outputs for given statistics, computed in their type."""
        shape = kernels.broadcast_shape(inputs, self.axis)
        factor = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            factor = factor * ops.cast(self.gamma, mean.dtype)
        outputs = (ops.cast(inputs, mean.dtype) - ops.reshape(mean, shape)) * ops.reshape(
            factor, shape
        )
        if self.center:
            outputs = outputs + ops.reshape(ops.cast(self.beta, mean.dtype), shape)
        return ops.cast(outputs, self.compute_dtype)

    # What runs the layer as a part of a larger operation (keras_resnet.fused) needs of it.

    def scale_and_offset(self):
        """Gamma and beta as float32 vectors, whether the layer has them or not."""
        shape = ops.shape(self.moving_mean)
        return (
            ops.cast(self.gamma, "float32") if self.scale else ops.ones(shape, "float32"),
            ops.cast(self.beta, "float32") if self.center else ops.zeros(shape, "float32"),
        )

    def replicas_to_sum_over(self):
        """What a sum over the replicas that are normalized together is told; `None` for one.

        On JAX the axis of the mesh, on TensorFlow `True`.
        """
        if not self.synchronized:
            return None
        if keras.backend.backend() == "jax":
            return current_replica_axis()
        from keras_resnet.layers import tensorflow_batch_norm as kernels

        return True if kernels.several_replicas() else None

    def batch_moments(self, inputs, shift=None):
        """Mean, biased variance and number of values of a channel, differentiable, in one pass.

        Args:
            inputs: float tensor, channels last.
            shift: vector, the same on every replica, from which distances are taken; by default
                the moving mean.

        Returns:
            Two float32 vectors, of all replicas if `synchronized`, and an int or a tensor.
        """
        shift = ops.cast(self.moving_mean, "float32") if shift is None else shift
        replicas = self.replicas_to_sum_over()
        if keras.backend.backend() == "jax":
            from keras_resnet.layers import jax_batch_norm

            return jax_batch_norm.shifted_moments(inputs, shift, replicas)
        from keras_resnet.layers import tensorflow_batch_norm

        return tensorflow_batch_norm.shifted_moments(inputs, shift, replicas)

    def values_per_channel(self, inputs):
        """How many values a channel of a replica's inputs (channels last) has."""
        if keras.backend.backend() == "jax":
            return math.prod(inputs.shape[:-1])
        from keras_resnet.layers import tensorflow_batch_norm

        return tensorflow_batch_norm.values_per_channel(inputs, len(inputs.shape) - 1)

    def take_batch_statistics(self, mean, variance, count):
        """Move the moving statistics towards those that a batch was normalized with.

        On TensorFlow they are averaged over the replicas before, unless that was deferred.
        """
        mean, variance = ops.stop_gradient(mean), ops.stop_gradient(variance)
        if keras.backend.backend() == "tensorflow" and self.averages_over_replicas:
            from keras_resnet.layers import tensorflow_batch_norm as kernels

            mean, variance, count = kernels.mean_over_replicas(mean, variance, count)
        self._update_moving_statistics(mean, variance, count)

    def _update_moving_statistics(self, mean, variance, count):
        """Move towards a batch's statistics, where the batch had any values."""
        for variable, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            before = ops.cast(variable, batch.dtype)
            after = before * self.momentum + batch * (1.0 - self.momentum)
            if not isinstance(count, int):
                after = ops.where(count > 0, after, before)
            elif not count:
                continue
            variable.assign(after)
