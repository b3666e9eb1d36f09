"""The gallery as one page of HTML that needs nothing else: no script, no network, no other file."""

import base64
import html
from collections.abc import Sequence

import numpy as np

from keras_resnet.commands.explain.pictures import as_jpeg, sized, with_heat
from keras_resnet.explain.gallery import ClassShots, Gallery, Neighbor, Shot

_NEIGHBOR_SIDE = 96
_STYLE = """
:root { color-scheme: light dark; --line: #8886; --quiet: #595959; }
@media (prefers-color-scheme: dark) { :root { --quiet: #b5b5b5; } }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; }
h3 { margin-bottom: .3rem; }
nav a { display: inline-block; padding: .25rem .6rem .25rem 0; }
.shots { display: flex; flex-wrap: wrap; gap: 1rem; }
.shot { border: 1px solid var(--line); border-radius: 6px; padding: .6rem; max-width: 100%; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; }
figure { margin: 0; max-width: 144px; overflow-wrap: anywhere; font-size: .85rem; }
figure img { display: block; width: 144px; height: 144px; }
.like figure, .like img { width: 96px; max-width: 96px; }
.like img { height: 96px; }
.path, .quiet { color: var(--quiet); font-size: .8rem; overflow-wrap: anywhere; }
@media print { .shot, h2, h3 { break-inside: avoid; break-after: avoid; } }
"""


def make_page(gallery: Gallery, title: str) -> str:
    """The page.

    Args:
        gallery: what to show.
        title: which model it is of.
    """
    predictions = gallery.predictions
    names = predictions.class_names
    figures = f"{len(predictions.paths):,} images"
    if predictions.labels is not None:
        right = int((predictions.classes == predictions.labels).sum())
        figures += f", {right:,} right ({predictions.top1:.2%})"
    parts = [
        f"<h1>What {_text(title)} looks at</h1>",
        f"<p>{_text(predictions.source)}: {figures}.</p>",
        *(f"<p class=quiet>{_text(note)}</p>" for note in gallery.notes),
        _explanation(),
        _links(gallery),
    ]
    if predictions.labels is not None:
        parts.append("<h2 id=mistakes>The surest mistakes</h2>")
        shots = "".join(_shot(shot, names) for shot in gallery.mistakes)
        parts.append(f"<div class=shots>{shots}</div>" if shots else "<p>There are none.</p>")
    parts.append("<h2>Class by class</h2>")
    parts += [_class(one, f"class{place}", names) for place, one in enumerate(gallery.classes)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>What {_text(title)} looks at</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _explanation() -> str:
    return (
        "<p>A heat map shows which parts of the image speak for a class: the brighter, the more. "
        "The maps of one image share a scale, so that those of two classes can be compared.</p>"
    )


def _links(gallery: Gallery) -> str:
    links = ["<a href=#mistakes>mistakes</a>"] if gallery.predictions.labels is not None else []
    for place, one in enumerate(gallery.classes):
        links.append(f"<a href=#class{place}>{_text(one.name)}</a>")
    return f"<nav aria-label='On this page'>{''.join(links)}</nav>"


def _class(one: ClassShots, anchor: str, names: Sequence[str]) -> str:
    if one.correct is None:
        count = f"{one.examples:,} photos predicted"
    else:
        share = one.correct / one.examples
        count = f"{one.correct:,} of {one.examples:,} right ({share:.1%})"
    parts = [f"<section><h3 id={anchor}>{_text(one.name)}</h3><p class=quiet>{count}</p>"]
    for kind, shots in (
        ("Best", one.best),
        ("Worst", one.worst),
        ("Most doubtful", one.doubtful),
    ):
        if shots:
            inside = "".join(_shot(shot, names) for shot in shots)
            parts.append(f"<h4>{kind}</h4><div class=shots>{inside}</div>")
    return "".join([*parts, "</section>"])


def _shot(shot: Shot, names: Sequence[str]) -> str:
    prediction = names[shot.prediction]
    known = "" if shot.label is None else names[shot.label]
    figures = [_figure(sized(shot.photo), f"is {known}" if known else "photo", f"{shot.path}")]
    for number, heat in (
        (shot.prediction, shot.heat_of_prediction),
        (shot.label, shot.heat_of_label),
    ):
        if heat is not None and number is not None:
            caption = f"{names[number]} {shot.probabilities[number]:.1%}"
            alt = f"{shot.path}: what speaks for {names[number]}"
            figures.append(_figure(with_heat(shot, heat), caption, alt))
    like = "".join(map(_neighbor, shot.neighbors))
    if like:
        like = f"<p class=quiet>most like it in training</p><div class='row like'>{like}</div>"
    wrong = known and known != prediction
    label = f"{known}, taken for {prediction}" if wrong else prediction
    return (
        f"<article class=shot aria-label={_quoted(label)}><div class=row>{''.join(figures)}</div>"
        f"<div class=path>{_text(shot.path)}</div>{like}</article>"
    )


def _neighbor(one: Neighbor) -> str:
    photo = sized(one.photo, _NEIGHBOR_SIDE)
    return _figure(photo, f"{one.label} {one.similarity:.2f}", f"{one.path}: {one.label}")


def _figure(photo: np.ndarray, caption: str, alt: str) -> str:
    data = base64.b64encode(as_jpeg(photo)).decode()
    return (
        f"<figure><img alt={_quoted(alt)} src='data:image/jpeg;base64,{data}'>"
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _text(value: str) -> str:
    # Names of files that are no UTF-8 hold halves of characters, which no page can.
    return html.escape(value.encode(errors="replace").decode())


def _quoted(value: str) -> str:
    return f'"{_text(value)}"'
