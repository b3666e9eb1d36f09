"""The picture curves.png: loss and accuracy over epochs."""

from collections.abc import Callable
from pathlib import Path

from keras_resnet.storage import replacing


def _score(name: str) -> Callable[[dict], float | None]:
    return lambda row: row.get(name) if row["kind"] == "eval" else None


def draw(rows: list[dict], path: Path, title: str) -> str | None:
    """Draws the rows of metrics.jsonl to a PNG; returns a line to say if matplotlib is missing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "curves.png needs matplotlib: pip install 'keras-resnet-tpu[plot]'"
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    loss, accuracy = figure.subplots(1, 2)
    several = any("map" in row for row in rows)  # labels an image
    drawn = {"train": "f1", "eval": "map"} if several else dict.fromkeys(("train", "eval"), "top1")
    what = "mean average precision" if several else "top-1 accuracy"
    for kind, label, style in (("train", "training", "-"), ("eval", "held out", "o-")):
        points = [row for row in rows if row["kind"] == kind]
        # A loss that is not finite is null; a damaged line may lack anything.
        points = [row for row in points if None not in map(row.get, ("epoch", "loss"))]
        points = [row for row in points if row.get(drawn[kind]) is not None]
        epochs, values = [row["epoch"] for row in points], [row[drawn[kind]] for row in points]
        loss.plot(epochs, [row["loss"] for row in points], style, markersize=3, label=label)
        label = f"{label}, F1" if drawn[kind] == "f1" else label
        accuracy.plot(epochs, values, style, markersize=3, label=label)
    # Loss spans decades; accuracy is read near 1.
    values = [row["loss"] for row in rows if row.get("loss") is not None]
    scale = "log" if values and min(values) > 0 else "linear"  # 0 has no logarithm
    loss.set(xlabel="epoch", ylabel="cross-entropy", yscale=scale)
    accuracy.set(xlabel="epoch", ylabel=what)
    best = max(
        (value for value in map(_score(drawn["eval"]), rows) if value is not None), default=None
    )
    if best is not None:
        accuracy.axhline(best, color="gray", linewidth=0.5)
        accuracy.set_title(f"best held out {best:.4f}", fontsize="small")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return None
