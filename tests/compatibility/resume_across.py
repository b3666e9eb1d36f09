"""Runs the same training with two versions of the package, killed and resumed across them.

    python resume_across.py PYTHON_1 CHECKOUT_1 PYTHON_2 CHECKOUT_2

Run by hand; version 1 is the older one. Version 1 begins the runs, as it knows no key that came
later: alone; version 2 alone, with the config.json of version 1; killed (SIGKILL) at the first
checkpoint and ended by version 2; and resumed by version 2, killed at a later checkpoint and ended
by version 2, whose checkpoints an older version does not read. All must end in the same bits of
`model.keras`, the same evaluations and the same result; exit code 1 if not. The Pythons have the
dependencies; each checkout goes first on its path.
"""

import argparse
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
from make_v0_1_0 import COMMON, KILLED

CASES = {
    "sgd": COMMON,
    "adamw, ema, mixup, dropout, pre-activation": {**COMMON, **KILLED},
}
EPOCHS = 6  # four steps each


class Version:
    """A Python and a checkout."""

    def __init__(self, python: str, checkout: str):
        self.python, self.checkout = python, str(Path(checkout).resolve())

    def start(self, workdir: Path, config: dict[str, object]) -> subprocess.Popen[str]:
        """Starts or resumes a run as a process."""
        delta = [f"--config.{key}={value}" for key, value in {**config, "epochs": EPOCHS}.items()]
        program = "import sys\nfrom keras_resnet.commands import main\nsys.exit(main())"
        train = ["train", "--config=smoke", f"--workdir={workdir}", *delta]
        return subprocess.Popen(
            [self.python, "-P", "-c", program, *train],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": self.checkout},
        )

    def finish(self, workdir: Path, config: dict[str, object]) -> str:
        """Runs to the end and returns what was printed."""
        process = self.start(workdir, config)
        output, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"{self.checkout}: exit code {process.returncode}\n{errors}")
        return output

    def kill(self, workdir: Path, config: dict[str, object], checkpoints: int) -> None:
        """Runs until there is another checkpoint, and kills it right then."""
        process = self.start(workdir, config)
        folder = workdir / "checkpoints"
        while process.poll() is None and _newest(folder) < checkpoints * 4:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"{self.checkout}: it ended before it was killed")


def _newest(folder: Path) -> int:
    found = (
        re.fullmatch(r"ckpt-(\d+)\.(index|safetensors)", path.name) for path in folder.glob("*")
    )
    steps = [int(match[1]) for match in found if match]
    return max(steps, default=-1)


def outcome(workdir: Path) -> dict[str, object]:
    """Returns what must be the same: weights as a digest, evaluations and the result."""
    with zipfile.ZipFile(workdir / "model.keras") as archive:
        weights = weight_bytes(archive.read("model.weights.h5"))
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((workdir / "result.json").read_text())
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "evaluations": [
            [row["step"], row["loss"], row["top1"]] for row in rows if row["kind"] == "eval"
        ],
        "result": {key: result[key] for key in ("step", "loss", "top1")},
    }


def weight_bytes(h5: bytes) -> bytes:
    """Returns the bytes of all arrays in the order of their names."""
    found: dict[str, bytes] = {}
    with h5py.File(io.BytesIO(h5)) as file:

        def visit(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = item[()].tobytes()

        file.visititems(visit)
    return b"".join(name.encode() + found[name] for name in sorted(found))


def compare(first: Version, second: Version, config: dict[str, object], folder: Path) -> bool:
    """Runs one config in all ways; prints and returns whether they end alike."""
    ways = {
        "first alone": [first],
        "second alone": [second],
        "first, killed, second": [first, second],
        "first, killed, second, killed, second": [first, second, second],
    }
    outcomes = {}
    for number, (way, versions) in enumerate(ways.items()):
        workdir = folder / str(number)
        if versions[0] is second:
            workdir.mkdir()
            shutil.copy(folder / "0" / "config.json", workdir)
        for checkpoints, version in enumerate(versions[:-1], 1):
            version.kill(workdir, config, 2 * checkpoints - 1)
        output = versions[-1].finish(workdir, config)
        if len(versions) > 1 and "resuming" not in output:
            raise SystemExit(f"{way}: it did not resume\n{output}")
        outcomes[way] = outcome(workdir)
        print(f"  {way}: {json.dumps(outcomes[way])}", flush=True)
    reference = outcomes["first alone"]
    return all(found == reference for found in outcomes.values())


def main() -> int:
    """Runs every case; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    for name in ("python_1", "checkout_1", "python_2", "checkout_2"):
        parser.add_argument(name)
    given = parser.parse_args()
    first = Version(given.python_1, given.checkout_1)
    second = Version(given.python_2, given.checkout_2)
    alike = True
    for name, config in CASES.items():
        print(name)
        with tempfile.TemporaryDirectory() as folder:
            same = compare(first, second, config, Path(folder))
        print("  bit-identical" if same else "  DIFFERENT", flush=True)
        alike = alike and same
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(main())
