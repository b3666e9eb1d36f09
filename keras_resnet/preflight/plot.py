"""The picture of a preflight: where the cycles go, by stage and kind of instruction."""

import collections
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.preflight.report import Report
from keras_resnet.storage import replacing

KINDS = ("convolution", "reduction", "pooling", "elementwise", "copy")
COLORS = ("#4477aa", "#ccbb44", "#ee6677", "#228833", "#bbbbbb")  # Tol's bright scheme


def draw(report: Report, path: Path, title: str) -> None:
    """Draws a bar for each stage and pass, in millions of estimated cycles, to a PNG.

    Args:
        report: whose instructions.
        path: of the picture.
        title: what was compiled; that it is an estimate is added.

    Raises:
        UserError: matplotlib is not installed, or the report has no cycles to draw.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("--plot needs matplotlib: pip install 'keras-resnet-tpu[plot]'") from error
    cycles: collections.Counter[tuple[str, str]] = collections.Counter()
    for instruction in report.instructions:
        row = f"{instruction.stage}, {'backward' if instruction.backward else 'forward'}"
        row = instruction.stage if instruction.stage == "other" else row
        cycles[row, instruction.kind] += instruction.cycles * report.parts
    if not cycles:
        raise UserError(f"--plot={path}: nothing was compiled, there is nothing to draw")
    rows = sorted({row for row, _ in cycles}, key=_order, reverse=True)
    figure = Figure(figsize=(9, 1.5 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    left = dict.fromkeys(rows, 0.0)
    for kind, color in zip(KINDS, COLORS, strict=True):
        widths = [cycles[row, kind] / 1e6 for row in rows]
        axes.barh(rows, widths, left=[left[row] for row in rows], color=color, label=kind)
        for row, width in zip(rows, widths, strict=True):
            left[row] += width
    total = sum(left.values())
    for row in rows:
        axes.annotate(f" {left[row] / total:.0%}", (left[row], row), va="center", fontsize="small")
    axes.set(
        xlabel="millions of estimated cycles",
        title=f"{title}: estimate of the compiler, not measured",
    )
    axes.margins(x=0.08)
    axes.legend(fontsize="small", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _order(row: str) -> tuple[int, str, bool]:
    stage, _, direction = row.partition(", ")
    first = {"stem": 0, "head": 8, "other": 9}.get(stage, 1)
    return first, stage, direction == "backward"
