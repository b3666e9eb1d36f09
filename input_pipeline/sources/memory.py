"""How much memory a process may still take, asked before it is taken. Standard library only."""

from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
# (limit, usage, statistics, key of the page cache that can be given back) of control groups.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def available_bytes(meminfo: Path = _MEMINFO, groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """What the machine and its container leave, in bytes; None where that cannot be told."""
    found = []
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    except (OSError, ValueError):
        pass
    for limit, usage, statistics, key in _GROUPS:
        try:
            allowed = int((groups / limit).read_text())
            used = int((groups / usage).read_text())
        except (OSError, ValueError):  # not in such a group, or "max": no limit
            continue
        found.append(max(0, allowed - used + _statistic(groups / statistics, key)))
    return min(found, default=None)


def _statistic(path: Path, key: str) -> int:
    try:
        rows = dict(line.split() for line in path.read_text().splitlines())
        return int(rows.get(key, 0))
    except (OSError, ValueError):
        return 0


def readable(size: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
