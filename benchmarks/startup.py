"""Processor time of `import keras_resnet`, `--help` and `train --help`, of two versions in turns.

    python benchmarks/startup.py PYTHON_1 CHECKOUT_1 PYTHON_2 CHECKOUT_2 [--rounds=7]

Medians and quartiles of user and system time of all threads, which a busy machine changes less than
wall time; the versions alternate, so that it slows both alike.
"""

import argparse
import os
import resource
import statistics
import subprocess

# As the script `keras-resnet` of each version does.
COMMAND = """
import sys
sys.argv[0] = "keras-resnet"
try:
    from keras_resnet_cli import main
except ImportError:
    from keras_resnet.commands import main
sys.exit(main())
"""
CASES = {
    "import keras_resnet": ["-c", "import keras_resnet"],
    "keras-resnet --help": ["-c", COMMAND, "--help"],
    "keras-resnet train --help": ["-c", COMMAND, "train", "--help"],
}


def seconds(python: str, checkout: str, arguments: list[str]) -> float:
    """Returns the processor time of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [python, "-P", *arguments],
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": checkout},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints a line for each case and version."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("python_1", "checkout_1", "python_2", "checkout_2"):
        parser.add_argument(name)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    versions = [(given.python_1, given.checkout_1), (given.python_2, given.checkout_2)]
    for case, arguments in CASES.items():
        times: list[list[float]] = [[], []]
        for _ in range(given.rounds + 1):
            for found, version in zip(times, versions, strict=True):
                found.append(seconds(*version, arguments))
        for found, (_, checkout) in zip(times, versions, strict=True):
            low, median, high = statistics.quantiles(found[1:], n=4)  # the first fills the caches
            print(f"{case:<27}{checkout:<30}{median:7.3f} s ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
