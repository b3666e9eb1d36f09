"""The processes of a run meet at the first one's address before JAX lets them, and compare.

JAX's own service ends the process by a signal, with a stack of C++, where somebody does not come,
and trains on where processes were given different configs. So each of the others calls at the
address of the first, says which it is and what it is about to do, and hears from it whether all
have come and do the same. The port is then free again for JAX.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

from keras_resnet.errors import UserError
from keras_resnet.training.spoken import WORD, Line, differences

_PATIENCE = 5.0  # seconds for one line
_PAUSE = 0.2  # seconds until the next call
_REMEDY = "start the same command in every process, or raise config.connect_timeout"


def meet(address: str, count: int, index: int, timeout: float, values: Mapping[str, Any]) -> None:
    """Returns when all processes have come and say the same.

    Args:
        address: host:port of process 0.
        count: of the processes.
        index: of this one.
        timeout: seconds, whatever answers at the address.
        values: what must be the same in every process, by name; as JSON has them.

    Raises:
        UserError: in every process that came: one is missing or differs.
    """
    values = {**json.loads(json.dumps(values)), "config.distributed.num_processes": count}
    deadline = time.monotonic() + timeout
    if index:
        _call(address, index, deadline, timeout, values)
    elif count > 1:
        _Host(address, count, deadline, timeout, values).receive_all()


# ---- Process 0 -----------------------------------------------------------------------------------


class _Host:
    def __init__(
        self, address: str, count: int, deadline: float, timeout: float, values: dict[str, Any]
    ):
        self.address, self.count = address, count
        self.deadline, self.timeout, self.values = deadline, timeout, values
        self.came: dict[int, Line] = {}
        self.problem = ""
        self._lock = threading.Lock()

    def receive_all(self) -> None:
        with self._listening() as server:
            while not self._is_settled():
                with contextlib.suppress(OSError):  # nobody called
                    connection, _ = server.accept()
                    # Whoever only holds the line must not keep the others from being heard.
                    threading.Thread(target=self._hear, args=(connection,), daemon=True).start()
        problem = self.problem or self._missing()
        for line in self.came.values():
            with contextlib.suppress(OSError):
                line.send(json.dumps({"word": WORD, "problem": problem}).encode() + b"\n")
                line.receive()  # it hangs up first, so that the port is free at once
        if problem:
            raise UserError(problem)

    def _is_settled(self) -> bool:
        with self._lock:
            return (
                bool(self.problem)
                or len(self.came) == self.count - 1
                or time.monotonic() > self.deadline
            )

    def _missing(self) -> str:
        missing = [str(index) for index in range(1, self.count) if index not in self.came]
        if not missing:
            return ""
        return (
            f"strategy=multi_worker: of the {self.count} processes number {', '.join(missing)} did "
            f"not come to {self.address} within config.connect_timeout={self.timeout:g} s; "
            f"{_REMEDY}"
        )

    def _hear(self, connection: socket.socket) -> None:
        """Takes one call; whoever does not speak as our processes do is not heard."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            line = Line(connection, _PATIENCE)
            said = json.loads(line.receive())
            if said["word"] != WORD:
                return
            index, theirs = int(said["index"]), dict(said["values"])
            line.end = time.monotonic() + max(self.deadline - time.monotonic(), 0) + _PATIENCE
            with self._lock:
                self._note(index, theirs, line)

    def _note(self, index: int, theirs: dict[str, Any], line: Line) -> None:
        taken = index in self.came or not 0 < index < self.count
        self.came[self.count + len(self.came) if taken else index] = line
        if differing := differences(self.values, theirs):
            self.problem = (
                f"strategy=multi_worker: process 0 (here) and process {index} (there) do not train "
                f"the same: {'; '.join(differing)}. Start the same command, with the same version "
                "of everything, in every process"
            )
        elif taken:
            self.problem = (
                f"strategy=multi_worker: a process came to {self.address} as "
                f"config.distributed.process_id={index}, which is taken or none of 1 to "
                f"{self.count - 1}; every process has one of its own"
            )

    @contextlib.contextmanager
    def _listening(self):
        port = int(self.address.rpartition(":")[2])
        family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            try:
                server.bind(("", port))  # as JAX's service, on every interface
                server.listen(128)
            except OSError as error:
                raise UserError(
                    f"strategy=multi_worker: our own address {self.address} cannot be taken "
                    f"({error.strerror}); another process may hold the port"
                ) from error
            server.settimeout(_PAUSE)
            yield server


# ---- The others ----------------------------------------------------------------------------------


def _call(
    address: str, index: int, deadline: float, timeout: float, values: dict[str, Any]
) -> None:
    host, _, port = address.rpartition(":")
    reason = "nobody is there"
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise UserError(
                f"strategy=multi_worker: no answer from process 0 at {address} within "
                f"config.connect_timeout={timeout:g} s ({reason}); {_REMEDY}"
            )
        try:
            connection = socket.create_connection(
                (host.strip("[]"), int(port)), min(_PATIENCE, left)
            )
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(min(_PAUSE, left))
            continue
        with connection:
            answer = _answer_to(connection, index, left + _PATIENCE, values)
        if answer is not None:
            if answer:
                raise UserError(answer)
            return
        reason = "something else than keras-resnet answers there"
        time.sleep(min(_PAUSE, left))


def _answer_to(
    connection: socket.socket, index: int, patience: float, values: dict[str, Any]
) -> str | None:
    """Returns what is wrong in the words of process 0, "" for nothing; None if it is not it."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        line = Line(connection, patience)
        said = {"word": WORD, "index": index, "values": values}
        line.send(json.dumps(said).encode() + b"\n")
        heard = json.loads(line.receive())
        if heard["word"] == WORD:
            return str(heard["problem"])
    return None
