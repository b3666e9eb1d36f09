"""Damaged files end in an image or in the documented error: no crash, no hang, bounded memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz_images.py")
# The largest image that is decoded takes 512 MiB, and cropping and resizing it some more.
MEMORY_MIB = 2500


@pytest.mark.parametrize(
    "count",
    [pytest.param(150, marks=pytest.mark.ci), pytest.param(10_000, marks=pytest.mark.slow)],
    ids=["few", "many"],
)
def test_damaged_files(count):
    """In a process of its own, so that a crash of a decoder is seen as one."""
    done = subprocess.run(
        [sys.executable, str(PROGRAM), f"--count={count}"],
        capture_output=True, text=True, timeout=120 + count / 5,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"file {lines[-1] if lines else None}: {done.stderr[-2000:]}"
    assert lines[-2] == str(count - 1)
    found = json.loads(lines[-1])
    assert found["refused"] + found["decoded"] == 3 * count
    # Both happen often: neither is everything let through, nor everything refused.
    assert min(found["refused"], found["decoded"]) > count // 2
    assert found["grown_mib"] < MEMORY_MIB
