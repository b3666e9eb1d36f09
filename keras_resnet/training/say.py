"""The one voice of a run: lines, the progress bar and the log, on the first host only."""

import contextlib
import datetime
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import tqdm

from keras_resnet.errors import UserError
from keras_resnet.printing import printable_lines
from keras_resnet.storage import explain_bucket_errors


class OutputLost(UserError):
    """What a run said could not all be written; the run itself is through."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class Say:
    """Speaks to the person at the terminal; `say(line)` prints a line.

    A run goes on where its output does not: a closed terminal, a full disk, a reader that left. So
    nothing here raises; every line also goes into a log, and `failure` is for the end of the run.

    Args:
        enabled: False keeps silent, as all hosts of a run but the first do.

    Attributes:
        failure: the first error of standard output, None if there was none.
    """

    def __init__(self, enabled: bool = True):
        self.enabled = enabled
        self.failure: Exception | None = None
        self._log: Path | None = None
        self._unlogged: list[str] = []
        self._lock = threading.RLock()

    def __call__(self, line: str) -> None:
        """Prints a line without tearing the progress bar."""
        if self.enabled:
            with self._lock:  # the pipeline has threads of its own
                self._print(line)

    def _print(self, line: str) -> None:
        line = printable_lines(line)
        now = f"{datetime.datetime.now():%Y-%m-%d %H:%M:%S}"
        self._unlogged.append(f"{now} {_in_encoding(line, 'utf-8')}\n")
        self._write_log()
        if sys.stdout is None:  # closed by whoever started the process
            return
        try:
            encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
            tqdm.tqdm.write(_in_encoding(line, encoding), file=sys.stdout)
            sys.stdout.flush()
        except (OSError, ValueError) as error:  # ValueError: a closed file
            self.failure = self.failure or error

    def at_once(self, line: str) -> None:
        """Writes a line to standard error, from any thread.

        Not through Python's buffer: the main thread may hold its lock for as long as it computes.
        """
        if self.enabled:
            try:
                os.write(2, f"\n{line}\n".encode())
            except OSError as error:
                self.failure = self.failure or error

    @contextlib.contextmanager
    def speaks_for(self, name: str) -> Iterator[None]:
        """Says what a logger of this name is told; on a host that keeps silent it logs as ever."""
        if not self.enabled:
            yield
            return
        logger, handler = logging.getLogger(name), _Hears(self)
        before, logger.propagate = logger.propagate, False
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = before

    def keep_log(self, path: Path) -> None:
        """Adds to the file `path` what is said from now on, and what was said before."""
        self._log = path
        self._write_log()

    def check_output(self) -> None:
        """Raises OutputLost if something that was said has reached nobody.

        Its code is 141 where the reader of a pipe has left, as shells have it, else 1.
        """
        if self.failure is None:
            return
        broken = isinstance(self.failure, BrokenPipeError)
        reason = getattr(self.failure, "strerror", None) or self.failure
        kept = f"; what it said is in {self._log}" if self._log and not self._unlogged else ""
        raise OutputLost(
            f"the output of this run could not be written ({reason}). Training went on to its end, "
            f"and all of it is saved{kept}",
            code=128 + 13 if broken else 1,
        )

    def progress_bar(self, total: int, initial: int) -> tqdm.tqdm:
        """Returns a progress bar of steps; there is none where the output is no terminal."""
        return tqdm.tqdm(
            total=total,
            initial=initial,
            unit="step",
            disable=None if self.enabled and sys.stderr is not None else True,
            dynamic_ncols=True,
            desc="compiling",
        )

    def _write_log(self) -> None:
        if self._log is None:
            return
        try:
            with explain_bucket_errors(self._log), self._log.open("a", encoding="utf-8") as file:
                file.write("".join(self._unlogged))
        except (OSError, UserError):  # another line tries again
            return
        self._unlogged.clear()


class _Hears(logging.Handler):
    """Says what is logged."""

    def __init__(self, say: Say):
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


def _in_encoding(line: str, encoding: str) -> str:
    """Returns `line` with escapes for what the encoding does not have."""
    return line.encode(encoding, "backslashreplace").decode(encoding)


say = Say()
silence = Say(enabled=False)
