"""SIGTERM, SIGINT, SIGHUP: save at the next step and leave; a second SIGINT leaves at once."""

import os
import signal
import socket
import threading

from keras_resnet.training.say import Say, say

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def exit_code(number: int) -> int:
    """Returns the exit code of a run that `number` ended, as shells have it: 130, 143, 129."""
    return 128 + number


class Interruption:
    """While entered, SIGNALS only leave a request that the training loop looks at.

    SIGHUP, which a closed terminal sends, stays ignored where it was: `nohup` has asked for that.

    Python runs its signal handlers between two instructions of the main thread, which may be inside
    a compiled loop for a while. The signal's number therefore also goes through a socket to a
    thread, which answers at once. Outside the main thread, where Python allows no handlers, this
    does nothing.

    Args:
        say: speaks of the signal.

    Attributes:
        signal: the number of the first signal that came, None before.
    """

    def __init__(self, say: Say = say):
        self.signal: int | None = None
        self._say = say
        self._interrupts = 0
        self._thread: threading.Thread | None = None

    def __call__(self) -> bool:
        """Returns whether the run was asked to end."""
        return self.signal is not None

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        numbers = [number for number in SIGNALS if not _is_left_alone(number)]
        self._handlers = {number: signal.signal(number, self._ignore) for number in numbers}
        self._descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self._thread is None:
            return
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._writer.close()  # ends the thread
        self._thread.join()
        self._reader.close()
        self._thread = None

    @staticmethod
    def _ignore(number, frame) -> None:
        """The thread does what there is to do."""

    def _watch(self) -> None:
        while received := self._reader.recv(64):
            for number in received:
                self._note(number)

    def _note(self, number: int) -> None:
        if number not in SIGNALS:  # the program's own signals come along
            return
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            self._say.at_once("SIGINT again: leaving at once, without saving")
            os._exit(exit_code(number))
        if self.signal is None or number == signal.SIGINT:
            self.signal = self.signal or number
            name, how = signal.Signals(number).name, "again" if self._interrupts else "twice"
            self._say.at_once(
                f"{name}: saving at the next step, then leaving; Ctrl-C {how} leaves at once"
            )


def _is_left_alone(number: int) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
