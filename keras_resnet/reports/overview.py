"""The first and the last sections of a report: what was trained, how, and what it costs."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.config.schema import KEYS
from keras_resnet.pages import text
from keras_resnet.reports.contents import Report

# Images from which on the accuracy is within a percent or so of what it is on others.
_MANY = 5000


def summary(report: Report) -> str:
    """The heading, the figures that count, and what is to be known of them."""
    config = report.config
    parts = [f"<h1>Report of {text(report.name)}</h1>", f"<p>{_sentence(report)}</p>"]
    if not report.is_finished:
        parts.append(
            f"<p class=warning>This run is not finished: the network is that of step "
            f"{report.step:,}.</p>"
        )
    parts += [f"<p class=quiet>{text(note)}</p>" for note in report.notes]
    found = report.label_set_figures
    tiles: list[tuple[str, float | None, str]] = [
        ("accuracy", report.top1, f"share of the images that are right{_interval(report)}"),
        ("mAP", found.get("map"), "mean of the average precisions of the classes"),
        ("F1", found.get("f1"), "of all labels of all images together"),
        ("mean F1", report.average("f1"), "over the classes, each counts alike"),
        ("lowest recall", *_worst(report)),
    ]
    shown = [(name, value, what) for name, value, what in tiles if value is not None]
    cells = "".join(
        f"<li><b>{value:.2%}</b> {text(name)}<br><span class=quiet>{text(what)}</span></li>"
        for name, value, what in shown
    )
    parts.append(f"<ul class=tiles>{cells}</ul>" if cells else "")
    if config.data.test_split and report.is_finished:
        parts.append(
            f"<p>All figures below are of the images of {text(config.data.test_split)}, which were "
            f"evaluated once, at the end. The best step, early stopping and what else was chosen "
            f"were chosen by those of {text(config.data.eval_split)}.</p>"
        )
    elif report.is_finished and config.checkpoint.model == "best":
        parts.append(
            f"<p>The step was chosen by the same images ({text(config.data.eval_split)}), so other "
            f"images will come out a little worse. data.test_split keeps images apart.</p>"
        )
    return "".join(parts)


def _sentence(report: Report) -> str:
    model = text(report.config.model.name)
    if report.top1 is None:
        return f"{model} on {text(report.source)}."
    assert report.matrix is not None
    return (
        f"{model} is right on {report.matrix.trace():,} of {report.matrix.sum():,} images "
        f"({report.top1:.2%}): {text(report.source)}."
    )


def _interval(report: Report) -> str:
    """How far the accuracy on other such images may be from it (Wilson 1927), of few images."""
    if report.matrix is None or report.top1 is None or (count := int(report.matrix.sum())) > _MANY:
        return ""
    z = 1.959964  # 95 % of the normal distribution
    middle = (report.top1 + z * z / (2 * count)) / (1 + z * z / count)
    spread = math.sqrt(report.top1 * (1 - report.top1) / count + (z / (2 * count)) ** 2)
    half = z / (1 + z * z / count) * spread
    low, high = max(middle - half, 0), min(middle + half, 1)
    return f"; of so few the true share may be {low:.0%} to {high:.0%} (95 %)"


def _data(config: ConfigDict) -> str:
    """The source; the name of the data set where the source has several, and the path."""
    name = config.data.name if config.data.source == "tfds" else ""
    return " ".join(filter(None, (config.data.source, name, config.data.path)))


def _worst(report: Report) -> tuple[float | None, str]:
    rows = [row for row in report.classes if row["recall"] is not None]
    if not rows:
        return None, ""
    worst = min(rows, key=lambda row: row["recall"])
    return worst["recall"], f"of class {worst['class']} ({worst['support']:,} images)"


def training(report: Report) -> str:
    """What was trained on what, with which settings."""
    config, data, result = report.config, report.dataset, report.result
    weights = config.model.weights
    facts: list[tuple[str, Any]] = [
        ("network", config.model.name),
        ("started from", weights or "random weights"),
        ("data", _data(config)),
        ("classes", f"{len(report.class_names):,}"),
        ("trained on", _split(config.data.train_split, data.get("train_examples"))),
        ("chosen by", _split(config.data.eval_split, data.get("eval_examples"))),
    ]
    if config.data.test_split:
        tested = _split(config.data.test_split, data.get("test_examples"))
        facts.append(("reported on", tested))
    facts.append(("epochs", f"{config.epochs:,}"))
    if result:
        facts.append(("steps", f"{result['step']:,}, the network is that of step {report.step:,}"))
    if report.best is not None:
        best = report.best
        facts.append(("best evaluation", f"{best.score:.2%}, after epoch {best.epoch:.1f}"))
    changed, rest = report.settings()
    parts = [definitions(facts), "<h3>Settings that are not the default</h3>"]
    parts.append(_changed(changed) if changed else "<p>All settings are at their defaults.</p>")
    parts.append(
        f"<details><summary>The {len(rest)} other settings</summary>{_rest(rest)}</details>"
    )
    if report.history:
        entries = "".join(f"<li>{_change(entry)}</li>" for entry in report.history)
        parts.append(f"<h3>Changed when the run was resumed</h3><ul>{entries}</ul>")
    return "".join(parts)


def costs(report: Report) -> str:
    """What the network costs, and the versions that made it."""
    facts: list[tuple[str, Any]] = []
    if report.costs is not None:
        shape = " × ".join(map(str, report.costs.input_shape))
        facts += [
            ("parameters", f"{report.costs.parameters:,}"),
            ("multiply-adds", f"{report.costs.multiply_adds:,} for one image of {shape}"),
        ]
    speed = report.result.get("train_images_per_second")
    if isinstance(speed, int | float):
        facts.append(("training", f"{speed:,.0f} images/s"))
    rows = [row for row in report.rows if row["kind"] == "train"]
    seconds = sum(
        row["examples"] / row["images_per_second"]
        for row in rows
        if row.get("examples") and row.get("images_per_second")
    )
    if seconds:
        facts.append(("time in training steps", _duration(seconds)))
    facts.append(("precision", report.config.precision))
    facts += list(report.versions.items())
    return definitions(facts)


def definitions(facts: Iterable[tuple[str, Any]]) -> str:
    """Names and what they are."""
    rows = (f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    return f"<dl>{''.join(rows)}</dl>"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str, numbers: Sequence[int] = ()
) -> str:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        heads: of the columns, plain text.
        rows: HTML of the cells; the first of each is its heading.
        caption: plain text, for those who do not see it.
        numbers: columns that are aligned to the right.
    """

    def kind(column: int) -> str:
        return " class=n" if column in numbers else ""

    head = "".join(f"<th scope=col{kind(i)}>{text(name)}</th>" for i, name in enumerate(heads))
    body = "".join(
        f"<tr><th scope=row>{first}</th>"
        f"{''.join(f'<td{kind(i)}>{cell}</td>' for i, cell in enumerate(cells, start=1))}</tr>"
        for first, *cells in rows
    )
    return (
        f"<div class=scroll role=region tabindex=0 aria-label='{text(caption)}'><table>"
        f"<caption class=hidden>{text(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _split(name: str, images: Any) -> str:
    return f"{name}, {images:,} images" if isinstance(images, int) else name


def _changed(values: dict[str, Any]) -> str:
    rows = [
        (_code(key), _code(value), _code(KEYS[key].default), text(KEYS[key].help))
        for key, value in values.items()
    ]
    heads = ("key", "value", "default", "what it does")
    return f"<div class=settings>{table(heads, rows, 'Settings that are not the default')}</div>"


def _rest(values: dict[str, Any]) -> str:
    rows = [(_code(key), _code(value), text(KEYS[key].help)) for key, value in values.items()]
    heads = ("key", "value", "what it does")
    return f"<div class=settings>{table(heads, rows, 'Settings at their default')}</div>"


def _code(value: Any) -> str:
    if value is None:
        value = "none"
    written = value if isinstance(value, str) and value else repr(value)
    return f"<code>{text(written)}</code>"


def _change(entry: dict[str, Any]) -> str:
    changed = entry.get("changed")
    pairs = changed.items() if isinstance(changed, dict) else ()
    said = "; ".join(f"{key}: {json.dumps(values)}" for key, values in pairs)
    return text(f"{entry.get('time', '')} {said}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
