"""How many steps one call of a compiled loop makes."""

import time

import tensorflow as tf

from keras_resnet.training.tensorflow import agreement

# A signal is answered between two calls, so this is how long it waits, or one step if that takes
# longer. Long enough that leaving and entering the compiled loop costs nothing measurable.
SECONDS_PER_CALL = 2.0


class Pace:
    """Chooses the steps of each call so that it takes about `SECONDS_PER_CALL`.

    The first call, which compiles, and the second, which is timed, make one step each. On several
    hosts all must make the same calls: they agree once, after the second one.

    Args:
        strategy: says whether there are several hosts.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self._several_hosts = agreement.several_hosts(strategy)
        self._calls = 0
        self._seconds_per_step: float | None = None

    def steps(self, most: int) -> int:
        """Returns the steps of the next call, 1 to `most`."""
        if self._seconds_per_step is None:
            return 1
        fit = int(SECONDS_PER_CALL / max(self._seconds_per_step, 1e-6))
        return max(1, min(most, fit))

    def time(self, call, *args):
        """Returns what `call(*args, steps)` gives as NumPy, and its seconds; learns from it.

        The last argument is the number of steps, a tensor, so that another number is no new trace.
        """
        begin = time.perf_counter()
        results = tf.nest.map_structure(lambda tensor: tensor.numpy(), call(*args))
        seconds = time.perf_counter() - begin
        self._calls += 1
        if self._calls > 1 and not (self._several_hosts and self._seconds_per_step):
            self._seconds_per_step = agreement.mean(self._strategy, seconds / int(args[-1]))
        return results, seconds
