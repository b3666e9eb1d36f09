"""The sections of a report on the classes: confusion matrix, images behind it, scores."""

import math

from keras_resnet.pages import image, quoted, text
from keras_resnet.reports.contents import Cell, Report, Thumbnail
from keras_resnet.reports.overview import table

# Classes up to which the whole matrix is shown; of more, the most frequent confusions.
WHOLE = 30
_PAIRS = 100
_ROWS = 1000  # of the table of scores


def confusion(report: Report) -> str:
    """The confusion matrix, whose cells lead to their images, and those images."""
    if report.label_sets is not None:  # an answer is no single class that it could be taken for
        return ""
    if report.matrix is None:
        return "<p>Nothing was evaluated.</p>"
    whole = len(report.class_names) <= WHOLE
    how = (
        "Rows are labels, columns what the network takes them for; orange cells are mistakes."
        if whole
        else "What is most often taken for what."
    )
    lead = " Choose a number to see its images." if report.cells else ""
    shown = _matrix(report) if whole else _pairs(report)
    behind = "".join(_behind(report, cell) for cell in _in_order(report))
    return f"<p>{how}{lead}</p>{shown}<div id=behind>{behind}</div>"


def _in_order(report: Report) -> list[Cell]:
    """The cells with images, mistakes before right answers, the fullest first."""
    assert report.matrix is not None
    matrix = report.matrix
    return sorted(report.cells, key=lambda cell: (cell[0] == cell[1], -int(matrix[cell]), cell))


def _matrix(report: Report) -> str:
    assert report.matrix is not None
    names = [text(name) for name in report.class_names]
    heads = "".join(f"<th scope=col><span>{name}</span></th>" for name in names)
    rows = []
    for label, counts in enumerate(report.matrix.tolist()):
        total = sum(counts)
        cells = (_cell(report, (label, taken), count, total) for taken, count in enumerate(counts))
        rows.append(f"<tr><th scope=row>{names[label]}</th>{''.join(cells)}</tr>")
    return (
        "<div class=scroll role=region tabindex=0 aria-label='Confusion matrix'>"
        "<table class=matrix id=matrix><caption class=hidden>Confusion matrix: a row for each "
        f"label, a column for each prediction</caption><thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(report: Report, cell: Cell, count: int, total: int) -> str:
    if not count:
        return "<td></td>"
    # The square root shows single confusions beside a strong diagonal.
    style = _shade(math.sqrt(count / total), right=cell[0] == cell[1])
    return f"<td style='{style}'>{_link(report, cell, count)}</td>"


def _link(report: Report, cell: Cell, count: int) -> str:
    if cell not in report.cells:
        return f"{count:,}"
    label = f"{images(count)}: {_title(report, cell)}"
    return f"<a href=#{_anchor(cell)} aria-label={quoted(label)}>{count:,}</a>"


def _shade(share: float, right: bool) -> str:
    """Blue of right answers, orange of mistakes, with letters that are read on it."""
    full = (8, 69, 148) if right else (166, 54, 3)
    mixed = [round(255 + (one - 255) * (0.08 + 0.92 * share)) for one in full]
    red, green, blue = (_linear(one) for one in mixed)
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # of WCAG 2
    letters = "#000" if light > 0.179 else "#fff"
    return f"background:rgb({mixed[0]},{mixed[1]},{mixed[2]});color:{letters}"


def _linear(value: float) -> float:
    value /= 255
    return value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4


def _pairs(report: Report) -> str:
    assert report.matrix is not None
    matrix = report.matrix.copy()
    totals = matrix.sum(axis=1)
    matrix[range(len(matrix)), range(len(matrix))] = 0
    order = (-matrix).argsort(axis=None, kind="stable")[:_PAIRS]
    rows = []
    for place in order.tolist():
        label, taken = divmod(place, len(matrix))
        if not matrix[label, taken]:
            break
        count = int(matrix[label, taken])
        names = (text(report.class_names[number]) for number in (label, taken))
        link = _link(report, (label, taken), count)
        rows.append((*names, link, f"{count / totals[label]:.1%}"))
    heads = ("label", "taken for", "images", "of the label's")
    if not rows:
        return "<p>No mistakes.</p>"
    return _long(table(heads, rows, "Most frequent confusions", (2, 3)), len(rows))


def _behind(report: Report, cell: Cell) -> str:
    assert report.matrix is not None
    shown, count = report.cells[cell], int(report.matrix[cell])
    some = images(count) if len(shown) == count else f"{len(shown):,} of {images(count)}"
    order = "the least sure first" if cell[0] == cell[1] else "the surest first"
    pictures = "".join(_picture(report, cell, one) for one in shown)
    kind = "right" if cell[0] == cell[1] else "wrong"
    return (
        f"<section class='behind {kind}' id={_anchor(cell)} tabindex=-1 "
        f"aria-labelledby={_anchor(cell)}-title><h3 id={_anchor(cell)}-title>"
        f"{text(_title(report, cell))}</h3><p class=quiet>{some}, {order}. "
        f"<a class=back href=#confusion>Back to the matrix</a></p>"
        f"<div class=thumbs>{pictures}</div></section>"
    )


def _picture(report: Report, cell: Cell, one: Thumbnail) -> str:
    alt = f"{one.path}: {_title(report, cell)}"
    return (
        f"<figure>{image(one.jpeg, alt)}<figcaption>{one.probability:.1%} "
        f"<span class=path>{text(short(one.path))}</span></figcaption></figure>"
    )


def images(count: int) -> str:
    """ "1 image", "2 images"."""
    return f"{count:,} image{'' if count == 1 else 's'}"


def short(path: str) -> str:
    """Both ends of a long name, which say most in little room."""
    return path if len(path) <= 40 else f"{path[:13]}…{path[-26:]}"


def _title(report: Report, cell: Cell) -> str:
    label, taken = (report.class_names[number] for number in cell)
    return f"{label}, right" if cell[0] == cell[1] else f"{label} taken for {taken}"


def _anchor(cell: Cell) -> str:
    return f"cell-{cell[0]}-{cell[1]}"


def scores(report: Report) -> str:
    """Precision, recall, F1 and support of each class, the worst first."""
    if report.label_sets is not None:
        return _scores_of_sets(report)
    if not report.classes:
        return "<p>Nothing was evaluated.</p>"
    rows = sorted(report.classes, key=lambda row: (row["f1"] is None, row["f1"] or 0.0))
    cells = [
        (
            text(row["class"]),
            f"{row['support']:,}",
            *(_share(row[key]) for key in ("precision", "recall", "f1")),
            f"{text(row['most_confused_with'])} ({row['times']:,})" if row["times"] else "",
        )
        for row in rows[:_ROWS]
    ]
    means = [_share(report.average(key)) for key in ("precision", "recall", "f1")]
    total = sum(row["support"] for row in rows)
    cells.append(("mean of the classes", f"{total:,}", *means, ""))
    heads = ("class", "images", "precision", "recall", "F1", "most often taken for")
    left = len(rows) - _ROWS
    some = f"<p class=quiet>{left:,} more are in classes.csv.</p>" if left > 0 else ""
    return (
        "<p>Precision is the share of what is taken for the class that is of it, recall the share "
        "of the class that is found, F1 their harmonic mean. The class with the lowest F1 comes "
        f"first.</p>{_long(table(heads, cells, 'Scores of each class', (1, 2, 3, 4)), len(cells))}"
        f"{some}"
    )


def _scores_of_sets(report: Report) -> str:
    """The same of several labels an image, with average precision and thresholds."""
    keys = ("average_precision", "precision", "recall", "f1")
    rows = sorted(
        report.classes,
        key=lambda row: (row["average_precision"] is None, row["average_precision"] or 0.0),
    )
    cells = [
        (
            text(row["class"]),
            f"{row['examples']:,}",
            f"{row['threshold']:.4f}",
            *(_share(row[key]) for key in keys),
        )
        for row in rows[:_ROWS]
    ]
    means = [_share(report.average(key)) for key in keys]
    cells.append(("mean of the classes", "", "", *means))
    heads = ("class", "images", "threshold", "average precision", "precision", "recall", "F1")
    return (
        "<p>An image may have several of these labels, or none. A class is predicted above its "
        "threshold; average precision asks for none. The class with the lowest comes first.</p>"
        f"{_long(table(heads, cells, 'Scores of each class', (1, 2, 3, 4, 5, 6)), len(cells))}"
    )


def _long(shown: str, rows: int) -> str:
    """A table that scrolls by itself where it has many rows."""
    return f"<div class=long>{shown}</div>" if rows > WHOLE else shown


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
