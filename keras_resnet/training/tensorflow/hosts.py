"""What the hosts of a run settle among themselves. With one host all is settled at once.

Every host calls these functions at the same places, because each is a collective operation.
"""

import tensorflow as tf


def several_hosts(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether other processes take part in the collectives of `strategy`."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def mean(strategy: tf.distribute.Strategy, value: float) -> float:
    """Returns the mean of `value` over all hosts, the same float on each."""
    if not several_hosts(strategy):
        return value
    values = strategy.run(lambda: tf.constant(value, tf.float32))
    return float(strategy.reduce("MEAN", values, axis=None))


def any_host(strategy: tf.distribute.Strategy, value: bool) -> bool:
    """Returns whether `value` is true on some host."""
    return mean(strategy, float(value)) > 0


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when every host has called this; TensorFlow takes one that ends earlier for lost."""
    mean(strategy, 0.0)
