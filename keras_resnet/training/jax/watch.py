"""Notices that another process of a run is gone, and ends this one in a line.

JAX's own service does so after a minute, by a signal with a stack of C++, as a collective operation
waits in it for good. Here every process holds a line to process 0 and is heard on it every few
seconds; the system hangs up for one that is killed. Where the lines cannot be laid (a firewall)
JAX's own notice is what is left.
"""

import contextlib
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable

import numpy as np
from jax.experimental import multihost_utils

from keras_resnet.errors import HostLost
from keras_resnet.printing import printable_lines

BEAT = 2.0  # seconds from one sign of life to the next
SILENCE = 30.0  # seconds without one after which a process is lost
_GRACE = 3.0  # seconds for our own error to be said, which may be the cause
_ALIVE, _DONE = b".", b"!"
_ADDRESS = 256  # bytes of an address that is told to all


def lay_lines(index: int, count: int, host: str = "") -> dict[int, socket.socket]:
    """Connects every process with process 0; all call it at the same place.

    Args:
        index: of this process.
        count: of all.
        host: by which the others reach process 0; "" for its name.

    Returns:
        Process 0: the line to each other process that came within some seconds. The others: that to
        process 0, or nothing.
    """
    server, said = None, b""
    if index == 0:
        with contextlib.suppress(OSError):
            server = socket.create_server(("", 0), backlog=count)
            said = f"{host or socket.getfqdn()} {server.getsockname()[1]}".encode()[:_ADDRESS]
    told = np.zeros(_ADDRESS, np.uint8)
    told[: len(said)] = np.frombuffer(said, np.uint8)
    told = np.asarray(multihost_utils.broadcast_one_to_all(told))
    address = told.tobytes().rstrip(b"\0").decode(errors="replace").split(" ")
    if index == 0:
        return _accept(server, count) if server is not None else {}
    with contextlib.suppress(OSError, ValueError):
        line = socket.create_connection((address[0], int(address[1])), timeout=5)
        line.sendall(f"{index}\n".encode())
        return {0: line}
    return {}


def _accept(server: socket.socket, count: int) -> dict[int, socket.socket]:
    lines: dict[int, socket.socket] = {}
    end = time.monotonic() + 10
    with server:
        while len(lines) < count - 1 and (left := end - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError):
                line, _ = server.accept()
                line.settimeout(5)
                index = int(line.makefile("rb").readline(16))
                if 0 < index < count:
                    lines[index] = line
    return lines


class Watch:
    """Watches the other ends of lines in a thread, until `leave`.

    Args:
        lines: of `lay_lines`.
        lost: called with the number of a process that is gone, once, in the thread.
    """

    def __init__(self, lines: dict[int, socket.socket], lost: Callable[[int], None]):
        self._lines, self._lost = dict(lines), lost
        self._heard = dict.fromkeys(lines, time.monotonic())
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if lines:
            self._thread.start()

    def leave(self, done: bool) -> None:
        """Stops watching; the others hear whether this process has ended as it should."""
        self._left.set()
        if self._thread.is_alive():
            self._thread.join(2 * BEAT)
        for line in self._lines.values():
            with contextlib.suppress(OSError):
                if done:
                    line.sendall(_DONE)
            line.close()
        self._lines.clear()

    def _watch(self) -> None:
        beat = 0.0
        while not self._left.is_set() and self._lines:
            if time.monotonic() > beat:
                beat = time.monotonic() + BEAT
                for line in self._lines.values():
                    with contextlib.suppress(OSError):  # what cannot be said shows in what is heard
                        line.send(_ALIVE)
            ready, _, _ = select.select([*self._lines.values()], [], [], 0.5)
            for index, line in [*self._lines.items()]:
                if line in ready:
                    self._hear(index, line)
                elif time.monotonic() - self._heard[index] > SILENCE:
                    self._gone(index)

    def _hear(self, index: int, line: socket.socket) -> None:
        try:
            heard = line.recv(4096)
        except OSError:
            heard = b""
        if _DONE in heard:
            self._lines.pop(index).close()
        elif heard:
            self._heard[index] = time.monotonic()
        else:
            self._gone(index)

    def _gone(self, index: int) -> None:
        self._lines.pop(index).close()
        # Without process 0, which runs its service, JAX ends this one at once.
        if not self._left.wait(_GRACE if index else 0):
            self._left.set()
            self._lost(index)


def end_process(index: int, count: int) -> None:
    """Says in a line that a process is lost, and ends this one, whatever it waits in."""
    text = (
        f"keras-resnet: engine=jax: process {index} of {count} is lost, or has ended with an "
        "error; start the same command in every process again, it resumes at the newest checkpoint"
    )
    with contextlib.suppress(OSError):
        print(printable_lines(text), file=sys.stderr, flush=True)
    os._exit(HostLost.code)
