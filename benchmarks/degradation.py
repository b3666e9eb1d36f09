"""Draws the degradation experiment: training and held-out error over epochs, averaged over seeds.

    python benchmarks/degradation.py runs/plain20-0 runs/plain20-1 … runs/resnet56-2
    python benchmarks/degradation.py plain20.jsonl plain56.jsonl resnet20.jsonl resnet56.jsonl

Takes work directories (`configs/degradation.py` says how to make them), one for each seed, named
NETWORK-SEED; or files of what `benchmarks/cifar10_jax.py` or `benchmarks/cifar10_torch.py` printed,
named NETWORK.jsonl, with all seeds in one. Networks whose name begins with `plain` go to the left.
Writes degradation.png, after He et al. 2015, figures 1 and 6: thin lines are the training error,
bold ones the error on held-out images, each the mean over the seeds with bars of one standard
deviation. Prints the last errors as a Markdown table.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_resnet.training.workdir import WorkDir

# float[epochs, 3]: epoch, error in training and error on held-out images in percent.
Curve = np.ndarray


def read_workdir(path: Path) -> Curve:
    """The errors of one run; those of training averaged over what lies between evaluations."""
    points, right, examples = [], 0.0, 0
    for row in WorkDir(path).read_metrics():
        if row["kind"] == "train":
            right, examples = right + row["top1"] * row["examples"], examples + row["examples"]
        elif row["kind"] == "eval" and examples:
            points.append((row["epoch"], right / examples, row["top1"]))
            right, examples = 0.0, 0
    return _errors(points)


def read_lines(path: Path) -> list[Curve]:
    """The errors of each seed in a file of JSON lines."""
    points = defaultdict(list)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        points[row.get("seed")].append((row["epoch"], row["train_top1"], row["top1"]))
    return [_errors(rows) for rows in points.values()]


def _errors(points: list[tuple[float, float, float]]) -> Curve:
    curve = np.asarray(points)
    curve[:, 1:] = 100 * (1 - curve[:, 1:])
    return curve


def read_runs(paths: list[Path]) -> dict[str, np.ndarray]:
    """float[seeds, epochs, 3] of each network, by its name; seeds of unequal length are refused."""
    runs = defaultdict(list)
    for path in paths:
        if path.is_dir():
            runs[re.sub(r"-\d+$", "", path.name)].append(read_workdir(path))
        else:
            runs[path.stem].extend(read_lines(path))
    for name, curves in runs.items():
        if len({curve.shape for curve in curves}) > 1:
            lengths = ", ".join(str(len(curve)) for curve in curves)
            raise SystemExit(f"the seeds of {name} have unequal numbers of epochs: {lengths}")
    return {name: np.stack(curves) for name, curves in runs.items()}


def draw(axes, name: str, mean: Curve, deviation: Curve) -> None:
    bars = {"capsize": 2, "elinewidth": 0.8}
    epochs = mean[:, 0]
    line = axes.errorbar(
        epochs, mean[:, 2], deviation[:, 2], linewidth=2, label=f"{name}, held out", **bars
    )
    axes.errorbar(
        epochs,
        mean[:, 1],
        deviation[:, 1],
        linewidth=0.8,
        color=line[0].get_color(),
        label=f"{name}, training",
        **bars,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("degradation.png"))
    options = parser.parse_args()
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    plain, residual = figure.subplots(1, 2, sharey=True)
    plain.set(title="plain", xlabel="epoch", ylabel="error (%)")
    residual.set(title="residual", xlabel="epoch")
    print("| network | seeds | training error, last epoch | held-out error |\n|---|---:|---:|---:|")
    for name, curves in read_runs(options.runs).items():
        mean = curves.mean(0)
        deviation = curves.std(0, ddof=1) if len(curves) > 1 else np.zeros_like(mean)
        draw(plain if name.startswith("plain") else residual, name, mean, deviation)
        cells = [f"{mean[-1, k]:.2f} ± {deviation[-1, k]:.2f} %" for k in (1, 2)]
        print(f"| {name} | {len(curves)} | {' | '.join(cells)} |")
    for axes in (plain, residual):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines:
            axes.legend()
    figure.savefig(options.output, dpi=120)


if __name__ == "__main__":
    main()
