"""Damaged files end in an image or in the documented error: no crash, no hang, bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzz_images.py")
# What one image may take, with what the process keeps of those before.
MEMORY_MIB = 600
SECONDS = 2.0


@pytest.mark.parametrize("sizes", [[], ["--real-sizes"]], ids=["small", "real"])
@pytest.mark.parametrize(
    "count",
    [pytest.param(100, marks=pytest.mark.ci), pytest.param(10_000, marks=pytest.mark.slow)],
    ids=["few", "many"],
)
def test_damaged_files(count, sizes):
    """In a process of its own, so that a crash of a decoder is seen as one.

    KERAS_RESNET_PHOTOS names a folder or ZIP archive of photos to damage, in place of drawn ones.
    """
    if sizes and (photos := os.environ.get("KERAS_RESNET_PHOTOS")):
        sizes = [f"--photos={photos}"]
    done = subprocess.run(
        [sys.executable, str(PROGRAM), f"--count={count}", *sizes],
        capture_output=True, text=True, timeout=120 + count / 5,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"file {lines[-1] if lines else None}: {done.stderr[-2000:]}"
    assert lines[-2] == str(count - 1)
    found = json.loads(lines[-1])
    assert found["refused"] + found["decoded"] == 3 * count
    # Both happen often: neither is everything let through, nor everything refused.
    assert min(found["refused"], found["decoded"]) > count // 4
    assert found["grown_mib"] < MEMORY_MIB
    assert found["slowest_s"] < SECONDS
