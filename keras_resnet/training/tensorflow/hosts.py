"""What the hosts of a run settle among themselves. With one host all is settled at once.

Every host calls these functions at the same places, because each is a collective operation.
"""

import numpy as np
import tensorflow as tf

from keras_resnet.training.tensorflow import cluster


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


def hosts_that_differ(strategy: tf.distribute.Strategy, digest: bytes) -> list[str]:
    """Returns the addresses of the hosts whose digest is another than ours."""
    if not several_hosts(strategy):
        return []
    here = cluster.from_tf_config()
    # Each host fills its row, the sum is the whole table. Sixteen bits are exact in float32, also
    # added up over the replicas of a host.
    numbers = np.frombuffer(digest[:16], np.uint16).astype(np.float32)
    table = np.zeros([len(here.addresses), 1 + len(numbers)], np.float32)
    table[here.index] = [1, *numbers]
    values = strategy.run(lambda: tf.constant(table))
    rows = strategy.reduce("SUM", values, axis=None).numpy()
    rows = rows[:, 1:] / rows[:, :1]
    different = (rows != rows[here.index]).any(axis=1)
    return [address for address, differs in zip(here.addresses, different, strict=True) if differs]
