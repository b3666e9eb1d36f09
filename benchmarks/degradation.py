"""Draws the degradation experiment: training and held-out error over epochs, averaged over seeds.

    python benchmarks/degradation.py runs/plain20-0 runs/plain20-1 … runs/resnet56-2
    python benchmarks/degradation.py plain20.jsonl plain56.jsonl resnet20.jsonl resnet56.jsonl

Takes work directories (`configs/degradation.py` says how to make them); or files of what
`benchmarks/cifar10_jax.py` or `benchmarks/cifar10_torch.py` printed, named NETWORK.jsonl, with all
seeds in one, of which those whose name begins with `plain` are the plain ones. Writes
degradation.png, after He et al. 2015, figures 1 and 6: thin lines are the training error, bold ones
the error on held-out images, each the mean over the seeds with bars of one standard deviation.
Prints the last errors as a Markdown table. Of work directories `keras-resnet compare RUN ...
--curves=error --panels=model.residual` draws the same.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from keras_resnet.config import default_config
from keras_resnet.config.schema import flatten
from keras_resnet.errors import UserError
from keras_resnet.training.comparison import Comparison, Group, RunRecord, compare, compare_records


def read_lines(path: Path) -> Iterator[RunRecord]:
    """The run of each seed in a file of JSON lines."""
    rows = defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        rows[row.get("seed", 0)].append((row["epoch"], row["train_top1"], row["top1"]))
    defaults = dict(flatten(default_config()))
    for seed, points in rows.items():
        epochs, train, held_out = np.asarray(points, "float64").T
        residual = not path.stem.startswith("plain")
        yield RunRecord(
            name=f"{path.stem}-{seed}",
            path=str(path),
            config=defaults | {"seed": seed, "model.name": path.stem, "model.residual": residual},
            metric="top1",
            epochs=epochs,
            curves={("train", "top1"): train, ("eval", "top1"): held_out},
            epoch=epochs[-1],
            value=held_out[-1],
        )


def read(paths: list[Path]) -> Comparison:
    """Of work directories or of files of lines."""
    if all(path.is_file() for path in paths):
        return compare_records(run for path in paths for run in read_lines(path))
    return compare(paths)


def panel(group: Group) -> str:
    """The left one or the right one; a network of its own has shortcuts."""
    return "plain" if group.runs[0].config["model.residual"] is False else "residual"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("degradation.png"))
    options = parser.parse_args()
    try:
        comparison = read(options.runs)
        comparison.draw(options.output, measure="error", panels=panel)
    except (UserError, ImportError) as error:
        raise SystemExit(str(error)) from error
    print("| network | seeds | training error, last epoch | held-out error |\n|---|---:|---:|---:|")
    for group in comparison.groups:
        cells = []
        for kind in ("train", "eval"):
            _, mean, deviation, _ = group.curve(kind, group.metric)[-1]
            cells.append(f"{100 * (1 - mean):.2f} ± {100 * deviation:.2f} %")
        print(f"| {group.name} | {len(group.runs)} | {' | '.join(cells)} |")
    for note in comparison.notes:
        print(f"note: {note}")


if __name__ == "__main__":
    main()
