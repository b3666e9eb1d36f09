"""The lock of a work directory, and the lease where there are no locks."""

import errno
import fcntl
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_resnet.errors import UserError
from keras_resnet.training.lock import Lease, locked

RACES = 200


@pytest.fixture
def quick(monkeypatch):
    """Leases that live for a moment, but long enough for the threads of a busy machine."""
    for name, seconds in (("RENEWED", 0.05), ("PATIENCE", 2.0), ("SETTLED", 0.3)):
        monkeypatch.setattr(Lease, name, seconds)


def _enter(folder, warn=lambda line: None):
    return locked(folder / ".lock", folder, warn)


def _race(folder, barrier, counts):
    """Takes part in each race; holds what it gets until the other one has tried, too."""
    for number in range(RACES):
        barrier.wait()
        place = Path(folder, str(number))
        try:
            with _enter(place):
                counts.put(number)
                barrier.wait()
        except UserError:
            barrier.wait()


def test_of_two_that_start_at_once_one_gets_it(tmp_path):
    """The file does not exist before, so that its making is part of the race."""
    context = multiprocessing.get_context("fork")
    for number in range(RACES):
        (tmp_path / str(number)).mkdir()
    barrier, counts = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, barrier, counts)) for _ in range(2)]
    for racer in racers:
        racer.start()
    winners = sorted(counts.get(timeout=60) for _ in range(RACES))
    for racer in racers:
        racer.join()
    assert winners == list(range(RACES))
    assert counts.empty()


def test_the_error_names_host_and_process(tmp_path):
    with (
        _enter(tmp_path),
        pytest.raises(
            UserError,
            match=f"another process is training here .process {os.getpid()} on host "
            f"{socket.gethostname()!r}.; wait",
        ),
        _enter(tmp_path),
    ):
        pass
    with _enter(tmp_path):  # free again
        pass


def test_the_file_is_opened_for_writing_and_never_replaced(tmp_path):
    """NFS refuses an exclusive lock on a descriptor that cannot write: EBADF."""
    before = None
    for _ in range(2):
        with _enter(tmp_path):
            (descriptor,) = _descriptors_of(tmp_path / ".lock")
            assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
            now = (tmp_path / ".lock").stat().st_ino
            assert before in (None, now)
            before = now


def _descriptors_of(path):
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.stat(path), os.fstat(int(name))):
                yield int(name)
        except OSError:
            continue


def test_a_lock_file_that_somebody_removes_is_no_hole(tmp_path, monkeypatch):
    flock, calls = fcntl.flock, []

    def late(descriptor, operation):
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / ".lock").unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with _enter(tmp_path):
        assert len(calls) == 2
        with pytest.raises(UserError, match="another process"), _enter(tmp_path):
            pass


def test_a_kill_frees_it(tmp_path):
    program = (
        "import sys, time\nfrom pathlib import Path\n"
        "import keras_resnet_cli; keras_resnet_cli.defer_loading()\n"
        "from keras_resnet.training.lock import locked\n"
        f"with locked(Path({str(tmp_path)!r}, '.lock'), Path({str(tmp_path)!r}), print):\n"
        "    print('held', flush=True)\n    time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"process {holder.pid} on host"), _enter(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with _enter(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS])
def test_where_locks_are_refused_a_lease_stands_in_and_it_is_said(
    number, tmp_path, monkeypatch, quick
):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = []
    with _enter(tmp_path, said.append) as check:
        assert said[0].startswith(f"warning: {tmp_path} is on a file system without locks")
        check()
        with pytest.raises(UserError, match=f"process {os.getpid()} on host"), _enter(tmp_path):
            pass
        check()
    begin = time.monotonic()
    with _enter(tmp_path):  # given back, not waited out
        assert time.monotonic() - begin < Lease.PATIENCE


def test_a_lease_of_a_killed_process_is_waited_out(tmp_path, quick):
    path = tmp_path / ".lock"
    path.write_text(json.dumps({"host": "gone", "process": 7, "token": "x", "renewals": 3}))
    said = []
    begin = time.monotonic()
    with Lease(path, tmp_path, said.append):
        assert time.monotonic() - begin >= Lease.PATIENCE
        assert "process 7 on host 'gone' has a lease on" in said[0]
        assert json.loads(path.read_text())["process"] == os.getpid()
    assert path.read_text() == ""


def test_a_lease_that_is_renewed_is_never_seen_empty(tmp_path, monkeypatch):
    """An empty file means that it was given back: two would then hold it."""
    for name, seconds in (("RENEWED", 0.0), ("SETTLED", 0.0)):
        monkeypatch.setattr(Lease, name, seconds)
    path = tmp_path / ".lock"
    with Lease(path, tmp_path, lambda line: None):
        renewals = set()
        begin = time.monotonic()
        # On a busy machine the other thread gets few turns.
        while (waited := time.monotonic() - begin) < 0.5 or (len(renewals) <= 10 and waited < 20):
            renewals.add(json.loads(path.read_text())["renewals"])
    assert len(renewals) > 10


def test_of_many_that_ask_for_a_lease_at_once_one_gets_it(tmp_path, quick):
    from concurrent.futures import ThreadPoolExecutor

    def ask(_):
        try:
            with Lease(tmp_path / ".lock", tmp_path, lambda line: None):
                time.sleep(0.5)
        except UserError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 1


def test_who_lost_its_lease_is_told_before_it_writes(tmp_path, quick):
    with Lease(tmp_path / ".lock", tmp_path, lambda line: None) as lease:
        lease.check()
        taken = json.dumps({"host": "other", "process": 9, "token": "y"})
        (tmp_path / ".lock").write_text(taken)
        deadline = time.monotonic() + 5
        while lease._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(UserError, match="process 9 on host 'other' has taken over"):
            lease.check()
    assert (tmp_path / ".lock").read_text() == taken
