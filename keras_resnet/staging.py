"""Folders that are filled under a name of their own and renamed when they are whole.

Several processes may fill folders in one place at once, on several machines and in containers,
where numbers of processes mean nothing. So each folder has a random name and a lock file beside it,
which the system frees when its process ends, however it does. Who comes next removes what is free.
Standard library only: the input pipeline, too, may import this.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_LOCK = ".lock"
# How long a folder without a lock must have lain untouched before it is removed: one of an older
# version of this package, or on a file system that has no locks.
_ABANDONED = 24 * 3600.0


@contextlib.contextmanager
def staging_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields a new, empty folder in `parent`; it is removed at the end unless it was renamed.

    Folders of the same prefix that killed processes have left are removed first, those of live ones
    never.

    Args:
        parent: an existing folder.
        prefix: of the name, the same for all that are filled for one purpose; begins with a dot.

    Raises:
        OSError: `parent` cannot be written.
    """
    folder, lock = _make(parent, prefix)
    try:
        _remove_abandoned(parent, prefix, os.fstat(lock).st_mtime)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # The lock last: a folder without one is nobody's.
        _lock_of(folder).unlink(missing_ok=True)
        os.close(lock)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder and the descriptor of its lock, which is held."""
    while True:
        folder = parent / f"{prefix}{secrets.token_hex(8)}"
        # O_EXCL: no file or link that is there already is opened.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        lock = os.open(_lock_of(folder), flags, 0o666)
        try:
            if _holds(lock, _lock_of(folder)) is not False:
                folder.mkdir()
                return folder, lock
        except FileExistsError:
            pass
        except BaseException:
            os.close(lock)
            _lock_of(folder).unlink(missing_ok=True)
            raise
        os.close(lock)  # somebody took the lock for one that was left, and removes it


def _holds(lock: int, path: Path) -> bool | None:
    """Locks a file; False if another process has it or removed it, None if there are no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    try:
        return os.path.samestat(os.fstat(lock), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_abandoned(parent: Path, prefix: str, now: float) -> None:
    """Removes folders of the prefix whose lock is free, and very old ones without a lock.

    Args:
        parent: where they lie.
        prefix: of their names.
        now: the time by the clock of the file system.
    """
    ours = re.compile(re.escape(prefix) + r"[0-9a-f]+")
    for entry in list(parent.iterdir()):
        folder = entry.with_name(entry.name.removesuffix(_LOCK))
        if ours.fullmatch(folder.name):
            with contextlib.suppress(OSError):  # another process removes it as well
                _remove_if_abandoned(folder, now)


def _remove_if_abandoned(folder: Path, now: float) -> None:
    try:
        lock = os.open(_lock_of(folder), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        if now - _last_touched(folder) > _ABANDONED:
            shutil.rmtree(folder)
        return
    try:
        held = _holds(lock, _lock_of(folder))
        if held is None and now - _last_touched(folder) > _ABANDONED:
            held = True
        if held:
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            _lock_of(folder).unlink()
    finally:
        os.close(lock)


def _last_touched(folder: Path) -> float:
    times = [folder.lstat().st_mtime] if os.path.lexists(folder) else [0.0]
    for parent, _, files in os.walk(folder):
        times += [os.lstat(os.path.join(parent, name)).st_mtime for name in (".", *files)]
    return max(times)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)
