"""The hosts of a `multi_worker` run meet before TensorFlow starts, and compare what they are to do.

TensorFlow itself waits for missing hosts without end and without a word, waits so for whatever else
has the address of one, and trains on where hosts were given different configs: what one then
records belongs to none. So each host listens at its own address and calls at the others'. A call is
three lines of text: the caller's introduction, the answer's, and a word that it has come. An
introduction is JSON, the values that have to be the same on every host.
"""

import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from keras_resnet.errors import UserError
from keras_resnet.training.spoken import WORD, Line, differences
from keras_resnet.training.tensorflow.cluster import Cluster

_HEARD = b"heard\n"
_PATIENCE = 5.0  # seconds for one call
_PAUSE = 0.2  # seconds until the next call at a host that has not answered


def wait_for_hosts(cluster: Cluster, timeout: float, introduction: Mapping[str, Any]) -> None:
    """Returns when every host of the cluster has introduced itself with the same values.

    Args:
        cluster: who is waited for.
        timeout: seconds. It holds whatever answers at an address.
        introduction: what must be the same on every host, by name; values as JSON has them.

    Raises:
        UserError: some do not answer in time, or our own address cannot be taken, or a host
            introduces itself with other values; names hosts and values.
    """
    # As it comes back out of JSON, where a tuple is a list.
    meeting = _Meeting(cluster, json.loads(json.dumps(introduction)), time.monotonic() + timeout)
    with meeting.listening():
        while missing := meeting.missing():
            for address in missing:
                meeting.call(address)
            if meeting.missing():
                if meeting.seconds_left() <= 0:
                    break
                time.sleep(_PAUSE)
    meeting.check_introductions()  # says more than that somebody is missing
    if missing:
        names = ", ".join(f"{address} ({meeting.reasons[address]})" for address in missing)
        raise UserError(
            f"strategy=multi_worker: no answer from {names} within {timeout:g} s; start "
            "the same command on every host of TF_CONFIG, or raise config.connect_timeout"
        )


@dataclasses.dataclass
class _Meeting:
    cluster: Cluster
    introduction: dict[str, Any]
    deadline: float
    introductions: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    reasons: dict[str, str] = dataclasses.field(default_factory=dict)

    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def missing(self) -> list[str]:
        """Addresses that have not introduced themselves, in order."""
        ours = self.cluster.addresses[self.cluster.index]
        return [
            address
            for address in self.cluster.addresses
            if address != ours and address not in self.introductions
        ]

    def check_introductions(self) -> None:
        introduced = [one for one in self.cluster.addresses if one in self.introductions]
        for address in introduced:
            theirs = self.introductions[address]
            differing = differences(self.introduction, theirs)
            if differing:
                raise UserError(
                    f"strategy=multi_worker: this host and {address} do not train the same: "
                    f"{'; '.join(differing)}. Start the same command, with the same version of "
                    "everything, on every host"
                )

    # ---- The three lines ------------------------------------------------------------------------

    def call(self, address: str) -> None:
        """Calls at an address; notes the introduction of who answers, or why there is none."""
        host, _, port = address.rpartition(":")
        patience = min(_PATIENCE, max(self.seconds_left(), 0.1))
        try:
            connection = socket.create_connection((host.strip("[]"), int(port)), patience)
        except OSError as error:
            self.reasons[address] = error.strerror or str(error)
            return
        with connection:
            self.reasons[address] = "something else than keras-resnet answers there"
            with contextlib.suppress(OSError, ValueError):
                line = Line(connection, patience)
                line.send(self._ours())
                theirs = _read_introduction(line.receive())
                line.send(_HEARD)
                self._note(address, theirs)

    def answer(self, connection: socket.socket) -> None:
        """Answers one call; whoever does not speak as our hosts do is not heard."""
        with connection, contextlib.suppress(OSError, ValueError):
            line = Line(connection, _PATIENCE)
            theirs = _read_introduction(line.receive())
            line.send(self._ours())
            if line.receive() == _HEARD:
                self._note(theirs["address"], theirs)

    def _ours(self) -> bytes:
        ours = self.cluster.addresses[self.cluster.index]
        said = {"word": WORD, "address": ours, "values": self.introduction}
        return json.dumps(said).encode() + b"\n"

    def _note(self, address: str, introduction: dict[str, Any]) -> None:
        self.introductions[address] = introduction["values"]

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """A context in which calls are answered, by a thread."""
        address = self.cluster.addresses[self.cluster.index]
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                server.bind(("", int(port)))  # as TensorFlow's server, on every interface
                server.listen(128)
            except OSError as error:
                raise UserError(
                    f"strategy=multi_worker: our own address {address} cannot be taken "
                    f"({error.strerror}); another process may hold the port"
                ) from error
            server.settimeout(_PAUSE)
            ended = threading.Event()
            thread = threading.Thread(target=self._answer_all, args=(server, ended), daemon=True)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()

    def _answer_all(self, server: socket.socket, ended: threading.Event) -> None:
        calls: list[threading.Thread] = []
        while not ended.is_set():
            with contextlib.suppress(OSError):  # nobody called
                connection, _ = server.accept()
                # Whoever only holds the line must not keep the others from being heard.
                call = threading.Thread(target=self.answer, args=(connection,), daemon=True)
                call.start()
                calls = [call, *(each for each in calls if each.is_alive())]
        for call in calls:  # who is being answered shall hear the end of it
            call.join(_PATIENCE)


def _read_introduction(line: bytes) -> dict[str, Any]:
    said = json.loads(line)
    if not isinstance(said, dict) or said.get("word") != WORD:
        raise ValueError("not one of our hosts")
    if not isinstance(said.get("address"), str) or not isinstance(said.get("values"), dict):
        raise ValueError("not an introduction")
    return said
