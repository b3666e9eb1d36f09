"""Draws the degradation experiment: training and held-out error of several runs over epochs.

    python benchmarks/degradation.py runs/plain20 runs/plain56 runs/resnet20 runs/resnet56

Reads metrics.jsonl of each work directory (`configs/degradation.py` says how to make them) and
writes degradation.png, after He et al. 2015, figures 1 and 6: thin lines are the training error,
bold ones the error on held-out images. Prints the last errors as a Markdown table.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_resnet.training.workdir import WorkDir


def errors(workdir: WorkDir, kind: str) -> tuple[list[float], list[float]]:
    """Epochs and errors in percent, training averaged over what lies between two evaluations."""
    rows = workdir.read_metrics()
    if kind == "eval":
        points = [(row["epoch"], row["top1"]) for row in rows if row["kind"] == kind]
    else:
        points, right, examples = [], 0.0, 0
        for row in rows:
            if row["kind"] == "train":
                right, examples = right + row["top1"] * row["examples"], examples + row["examples"]
            elif row["kind"] == "eval" and examples:
                points.append((row["epoch"], right / examples))
                right, examples = 0.0, 0
    return [epoch for epoch, _ in points], [100 * (1 - top1) for _, top1 in points]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workdirs", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=Path("degradation.png"))
    options = parser.parse_args()
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    plain, residual = figure.subplots(1, 2, sharey=True)
    plain.set(title="plain", xlabel="epoch", ylabel="error (%)")
    residual.set(title="residual", xlabel="epoch")
    print("| run | training error | held-out error |\n|---|---:|---:|")
    for path in options.workdirs:
        workdir = WorkDir(path)
        axes = plain if workdir.read_config().model.residual is False else residual
        training, held_out = errors(workdir, "train"), errors(workdir, "eval")
        (line,) = axes.plot(*held_out, linewidth=2, label=f"{path.name}, held out")
        axes.plot(*training, linewidth=0.8, color=line.get_color(), label=f"{path.name}, training")
        print(f"| {path.name} | {training[1][-1]:.2f} % | {held_out[1][-1]:.2f} % |")
    for axes in (plain, residual):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axes.lines:
            axes.legend()
    figure.savefig(options.output, dpi=120)


if __name__ == "__main__":
    main()
