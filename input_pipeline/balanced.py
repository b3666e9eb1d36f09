"""The balanced order: every class equally often, as a function of the seed alone.

The examples of a run are one long row of rounds, and in each round every class stands once, in an
order of its own. Round r takes example number r of each class, and those of a class come in epochs
of its own, each a fresh permutation. So place p of the row depends on (seed, p) only: hosts,
replicas and resumed runs agree, as with `order.training_indices`.

The numbers are Philox's (Salmon et al. 2011) by NumPy, whose bit generators keep their streams from
version to version: a counter for each class, so that any place is reached without those before it.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.order import stream_seed

_PER_COUNT = 4  # numbers of 64 bits that Philox gives for each value of its counter


@dataclasses.dataclass(frozen=True)
class BalancedOrder:
    """The row of a split, in any piece.

    Attributes:
        members: of each class that has examples, their indices, int64[n], rising.
        seed: of the run.
    """

    members: tuple[np.ndarray, ...]
    seed: int

    @classmethod
    def of_labels(cls, labels: np.ndarray, seed: int) -> "BalancedOrder":
        """The order of a split whose example i has the class `labels[i]`, int[n]."""
        by_class = np.argsort(labels, kind="stable").astype(np.int64)
        _, counts = np.unique(labels, return_counts=True)
        return cls(tuple(np.split(by_class, np.cumsum(counts)[:-1])), seed)

    def rounds(self, first: int, count: int) -> np.ndarray:
        """int64[count, classes]: the examples of rounds `first` to `first + count - 1`."""
        classes = len(self.members)
        places = self._permutations(classes, 0, first, count)
        visits = np.stack([self._visits(number, first, count) for number in range(classes)], axis=1)
        return np.take_along_axis(visits, places, axis=1)

    def _visits(self, number: int, first: int, count: int) -> np.ndarray:
        """int64[count]: the examples first … of one class, in the order of their visits."""
        members = self.members[number]
        size = len(members)
        epoch, skipped = divmod(first, size)
        epochs = -(-(skipped + count) // size)
        order = self._permutations(size, 1 + number, epoch, epochs).ravel()
        return members[order[skipped : skipped + count]]

    def _permutations(self, size: int, stream: int, first: int, count: int) -> np.ndarray:
        """int64[count, size]: the permutations `first` … of `range(size)` of one stream."""
        start, skipped = divmod(first * size, _PER_COUNT)
        key = stream_seed(self.seed, "balanced") % 2**64
        # The counter's low half counts along the stream, its high half names the stream.
        generator = np.random.Philox(counter=start + (stream << 128), key=key)
        numbers = generator.random_raw(skipped + count * size)[skipped:]
        return np.argsort(numbers.reshape(count, size), axis=1, kind="stable")


def balanced_indices(
    labels: np.ndarray, *, batch_size: int, seed: int, start_step: int = 0
) -> tf.data.Dataset:
    """Endless int64[batch_size] elements: the example indices of batches start_step, …

    Args:
        labels: int[n], the class of each example.
        batch_size: of the global batch.
        seed: of the run.
        start_step: the first batch wanted.
    """
    order = BalancedOrder.of_labels(labels, seed)
    classes = len(order.members)
    # As many rounds at a time as an epoch of the split has; where they are cut changes nothing.
    count = max(1, len(labels) // classes)
    first, offset = divmod(start_step * batch_size, classes)

    def piece(number):
        rounds = tf.numpy_function(
            lambda index: order.rounds(first + int(index) * count, count).ravel(),
            [number],
            tf.int64,
            stateful=False,
        )
        row = tf.ensure_shape(rounds, [count * classes])
        return row[tf.where(number == 0, tf.constant(offset, tf.int64), 0) :]

    return tf.data.Dataset.counter().map(piece).prefetch(1).rebatch(batch_size, drop_remainder=True)
