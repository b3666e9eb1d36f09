"""The meeting of processes before JAX starts; it needs no JAX."""

import socket
import threading
import time

import pytest
from test_training_equality import free_ports

from keras_resnet.errors import UserError
from keras_resnet.training.jax.rendezvous import meet

VALUES = {"config.batch_size": 32, "config.model.depths": (1, 1)}


def meet_all(*calls, timeout=5.0, address=None):
    """Calls `meet` in threads; `calls` are (count, index, values); returns what each was told."""
    address = address or f"127.0.0.1:{free_ports(1)[0]}"
    told = [None] * len(calls)

    def run(place, count, index, values):
        try:
            meet(address, count, index, timeout, values)
            told[place] = ""
        except UserError as error:
            told[place] = str(error)

    threads = [
        threading.Thread(target=run, args=(place, *call), daemon=True)
        for place, call in enumerate(calls)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout + 15)
        assert not thread.is_alive()
    return told


def test_all_come_and_the_port_is_free_again():
    address = f"127.0.0.1:{free_ports(1)[0]}"
    assert meet_all((3, 0, VALUES), (3, 2, VALUES), (3, 1, VALUES), address=address) == [""] * 3
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", int(address.rpartition(":")[2])))
    assert meet_all((1, 0, VALUES)) == [""]  # alone


def test_who_differs_is_said_to_all():
    other = {**VALUES, "config.batch_size": 64}
    told = meet_all((3, 0, VALUES), (3, 1, VALUES), (3, 2, other), timeout=3.0)
    assert told[0] == told[2]
    assert "process 0 (here) and process 2 (there)" in told[0]
    assert "config.batch_size is 32 here and 64 there" in told[0]
    assert told[1]  # ended as well, whether or not it had come by then
    told = meet_all((2, 0, VALUES), (3, 1, VALUES), timeout=3.0)
    assert "config.distributed.num_processes is 2 here and 3 there" in told[0] == told[1]


def test_who_is_missing_and_who_comes_twice():
    told = meet_all((4, 0, VALUES), (4, 2, VALUES), timeout=1.0)
    assert "of the 4 processes number 1, 3 did not come" in told[0]
    assert told[0] == told[1]
    told = meet_all((3, 0, VALUES), (3, 1, VALUES), (3, 1, VALUES), timeout=3.0)
    assert "came to" in told[0]
    assert "config.distributed.process_id=1, which is taken" in told[0]


@pytest.mark.ci
def test_nobody_and_a_stranger_at_the_address():
    begin = time.monotonic()
    (told,) = meet_all((2, 1, VALUES), timeout=1.0)
    assert "no answer from process 0" in told
    assert "Connection refused" in told
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        stranger.listen()
        address = f"127.0.0.1:{stranger.getsockname()[1]}"
        (told,) = meet_all((2, 1, VALUES), timeout=1.0, address=address)
    assert "something else than keras-resnet answers there" in told
    assert time.monotonic() - begin < 20


def test_strangers_who_call_are_not_heard():
    address = f"127.0.0.1:{free_ports(1)[0]}"
    port = int(address.rpartition(":")[2])

    def disturb():
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"word": "x"}\n', b"\xff" * 100):
            for _ in range(50):
                try:
                    with socket.create_connection(("127.0.0.1", port), 1) as connection:
                        connection.sendall(said)
                    break
                except OSError:
                    time.sleep(0.02)

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    quiet = socket.socket()  # holds the line and says nothing

    def late():
        time.sleep(0.5)
        quiet.connect(("127.0.0.1", port))
        time.sleep(0.5)
        meet(address, 2, 1, 10.0, VALUES)

    other = threading.Thread(target=late, daemon=True)
    other.start()
    with quiet:
        assert meet_all((2, 0, VALUES), timeout=10.0, address=address) == [""]
    other.join(10)
    assert not other.is_alive()


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        (told,) = meet_all((2, 0, VALUES), timeout=1.0, address=address)
    assert f"our own address {address} cannot be taken" in told
    with pytest.raises(UserError, match="no answer from process 0"):
        meet("127.0.0.1:1", 2, 1, 0.3, VALUES)
