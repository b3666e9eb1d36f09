"""The sections of a report on the course of training: curves, and the norms of gradients."""

from keras_resnet.pages import text
from keras_resnet.reports import charts
from keras_resnet.reports.contents import Report
from keras_resnet.reports.overview import table
from keras_resnet.training.curves import CURVES, Measure, find_measure, points

_ROWS = 100  # of the table beside the curves
_COLUMNS, _BLOCKS = 60, 64  # of the map of gradients


def curves(report: Report) -> str:
    """Loss, accuracy and learning rate over epochs, the best evaluation marked."""
    best = report.best
    mark = None if best is None else best.epoch
    measure = find_measure(report.rows)
    drawn = []
    for title, unit, keys in (
        ("Loss", "cross-entropy", {"train": "loss", "eval": "loss"}),
        (_title(measure), measure.name, measure.keys),
        ("Learning rate", "learning rate", {"train": "learning_rate"}),
    ):
        lines = {
            measure.labels.get(key, CURVES[kind]): points(report.rows, kind, key)
            for kind, key in keys.items()
        }
        of_score = keys is measure.keys
        chart = charts.line_chart(
            lines,
            title=title,
            unit=unit,
            logarithmic="loss" in keys.values(),
            from_zero=title == "Learning rate",
            mark=mark,
            star=(best.epoch, best.score) if best is not None and of_score else None,
        )
        if chart:
            drawn.append(f"<div class=chart><h3>{title}</h3>{chart}</div>")
    if not drawn:
        return "<p>metrics.jsonl holds nothing to draw.</p>"
    said = ""
    if best is not None:
        said = (
            f"<p>The dotted line is the best evaluation: {best.score:.2%} after epoch "
            f"{best.epoch:.1f} (step {best.step:,}).</p>"
        )
    key = charts.legend(list(CURVES.values()))
    return f"{key}<div class=charts>{''.join(drawn)}</div>{said}{_evaluations(report)}"


def _title(measure: Measure) -> str:
    others = "".join(f" ({label})" for label in measure.labels.values())
    return f"{measure.name.capitalize()}{others}"


def _evaluations(report: Report) -> str:
    rows = [row for row in report.rows if row["kind"] == "eval"]
    measure = find_measure(rows)
    score = measure.keys["eval"]
    rows = [row for row in rows if None not in map(row.get, ("epoch", "loss", score))]
    if not rows:
        return ""
    every = -(-len(rows) // _ROWS)
    shown = [*rows[:-1:every], rows[-1]]
    cells = [(f"{r['epoch']:.1f}", f"{r['loss']:.4f}", f"{r[score]:.4f}") for r in shown]
    what = f"every {every}th of the {len(rows):,}" if every > 1 else f"{len(rows):,}"
    held_out = table(("epoch", "loss", measure.name), cells, "Evaluations", (0, 1, 2))
    return f"<details><summary>Evaluations ({what}) as a table</summary>{held_out}</details>"


def gradients(report: Report) -> str:
    """The norm of the gradient of each block over training."""
    norms = report.gradient_norms()
    blocks = list(dict.fromkeys(name for _, column in norms for name in column))
    if not any(value and value > 0 for _, column in norms for value in column.values()):
        return "<p>This run has recorded no norms of gradients.</p>"
    columns = norms[:: -(-len(norms) // _COLUMNS)]
    drawn = blocks[:: -(-len(blocks) // _BLOCKS)]
    last = {name: value for name, value in norms[-1][1].items() if value and value > 0}
    said = ""
    if len(last) > 1:
        small, large = min(last, key=last.__getitem__), max(last, key=last.__getitem__)
        said = (
            f"At the end that of {text(small)} is the smallest with {last[small]:.3g}, "
            f"{last[small] / last[large]:.2g} of the largest, {text(large)} with {last[large]:.3g}."
        )
    some = f" Of {len(blocks)} blocks {len(drawn)} are drawn." if len(drawn) < len(blocks) else ""
    ends = norms[0][1], norms[-1][1]
    rows = [(text(name), *(_norm(norm.get(name)) for norm in ends)) for name in drawn]
    both = table(("block", "first", "last"), rows, "Norms of gradients", (1, 2))
    return (
        f"<p>A gradient that shrinks from the head (top) down to the stem is one that vanishes. "
        f"{said}{some}</p><div class=chart>{charts.norm_map(columns, drawn)}</div>"
        f"<details><summary>The first and the last norms as a table</summary>{both}</details>"
    )


def _norm(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
