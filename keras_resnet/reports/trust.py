"""The sections of a report on what to believe: calibration, mistakes, findings in the data."""

from collections.abc import Sequence
from typing import Any

from keras_resnet.explain.articles import answer_article, shot_article
from keras_resnet.pages import image, text
from keras_resnet.reports import charts
from keras_resnet.reports.classes import short
from keras_resnet.reports.contents import Findings, Report, Suspect
from keras_resnet.reports.overview import table


def calibration(report: Report) -> str:
    """Whether the network is as often right as it says, and from when on it should say nothing."""
    found = report.calibration
    if report.label_sets is not None:  # each probability is of a yes of its own
        return ""
    if found is None:
        return (
            "<p>This run has no calibration.json, so how far its probabilities can be believed is "
            "not known.</p>"
        )
    try:
        return _calibration(found)
    except (KeyError, TypeError, ValueError, AttributeError):
        return "<p>The calibration.json of this run is damaged.</p>"


def _calibration(found: dict[str, Any]) -> str:
    # With images kept apart, what the temperature of the others comes to on those.
    told = found.get("test") or found
    temperature = float(found["temperature"])
    sides = "less" if temperature > 1 else "more"
    bins, calibrated = told["bins"], told["bins_calibrated"]
    chart = charts.reliability_diagram(bins, calibrated, "Reliability diagram")
    rows = [
        (f"{row['coverage']:.0%}", f"{row['threshold']:.4f}", _accuracy(row["accuracy"]))
        for row in told["thresholds"]
    ]
    heads = ("answered", "threshold", "right among those")
    thresholds = table(heads, rows, "Thresholds below which unknown is the better answer", (1, 2))
    note = f"<p class=quiet>{text(found['note'])}</p>" if found.get("note") else ""
    return (
        f"<p>On {int(told['images']):,} images of {text(told['split'])} the probability of the "
        f"answer is off by {float(told['ece']):.2%} on average (expected calibration error), and "
        f"by {float(told['ece_calibrated']):.2%} with a temperature of {temperature:.3g}, which "
        f"makes the network {sides} sure. A point on the dotted line is as often right as it "
        f"says; the larger, the more images.</p>"
        f"{charts.legend(['as the network says', 'with the temperature'])}"
        f"<div class=chart>{chart}</div>{note}"
        f"<h3>When to answer “unknown”</h3><p>An answer less probable than the threshold, with the "
        f"temperature, is better given as unknown: <code>keras-resnet predict --unknown</code>.</p>"
        f"{thresholds}"
    )


def _accuracy(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def mistakes(report: Report) -> str:
    """The surest mistakes, and what the network has seen in them."""
    if report.label_sets is not None:
        return _wrong_answers(report)
    if report.predictions is None:
        return "<p>There are no images to show.</p>"
    if not report.mistakes:
        return "<p>There are none.</p>"
    shots = "".join(shot_article(shot, report.class_names) for shot in report.mistakes)
    return (
        "<p>A heat map shows which parts of the image speak for a class: the brighter, the more. "
        "The maps of one image share a scale.</p>"
        f"<div class=shots>{shots}</div>"
    )


def _wrong_answers(report: Report) -> str:
    if report.answers is None:
        return ""
    if not report.answers:
        return "<p>There are none.</p>"
    articles = "".join(map(answer_article, report.answers))
    return (
        "<p>Classes that are falsely predicted, and those that are missed. A heat map shows which "
        "parts of the image speak for the class: the brighter, the more.</p>"
        f"<div class=shots>{articles}</div>"
    )


def findings(report: Report) -> str:
    """Labels in doubt, images that training has seen, few images of a class."""
    found = report.findings
    if report.label_sets is not None:
        return ""
    if found is None:
        return "<p>There are no images to look at.</p>"
    parts = [*_suspects(found, report.class_names), *_copies(found), _small_classes(report)]
    where = report.config.data.path or "DATA"
    parts += [f"<p class=quiet>{text(note)}</p>" for note in found.notes]
    parts.append(
        f"<p class=quiet><code>keras-resnet inspect {text(where)}</code> looks at all images for "
        "near duplicates, broken, dark, blurred and tiny ones and more.</p>"
    )
    return "".join(parts)


def _suspects(found: Findings, names: Sequence[str]) -> list[str]:
    parts = ["<h3>Labels in doubt</h3>"]
    if not found.suspected:
        return [*parts, "<p>No label of these images is in doubt.</p>"]
    shown = (
        f", the {len(found.suspects)} most doubtful"
        if len(found.suspects) < found.suspected
        else ""
    )
    pictures = "".join(_suspect(one, names) for one in found.suspects)
    return [
        *parts,
        f"<p>By confident learning about {found.noise:.1%} of the labels are wrong; "
        f"{found.suspected:,} are in doubt{shown}. It may as well be the network that is wrong: "
        "look at them.</p>",
        f"<div class=thumbs>{pictures}</div>",
    ]


def _suspect(one: Suspect, names: Sequence[str]) -> str:
    said = f"{names[one.label]}? rather {names[one.suggestion]} ({one.probability:.0%})"
    picture = "" if one.thumbnail is None else image(one.thumbnail.jpeg, f"{one.path}: {said}")
    return (
        f"<figure>{picture}<figcaption>{text(said)} "
        f"<span class=path>{text(short(one.path))}</span></figcaption></figure>"
    )


def _copies(found: Findings) -> list[str]:
    if found.copied is None:
        return []
    head = "<h3>Images that training has seen</h3>"
    if not found.copied:
        return [head, "<p>No file of these images is among the training images.</p>"]
    rows = [(text(one), text(other)) for one, other in found.copies]
    some = f", the first {len(rows)}" if len(rows) < found.copied else ""
    return [
        head,
        f"<p class=warning>{found.copied:,} of these images are among the training images, too"
        f"{some}: the accuracy says more than is true.</p>",
        table(("evaluated", "trained on"), rows, "Copies"),
    ]


def _small_classes(report: Report) -> str:
    supports = [row["support"] for row in report.classes]
    few = [row for row in report.classes if row["support"] < max(supports) / 10]
    if not few:
        return ""
    names = ", ".join(f"{row['class']} ({row['support']:,})" for row in few[:20])
    more = f" and {len(few) - 20:,} more" if len(few) > 20 else ""
    return (
        f"<h3>Classes with few images</h3><p>Less than a tenth of the {max(supports):,} of the "
        f"commonest, so their figures say little: {text(names)}{more}.</p>"
    )
