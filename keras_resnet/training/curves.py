"""The curves of a run: their points, and the picture curves.png of loss, accuracy and rate."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_resnet.printing import printable
from keras_resnet.storage import replacing

# Kind of a row -> how its curve is called.
CURVES = {"train": "training", "eval": "held out"}


@dataclasses.dataclass(frozen=True)
class Measure:
    """What says how right a network is, and by which the best evaluation is chosen.

    Attributes:
        name: in words.
        keys: kind of a row -> the key that is drawn.
        labels: of curves that show another figure than the name says, by key.
    """

    name: str
    keys: Mapping[str, str]
    labels: Mapping[str, str]


ONE_LABEL = Measure("top-1 accuracy", {"train": "top1", "eval": "top1"}, {})
# Steps keep no scores of single images, of which average precision is made.
SEVERAL_LABELS = Measure(
    "mean average precision", {"train": "f1", "eval": "map"}, {"f1": "training, F1"}
)


@dataclasses.dataclass(frozen=True)
class Best:
    """The evaluation that counts as the best: the first with the highest score.

    Attributes:
        step: after which it was.
        epoch: the same in epochs.
        score: its top-1 accuracy; of several labels an image its mean average precision.
    """

    step: int
    epoch: float
    score: float


def find_measure(rows: Sequence[Mapping[str, Any]]) -> Measure:
    """Returns what the rows of metrics.jsonl measure."""
    return SEVERAL_LABELS if any("map" in row for row in rows) else ONE_LABEL


def points(rows: Sequence[dict[str, Any]], kind: str, key: str) -> list[tuple[float, float]]:
    """Returns (epoch, value) of one curve, of the rows of metrics.jsonl that have both.

    Args:
        rows: of metrics.jsonl. A loss that is not finite is null there; a damaged line may lack
            anything.
        kind: "train" or "eval".
        key: such as "loss", "top1", "learning_rate".
    """
    found = [(row.get("epoch"), row.get(key)) for row in rows if row["kind"] == kind]
    return [(epoch, value) for epoch, value in found if epoch is not None and value is not None]


def find_best(rows: Sequence[dict[str, Any]]) -> Best | None:
    """Returns the best evaluation among the rows of metrics.jsonl, None without any."""
    key = find_measure(rows).keys["eval"]
    evaluations = [row for row in rows if row["kind"] == "eval"]
    evaluations = [row for row in evaluations if None not in map(row.get, ("epoch", key))]
    if not evaluations:
        return None
    best = max(evaluations, key=lambda row: row[key])
    return Best(best["step"], best["epoch"], best[key])


def draw(rows: list[dict], path: Path, title: str) -> str | None:
    """Draws the rows of metrics.jsonl to a PNG; returns a line to say if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "curves.png needs matplotlib: pip install 'keras-resnet-tpu[plot]'"
    best = find_best(rows)
    figure = Figure(figsize=(13, 4), layout="constrained")
    # A formula of TeX to matplotlib, a name to everybody else.
    figure.suptitle(printable(title).replace("$", r"\$"))
    loss, accuracy, rate = figure.subplots(1, 3)
    measure = find_measure(rows)
    for axes, keys in (
        (loss, {"train": "loss", "eval": "loss"}),
        (accuracy, measure.keys),
        (rate, {"train": "learning_rate"}),
    ):
        for kind, key in keys.items():
            curve = points(rows, kind, key)
            style = "-" if kind == "train" or len(curve) > 40 else "o-"
            color = "C0" if kind == "train" else "C1"
            axes.plot(
                *_columns(curve),
                style,
                color=color,
                markersize=3,
                label=measure.labels.get(key, CURVES[kind]),
            )
        if best is not None:
            axes.axvline(best.epoch, color="gray", linewidth=1, linestyle=":")
        axes.grid(alpha=0.3)
        axes.set_xlabel("epoch")
        axes.margins(x=0.02)
    losses = [row["loss"] for row in rows if row.get("loss") is not None]
    loss.set_ylabel("cross-entropy")
    if losses and min(losses) > 0:  # loss spans decades; 0 has no logarithm
        read_decades(loss, min(losses), max(losses))
    accuracy.set_ylabel(measure.name)
    rate.set(ylabel="learning rate", ylim=(0, None))
    if best is not None:
        accuracy.plot([best.epoch], [best.score], "*", color="C3", markersize=11, label="best")
        accuracy.set_title(
            f"best held out {best.score:.4f}, epoch {best.epoch:.1f}", fontsize="small"
        )
    for axes in (loss, accuracy):
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return None


def _columns(curve: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in curve], [y for _, y in curve]


def read_decades(axes: Any, low: float, high: float) -> None:
    """A logarithmic axis with plain numbers at ticks, several of them in less than a decade too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set_yscale("log")
    few = high / low < 4
    locator = MaxNLocator(6) if few else LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,))
    axes.yaxis.set_major_locator(locator)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
