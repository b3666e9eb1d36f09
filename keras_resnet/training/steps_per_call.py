"""How many steps one call of a compiled loop makes."""

from collections.abc import Callable

# A signal is answered between two calls, so this is how long it waits, or one step if that takes
# longer. Long enough that leaving and entering the compiled loop costs nothing measurable.
SECONDS_PER_CALL = 2.0


class StepsPerCall:
    """Chooses the steps of each call so that it takes about `SECONDS_PER_CALL`.

    The first call, which compiles, and the second, which is timed, make one step each.

    Args:
        mean_over_hosts: on several hosts, which must all make the same calls, the mean of a value
            over them: they agree once, after the second call. None: there is one host.
    """

    def __init__(self, mean_over_hosts: Callable[[float], float] | None = None):
        self._mean_over_hosts = mean_over_hosts
        self._calls = 0
        self._seconds_per_step: float | None = None

    def choose(self, most: int) -> int:
        """Returns the steps of the next call, 1 to `most`."""
        if self._seconds_per_step is None:
            return 1
        fit = int(SECONDS_PER_CALL / max(self._seconds_per_step, 1e-6))
        return max(1, min(most, fit))

    def took(self, steps: int, seconds: float) -> None:
        """Takes note of how long a call of `steps` steps took."""
        self._calls += 1
        if self._calls == 1:
            return
        if self._mean_over_hosts is None:
            self._seconds_per_step = seconds / steps
        elif self._seconds_per_step is None:
            self._seconds_per_step = self._mean_over_hosts(seconds / steps)
