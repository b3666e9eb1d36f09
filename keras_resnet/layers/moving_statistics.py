"""Moving statistics of batch normalization where replicas cannot talk to each other."""

from collections.abc import Sequence

import keras

from keras_resnet.layers.batch_normalization import BatchNormalization
from keras_resnet.layers.keras_internals import layers_within


def defer_moving_statistics(model: keras.Model, deferred: bool = True) -> None:
    """Let each replica keep moving statistics of its own until they are averaged.

    For training steps that XLA compiles inside each of several GPU replicas: neither a
    collective operation nor `merge_call` works there. Call `average_moving_statistics` before
    anything reads the statistics: evaluation, checkpoint, export. The update is linear, so that
    averaging late gives what averaging in every step gives (as long as each replica has examples
    in each step). `synchronized=True` needs the other replicas in the forward pass itself, which
    cannot be put off.

    Args:
        model: any Keras model or layer; every `BatchNormalization` of this package in it is set.
            Functions traced before keep to what was set then.
        deferred: `False` goes back to averaging in every step.

    Raises:
        ValueError: if a layer has `synchronized=True`, naming it.
    """
    layers = _batch_normalizations(model)
    synchronized = [layer.name for layer in layers if layer.synchronized]
    if deferred and synchronized:
        raise ValueError(
            "Synchronized batch normalization needs the other replicas in every forward pass: "
            "its statistics cannot be averaged later. Train without jit compilation or build the "
            f"model without synchronized=True; received {len(synchronized)} such layers, the "
            f"first is {synchronized[0]!r}."
        )
    for layer in layers:
        layer.averages_over_replicas = not deferred


def average_moving_statistics(model: keras.Model, others: Sequence = ()) -> None:
    """Give every replica the mean of the replicas' moving statistics.

    One sum over replicas for the whole model. Call it outside `strategy.run`, eagerly or in a
    `tf.function`. Without a distribution strategy, or on another backend than TensorFlow, there
    is nothing to average and nothing happens.

    Args:
        model: as for `defer_moving_statistics`.
        others: more float32 vectors on the same replicas, `tf.Variable`s that follow the
            statistics, to be averaged with them.
    """
    variables = [
        variable.value
        for layer in _batch_normalizations(model)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
    variables += others
    strategy = _strategy_of(variables)
    if strategy is None:
        return
    import tensorflow as tf

    def average():
        flat = tf.concat([tf.convert_to_tensor(variable) for variable in variables], 0)
        context = tf.distribute.get_replica_context()
        mean = context.all_reduce(tf.distribute.ReduceOp.MEAN, flat)
        sizes = [variable.shape[0] for variable in variables]
        for variable, value in zip(variables, tf.split(mean, sizes), strict=True):
            variable.assign(value)

    tf.function(lambda: strategy.run(average), autograph=False)()


def _batch_normalizations(model) -> list[BatchNormalization]:
    layers = [model, *layers_within(model)]
    return [layer for layer in layers if isinstance(layer, BatchNormalization) and layer.built]


def _strategy_of(variables):
    """The strategy with several replicas that `variables` live on, or `None`."""
    if not variables or keras.backend.backend() != "tensorflow":
        return None
    strategy = getattr(variables[0], "distribute_strategy", None)
    return strategy if strategy is not None and strategy.num_replicas_in_sync > 1 else None
