"""A comparison as text for people, as CSV and as JSON."""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_resnet.printing import csv_cell, printable

if TYPE_CHECKING:
    from keras_resnet.training.comparison.groups import Comparison, Group
    from keras_resnet.training.comparison.records import RunRecord

# Figures of a run: column -> (what it is of a run, digits behind the point).
_FIGURES: dict[str, tuple[Callable[["RunRecord"], float | None], int]] = {
    "value": (lambda run: run.value, 4),
    "best": (lambda run: run.best and run.best[0], 4),
    "best_epoch": (lambda run: run.best and run.best[1], 1),
    "test": (lambda run: run.test, 4),
    "loss": (lambda run: run.loss, 4),
    "images_per_second": (lambda run: run.images_per_second, 0),
    "parameters": (lambda run: run.parameters, 0),
}


def text(comparison: "Comparison") -> str:
    """Returns the results, what differs in the configs, and the notes."""
    groups = comparison.groups
    heads, rows = ["#", "run", "n", "seed", "epochs"], []
    metrics = list(dict.fromkeys(group.metric for group in groups))
    names = {"value": "/".join(metrics), "images_per_second": "images/s", "best_epoch": "at epoch"}
    shown = [key for key in _FIGURES if any(group.spread(_FIGURES[key][0]) for group in groups)]
    heads += [names.get(key, key) for key in shown]
    for number, group in enumerate(groups, start=1):
        seeds = ", ".join(str(run.seed) for run in group.runs)
        rows.append(
            [str(number), printable(group.name), str(len(group.runs)), seeds, _epochs(group)]
            + [_cell(group, key) for key in shown]
        )
    parts = [_aligned(heads, rows, left=(1,))]
    if any(len(group.runs) > 1 for group in groups):
        parts.append("± is one standard deviation over runs that differ in the seed alone.")
    if comparison.differences:
        keys = [
            [key, *(printable(_config_value(value)) for value in values)]
            for key, values in comparison.differences.items()
        ]
        numbers = [str(number) for number in range(1, len(groups) + 1)]
        parts.append("What differs in the configs:\n" + _aligned(["key", *numbers], keys, (0,)))
    elif len(comparison.runs) > 1:
        parts.append("The configs differ in nothing but the seed.")
    if comparison.notes:
        parts.append("\n".join(f"note: {note}" for note in comparison.notes))
    return "\n\n".join(parts)


def _epochs(group: "Group") -> str:
    """Where the runs stand: "10", or "3 of 10"."""
    ends = sorted({_short(run.epoch) for run in group.runs}, key=float)
    total = group.runs[0].config["epochs"]
    stands = ends[0] if len(ends) == 1 else f"{ends[0]}–{ends[-1]}"
    behind = any(run.state != "finished" for run in group.runs)
    return f"{stands} of {total}" if behind else str(total)


def _short(number: float) -> str:
    return f"{number:.4g}"


def _cell(group: "Group", key: str) -> str:
    figure, digits = _FIGURES[key]
    spread = group.spread(figure)
    if spread is None:
        return "–"
    mean = f"{spread.mean:,.{digits}f}"
    if spread.n == 1 or key == "parameters":
        return mean if spread.n == len(group.runs) else f"{mean} (n={spread.n})"
    few = f" (n={spread.n})" if spread.n < len(group.runs) else ""
    return f"{mean} ± {spread.deviation:,.{digits}f}{few}"


def _config_value(value: Any) -> str:
    return {"": "''", None: "none"}.get(value, str(value)) if _is_plain(value) else str(value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Columns two spaces apart; those of `left` begin at the same place, others end there."""
    table = [heads, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def csv_lines(comparison: "Comparison") -> str:
    """Returns a line for each run."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    own = ("group", "run", "path", "seed", "state", "epoch", "epochs", "metric", *_FIGURES)
    own += ("classes", "train_examples", "eval_examples")
    writer.writerow([*own, *(f"config.{key}" for key in comparison.differences)])
    for row in _rows(comparison):
        values = [row[key] for key in own]
        values += [row["config"][key] for key in comparison.differences]
        writer.writerow(["" if value is None else _csv_value(value) for value in values])
    return file.getvalue()


def _csv_value(value: Any) -> Any:
    return value if isinstance(value, int | float) else csv_cell(value)


def to_dict(comparison: "Comparison") -> dict[str, Any]:
    """Returns all figures as JSON has them; a figure that is not known or not finite is None."""
    groups = [
        {
            "name": group.name,
            "n": len(group.runs),
            "seeds": [run.seed for run in group.runs],
            "metric": group.metric,
            "finished": group.finished,
            **{key: _spread(group, figure) for key, (figure, _) in _FIGURES.items()},
        }
        for group in comparison.groups
    ]
    return {
        "groups": groups,
        "differences": comparison.differences,
        "runs": _rows(comparison),
        "notes": list(comparison.notes),
    }


def _spread(group: "Group", figure: Callable[["RunRecord"], float | None]) -> dict | None:
    spread = group.spread(figure)
    return None if spread is None else dataclasses.asdict(spread)


def _rows(comparison: "Comparison") -> list[dict[str, Any]]:
    """What is known of each run."""
    return [
        {
            "group": group.name,
            "run": run.name,
            "path": run.path,
            "seed": run.seed,
            "state": run.state,
            "epoch": run.epoch,
            "epochs": run.config["epochs"],
            "metric": run.metric,
            **{key: figure(run) for key, (figure, _) in _FIGURES.items()},
            "classes": run.classes and len(run.classes),
            "train_examples": run.examples and run.examples[0],
            "eval_examples": run.examples and run.examples[1],
            "config": {key: run.config.get(key) for key in comparison.differences},
            "curves": {
                "epoch": run.epochs.tolist(),
                **{
                    f"{kind}_{key}": [value if math.isfinite(value) else None for value in curve]
                    for (kind, key), curve in run.curves.items()
                },
            },
        }
        for group in comparison.groups
        for run in group.runs
    ]
