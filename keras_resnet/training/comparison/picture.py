"""The curves of a comparison as one picture, after He et al. 2015, figures 1 and 6."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.printing import any_letters, printable
from keras_resnet.storage import replacing
from keras_resnet.training.curves import read_decades

if TYPE_CHECKING:
    from keras_resnet.training.comparison.groups import Comparison, Group

# More points than these would hide their own bars: a band shows the deviation then.
_BARS = 30
# More entries than these stand below the picture.
_LEGEND = 8
_LABELS = {"top1": "top-1 accuracy", "loss": "loss"}
# Of groups beyond the ten colors that there are.
_STYLES = ("-", "--", ":", "-.")


def draw(
    comparison: "Comparison",
    path: Path,
    measure: str = "metric",
    panels: "str | Callable[[Group], str] | None" = None,
) -> None:
    """Draws; `Comparison.draw` says the rest."""
    try:
        with any_letters():
            _draw(comparison, path, measure, panels)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{path.name} needs matplotlib: pip install 'keras-resnet-tpu[plot]'"
        ) from error


def _draw(
    comparison: "Comparison",
    path: Path,
    measure: str,
    panels: "str | Callable[[Group], str] | None",
) -> None:
    from matplotlib.figure import Figure

    titles = [_panel(group, panels) for group in comparison.groups] if panels else []
    names = list(dict.fromkeys(titles)) or ["", ""]
    many = len(comparison.groups) > _LEGEND
    figure = Figure(
        figsize=(max(5.0 * len(names), 7.0), 5.5 if many else 4.5), layout="constrained"
    )
    axes = figure.subplots(1, len(names), sharey=bool(panels), squeeze=False)[0]
    for place, group in enumerate(comparison.groups):
        if panels:  # each panel begins with the first color again
            panel = names.index(titles[place])
            look = _look(titles[:place].count(titles[place]))
            _draw_group(axes[panel], group, group.metric, measure, look)
        else:
            _draw_group(axes[0], group, group.metric, measure, _look(place))
            _draw_group(axes[1], group, "loss", "metric", _look(place))
    axes[0].set_ylabel(_label(comparison, measure))
    if not panels:
        axes[1].set_ylabel(_LABELS["loss"])
        _scale_loss(axes[1])
    for one, name in zip(axes, names, strict=True):
        one.set_title(_plain(name))
        _finish(one, legend=not many)
    if many:  # with panels each has its own
        entries = [one.get_legend_handles_labels() for one in (axes if panels else axes[:1])]
        lines = [line for column, _ in entries for line in column]
        labels = [label for _, column in entries for label in column]
        figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize="small")
    _save(figure, path)


def _look(place: int) -> dict[str, str]:
    return {"color": f"C{place % 10}", "linestyle": _STYLES[place // 10 % len(_STYLES)]}


def _label(comparison: "Comparison", measure: str) -> str:
    metrics = dict.fromkeys(group.metric for group in comparison.groups)
    label = " / ".join(_LABELS.get(metric, metric) for metric in metrics)
    if measure == "metric":
        return label
    return "error (%)" if [*metrics] == ["top1"] else f"100 % − {label} (%)"


def _panel(group: "Group", panels: "str | Callable[[Group], str]") -> str:
    if callable(panels):
        return panels(group)
    value = group.runs[0].config.get(panels)
    return f"{panels}={'none' if value is None else value}"


def _draw_group(axes: Any, group: "Group", key: str, measure: str, look: dict) -> None:
    """Bold what is held out, thin what is trained on, in one color."""
    name = _plain(printable(group.name)) + (f", n={len(group.runs)}" if len(group.runs) > 1 else "")
    for kind, what, width in (("eval", "held out", 2.0), ("train", "training", 0.8)):
        curve = group.curve(kind, key)
        if not len(curve):
            continue
        epochs, mean, deviation, n = curve.T
        if measure == "error":
            mean, deviation = 100 * (1 - mean), 100 * deviation
        label, style = f"{name}, {what}", {**look, "linewidth": width}
        if len(curve) == 1:  # a line of one point cannot be seen
            style |= {"marker": "o", "markersize": 2 + 2 * width}
        if n.max() == 1:
            axes.plot(epochs, mean, label=label, **style)
        elif len(curve) <= _BARS:
            axes.errorbar(epochs, mean, deviation, label=label, capsize=2, elinewidth=0.8, **style)
        else:
            axes.plot(epochs, mean, label=label, **style)
            axes.fill_between(
                epochs, mean - deviation, mean + deviation, color=look["color"], alpha=0.2, lw=0
            )


def _finish(axes: Any, legend: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.grid(alpha=0.3)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if legend and axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")


def _scale_loss(axes: Any) -> None:
    """Loss spans decades, unless it is 0, which has no logarithm; the ticks are plain numbers."""
    values = np.concatenate([np.zeros(0), *(line.get_ydata() for line in axes.lines)])
    if not len(values) or values.min() <= 0 or values.max() / values.min() < 10:
        return
    read_decades(axes, values.min(), values.max())


def _plain(text: str) -> str:
    """A name, which is not to be a formula of TeX."""
    return text.replace("$", r"\$")


def _save(figure: Any, path: Path) -> None:
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120)
    except (OSError, ValueError) as error:  # ValueError: a format that matplotlib does not have
        raise UserError(f"{path}: cannot be written: {error}") from error
