"""What processes say to each other before a run begins: lines of text over a connection."""

import socket
import time
from collections.abc import Mapping
from typing import Any

WORD = "keras_resnet"  # so that nobody else's JSON is taken for one of ours
_LONGEST = 2**20  # bytes of a line


class Line:
    """Lines of text over a connection, all of them within `patience` seconds."""

    def __init__(self, connection: socket.socket, patience: float):
        self.connection, self.end = connection, time.monotonic() + patience
        self.received = b""

    def _set_time_out(self) -> None:
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.settimeout(left)

    def send(self, line: bytes) -> None:
        self._set_time_out()
        self.connection.sendall(line)

    def receive(self) -> bytes:
        while b"\n" not in self.received:
            self._set_time_out()
            part = self.connection.recv(2**16)
            if not part or len(self.received) > _LONGEST:
                raise ConnectionError
            self.received += part
        line, _, self.received = self.received.partition(b"\n")
        return line + b"\n"


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Returns in words what is not the same here and there, by name."""
    return [
        f"{key} is {ours.get(key)!r} here and {theirs.get(key)!r} there"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
    ]
