"""Recomputation in the backward pass on TensorFlow. Only imported on that backend."""

import tensorflow as tf


def recomputed(block):
    """`keras.remat` in time linear in the number of blocks.

    TensorFlow's own `tf.recompute_grad`, which Keras uses, is quadratic: while tracing it searches,
    for every block, all of the graph before it for variables.

    Args:
        block: function of a list of input tensors and a list of the values of the variables it
            learns, pure and without other variables; returns a structure of tensors.

    Returns:
        The same function, of whose run only the arguments are kept for the gradient.
    """

    def call(inputs, learned_values):
        count = len(inputs)
        structure = []

        @tf.custom_gradient
        def run(*args):
            results = block(args[:count], args[count:])
            structure.append(results)

            def gradient(*upstream):
                again = [_after(x, upstream[0]) for x in args[:count]]
                sources = [*again, *args[count:]]
                with tf.GradientTape() as tape:
                    tape.watch(sources)
                    results = block(again, args[count:])
                return tape.gradient(
                    tf.nest.flatten(results),
                    sources,
                    output_gradients=list(upstream),
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )

            return tf.nest.flatten(results), gradient

        flat = run(*inputs, *learned_values)
        return tf.nest.pack_sequence_as(structure[0], flat)

    return call


def _after(x, upstream):
    """`x`, once the gradient has come; data dependencies are what XLA respects."""
    probe = tf.reduce_max(tf.reshape(upstream, [-1])[:1])
    zero = tf.where(tf.equal(probe, probe), tf.zeros_like(probe), probe)  # NaN stays NaN
    return x + tf.cast(zero, x.dtype)
