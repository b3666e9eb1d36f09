"""The one voice of a run: lines and the progress bar, on the first host only."""

import os
import sys

import tqdm


class Say:
    """Speaks to the person at the terminal; `say(line)` prints a line.

    Args:
        enabled: False keeps silent, as all hosts of a run but the first do.
    """

    def __init__(self, enabled: bool = True):
        self.enabled = enabled

    def __call__(self, line: str) -> None:
        """Prints a line without tearing the progress bar."""
        if self.enabled:
            tqdm.tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def at_once(self, line: str) -> None:
        """Writes a line to standard error, from any thread.

        Not through Python's buffer: the main thread may hold its lock for as long as it computes.
        """
        if self.enabled:
            os.write(2, f"\n{line}\n".encode())

    def progress_bar(self, total: int, initial: int) -> tqdm.tqdm:
        """Returns a progress bar of steps; there is none where the output is no terminal."""
        return tqdm.tqdm(
            total=total,
            initial=initial,
            unit="step",
            disable=None if self.enabled else True,
            dynamic_ncols=True,
            desc="compiling",
        )


say = Say()
silence = Say(enabled=False)
