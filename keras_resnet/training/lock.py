"""One process at a time in a work directory: a lock where there are some, else a lease.

Both live in one small file, which is never replaced or removed and names the holder. Standard
library only, except in a bucket.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_resnet import storage
from keras_resnet.errors import UserError

# What the system calls answer where another process holds the lock; other errors mean that the file
# system has no locks.
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def locked(path: Path, folder: Path, warn: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """While entered, no other process can enter with the same `path`.

    On a disk the system frees the lock after a kill. In a bucket, and on a file system that refuses
    locks, a lease stands in (see `Lease`).

    Args:
        path: of the lock's file.
        folder: what is locked, for messages.
        warn: told where there are no locks.

    Yields:
        A function that raises UserError if another process has taken over, which is possible with
        a lease.

    Raises:
        UserError: another process has it; names host and process.
    """
    descriptor = None if storage.in_bucket(path) else _open_locked(path, folder, warn)
    if descriptor is None:
        with Lease(path, folder, warn) as lease:
            yield lease.check
        return
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_me()).encode(), 0)
        yield lambda: None
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _open_locked(path: Path, folder: Path, warn: Callable[[str], None]) -> int | None:
    """Returns a descriptor of the file that holds the lock, None where there are no locks."""
    while True:
        # For writing: NFS, which makes record locks of these, refuses an exclusive one else.
        # And no link that somebody else has put there.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:  # somebody removed the file: lock the one that comes next
            pass
        except OSError as error:
            os.close(descriptor)
            if error.errno in _HELD:
                raise _refused(folder, _read_soon(path)) from error
            warn(
                f"warning: {folder} is on a file system without locks ({error.strerror}); a lease "
                f"in {path.name}, renewed every {Lease.RENEWED:g} s, stands in"
            )
            return None
        os.close(descriptor)


class Lease:
    """A lock for where there are none, kept by renewing a file (Lamport 1987, Fischer's algorithm).

    Who finds the file empty, or unchanged for `PATIENCE` seconds, writes its name there and looks
    again `SETTLED` seconds later: of several that began together only the last one to write finds
    its own. That holds as long as a write arrives within SETTLED seconds of the look before it;
    TensorFlow's file systems offer no write that asks for a generation. Clocks of hosts are not
    compared. A killed process leaves its lease, which others wait out.

    Args:
        path: the file.
        folder: what is locked, for messages.
        warn: told that it has to wait.
    """

    RENEWED, PATIENCE, SETTLED = 20.0, 70.0, 5.0
    _LENGTH = 1024  # bytes of the file: more than a host's longest name takes

    def __init__(self, path: Path, folder: Path, warn: Callable[[str], None]):
        self._path, self._folder, self._warn = path, folder, warn
        self._me = {**_me(), "token": secrets.token_hex(8)}
        self._renewals = 0
        self._over = threading.Event()
        self._successor: dict[str, Any] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Lease":
        with storage.explain_bucket_errors(self._path):
            if (holder := _read(self._path)) and not _is_dead(holder):
                self._wait_out(holder)
            self._write()
            time.sleep(self.SETTLED)
            if (holder := _read(self._path)) is None or holder.get("token") != self._me["token"]:
                raise _refused(self._folder, holder)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        assert self._thread is not None
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # others wait it out
            if (_read(self._path) or {}).get("token") == self._me["token"]:
                self._path.write_text("")

    def check(self) -> None:
        """Raises UserError if another process holds the lease, as after a pause of this one."""
        if self._successor is not None:
            raise UserError(
                f"--workdir={self._folder}: {_named(self._successor)} has taken over, as the lease "
                f"of this process was not renewed for {self.PATIENCE:g} s; it goes on, not this one"
            )

    def _wait_out(self, holder: dict[str, Any]) -> None:
        self._warn(
            f"{_named(holder)} has a lease on {self._folder}; waiting up to {self.PATIENCE:g} s to "
            "see whether it is renewed"
        )
        end = time.monotonic() + self.PATIENCE
        while time.monotonic() < end:
            time.sleep(min(1.0, self.PATIENCE / 10))
            now = _read(self._path)
            if now is None:
                return
            if now != holder:
                raise _refused(self._folder, now)

    def _renew(self) -> None:
        while not self._over.wait(self.RENEWED):
            with contextlib.suppress(Exception):  # the next renewal may get through
                holder = _read(self._path)
                if holder is not None and holder.get("token") != self._me["token"]:
                    self._successor = holder
                    return
                self._write()

    def _write(self) -> None:
        self._renewals += 1
        text = json.dumps({**self._me, "renewals": self._renewals})
        if storage.in_bucket(self._path):  # where a file appears whole or not at all
            self._path.write_text(text)
            return
        # In place, in one piece and always as long: opening it anew would empty the file first, and
        # who looks just then would take it for given back.
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            os.pwrite(descriptor, text.encode().ljust(self._LENGTH), 0)
        finally:
            os.close(descriptor)


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), "machine": _machine()}


def _machine() -> str | None:
    """Returns what two processes share if each sees the other's number; None if that is unknown.

    Containers may have equal host names, and numbers of their own.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def _read(path: Path) -> dict[str, Any] | None:
    """Returns who holds the lock or lease, None if nobody is named."""
    try:
        return storage.read_json(path) or None
    except OSError:
        return None


def _read_soon(path: Path) -> dict[str, Any] | None:
    """Returns who holds the lock, who may have it since a moment only."""
    for _ in range(20):
        if (holder := _read(path)) is not None:
            return holder
        time.sleep(0.01)
    return None


def _is_dead(holder: dict[str, Any]) -> bool:
    """Returns whether the holder was a process of this machine that is gone."""
    process, machine = holder.get("process"), holder.get("machine")
    if machine is None or machine != _machine() or type(process) is not int:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _named(holder: dict[str, Any] | None) -> str:
    if not holder:
        return "another process"
    return f"process {holder.get('process')!r} on host {holder.get('host')!r}"


def _refused(folder: Path, holder: dict[str, Any] | None) -> UserError:
    who = f" ({_named(holder)})" if holder else ""
    return UserError(
        f"--workdir={folder}: another process is training here{who}; wait for it, or take another "
        "folder"
    )
