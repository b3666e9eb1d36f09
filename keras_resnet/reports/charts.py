"""Charts as inline SVG: lines over epochs, a reliability diagram, a map of gradient norms.

Colors are those of the page (CSS variables), in which light and dark have their own; what a chart
shows is also said in its text alternative.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_resnet.pages import quoted, text

# Of a chart in units of its own; a phone shows them at about nine tenths.
_WIDTH, _HEIGHT = 400, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 12, 14, 40
_POINTS = 500  # of a line; more cannot be told apart

Curve = Sequence[tuple[float, float]]


def line_chart(
    curves: Mapping[str, Curve],
    *,
    title: str,
    unit: str,
    logarithmic: bool = False,
    from_zero: bool = False,
    mark: float | None = None,
    star: tuple[float, float] | None = None,
) -> str:
    """Lines over epochs.

    Args:
        curves: name -> (epoch, value) of each, at most four; colors follow their order.
        title: what the chart shows.
        unit: of the values.
        logarithmic: whether the values get a logarithmic axis, if all are above 0.
        from_zero: whether the axis begins at 0.
        mark: an epoch to draw a line at.
        star: a point to draw a star at.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    values = [y for _, y in points] + [0.0] * from_zero
    low, high = min(values), max(values)
    logarithmic = logarithmic and low > 0
    ticks = log_ticks(low, high) if logarithmic else even_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    end = max(max(x for x, _ in points), mark or 0) or 1
    across = _Axis(0, end, _LEFT, _WIDTH - _RIGHT)
    up = _Axis(low, high, _HEIGHT - _BOTTOM, _TOP, logarithmic)
    parts = [_grid(across, up, even_ticks(0, end), ticks), _axis_names("epoch", unit)]
    if mark is not None:
        x = across(mark)
        parts.append(f"<line class=mark x1={x} x2={x} y1={_TOP} y2={_HEIGHT - _BOTTOM} />")
    for number, curve in enumerate(curves.values()):
        places = " ".join(f"{across(x)},{up(y)}" for x, y in _thinned(curve))
        parts.append(f'<polyline class="line c{number}" points="{places}" />')
        if len(curve) <= 40:
            dots = (f"<circle class=c{number} cx={across(x)} cy={up(y)} r=2.5 />" for x, y in curve)
            parts.append("".join(dots))
    if star is not None:
        parts.append(f"<circle class=star cx={across(star[0])} cy={up(star[1])} r=6 />")
    return _svg("".join(parts), title, _in_words(curves, unit))


def legend(names: Sequence[str]) -> str:
    """Which color is which curve, in the order of `line_chart`."""
    rows = (f"<li><span class='key k{i}'></span>{text(name)}</li>" for i, name in enumerate(names))
    return f"<ul class=legend>{''.join(rows)}</ul>"


def _in_words(curves: Mapping[str, Curve], unit: str) -> str:
    said = [
        f"{name}: {number(curve[0][1])} at epoch {curve[0][0]:.1f}, {number(curve[-1][1])} at "
        f"epoch {curve[-1][0]:.1f}"
        for name, curve in curves.items()
        if curve
    ]
    return f"{unit}. {'; '.join(said)}."


def reliability_diagram(bins: Sequence[dict], calibrated: Sequence[dict], title: str) -> str:
    """How often the network is right, by how sure it is.

    Args:
        bins: {"count", "confidence", "accuracy"} of each bin, as calibration.json has them.
        calibrated: the same after the temperature.
        title: what the chart shows.
    """
    across = _Axis(0, 1, _LEFT, _WIDTH - _RIGHT)
    up = _Axis(0, 1, _HEIGHT - _BOTTOM, _TOP)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    parts = [_grid(across, up, ticks, ticks), _axis_names("probability", "right")]
    parts.append(f"<line class=mark x1={across(0)} y1={up(0)} x2={across(1)} y2={up(1)} />")
    for kind, rows in enumerate((bins, calibrated)):
        filled = [row for row in rows if row["count"]]
        most = max((row["count"] for row in filled), default=1)
        places = " ".join(f"{across(r['confidence'])},{up(r['accuracy'])}" for r in filled)
        parts.append(f'<polyline class="line c{kind}" points="{places}" />')
        for row in filled:
            radius = 2 + 5 * math.sqrt(row["count"] / most)
            center = f"cx={across(row['confidence'])} cy={up(row['accuracy'])}"
            parts.append(f"<circle class=c{kind} {center} r={radius:.1f} />")
    said = ", ".join(
        f"{row['confidence']:.0%} sure and {row['accuracy']:.0%} right ({row['count']:,} images)"
        for row in bins
        if row["count"]
    )
    return _svg("".join(parts), title, f"By how sure the network is: {said}.")


def norm_map(columns: Sequence[tuple[float, dict[str, float]]], blocks: Sequence[str]) -> str:
    """Gradient norms: a row for each block, the head at the top, a column for each time.

    Args:
        columns: (epoch, block -> norm), rising.
        blocks: from the stem to the head.
    """
    table = np.array([[column.get(b) or np.nan for b in blocks] for _, column in columns]).T
    logs = np.log10(np.where(table > 0, table, np.nan))
    low, high = float(np.nanmin(logs)), float(np.nanmax(logs))
    row = max(6, min(16, 420 // len(blocks)))
    left, width = 104, _WIDTH - 104 - _RIGHT
    parts = []
    for place, name in enumerate(reversed(blocks)):
        y = _TOP + place * row
        if row >= 11 or place % 3 == 0:
            middle = y + row / 2 + 4
            parts.append(f"<text class=end x={left - 5} y={middle:.0f}>{text(name)}</text>")
        for number, value in enumerate(logs[len(blocks) - 1 - place]):
            if not np.isfinite(value):
                continue
            x, step = left + width * number / len(columns), width / len(columns)
            share = (value - low) / max(high - low, 1e-9)
            place_of = f"x={x:.1f} y={y} width={step + 0.3:.1f} height={row}"
            parts.append(f'<rect {place_of} fill="{heat_color(share)}" />')
    bottom = _TOP + row * len(blocks)
    parts.append(f"<text x={left} y={bottom + 16}>epoch {columns[0][0]:.1f}</text>")
    parts.append(f"<text class=end x={left + width} y={bottom + 16}>{columns[-1][0]:.1f}</text>")
    said = f"From {10**low:.2g} (dark) to {10**high:.2g} (bright)"
    middle = left + width / 2
    parts.append(f"<text class=mid x={middle:.0f} y={bottom + 34}>{said}</text>")
    return _svg("".join(parts), "Norm of the gradient of each block", f"{said}.", bottom + 42)


def heat_color(share: float) -> str:
    """A color of matplotlib's "viridis", 0 dark to 1 bright, that is read without colors too."""
    stops = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)])
    places = np.linspace(0, 1, len(stops))
    red, green, blue = (round(float(np.interp(share, places, stops[:, i]))) for i in range(3))
    return f"#{red:02x}{green:02x}{blue:02x}"


class _Axis:
    """Where a value lies in the chart."""

    def __init__(
        self, low: float, high: float, begin: float, end: float, logarithmic: bool = False
    ):
        self._map = math.log if logarithmic else float
        self._low, self._high = self._map(low), self._map(high)
        self._begin, self._end = begin, end

    def __call__(self, value: float) -> float:
        share = (self._map(value) - self._low) / ((self._high - self._low) or 1)
        return round(self._begin + share * (self._end - self._begin), 1)


def even_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` or just below to `high` or just above, at most `most` steps."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * place, 12) for place in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten, from just below `low` to just above `high`; few of many."""
    if high / low < 4:
        return [tick for tick in even_ticks(low, high, 5) if tick > 0]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if high / low < 500 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    first = max((i for i, tick in enumerate(ticks) if tick <= low), default=0)
    last = min((i for i, tick in enumerate(ticks) if tick >= high), default=len(ticks) - 1)
    return ticks[first : last + 1]


def number(value: float) -> str:
    """A number as people write it, with up to four digits that count."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _grid(across: _Axis, up: _Axis, xs: Sequence[float], ys: Sequence[float]) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for x in (tick for tick in xs if across(tick) <= right + 3):
        parts.append(f"<line class=grid x1={across(x)} x2={across(x)} y1={_TOP} y2={bottom} />")
        parts.append(f"<text class=mid x={across(x)} y={bottom + 16}>{number(x)}</text>")
    for y in ys:
        parts.append(f"<line class=grid x1={_LEFT} x2={right} y1={up(y)} y2={up(y)} />")
        parts.append(f"<text class=end x={_LEFT - 6} y={up(y) + 4}>{number(y)}</text>")
    return "".join(parts)


def _axis_names(across: str, up: str) -> str:
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return (
        f"<text class=mid x={middle} y={_HEIGHT - 6}>{text(across)}</text>"
        f"<text class=mid transform='translate(12 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)'>"
        f"{text(up)}</text>"
    )


def _thinned(curve: Curve) -> Curve:
    step = -(-len(curve) // _POINTS)
    return [*curve[:-1:step], curve[-1]] if len(curve) > 1 else curve


def _svg(content: str, title: str, description: str, height: float = _HEIGHT) -> str:
    label = quoted(f"{title}. {description}")
    return f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role=img aria-label={label}>{content}</svg>'
