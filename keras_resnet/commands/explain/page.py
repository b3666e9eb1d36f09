"""The gallery as one page of HTML that needs nothing else: no script, no network, no other file."""

from collections.abc import Sequence

from keras_resnet.explain.articles import shot_article
from keras_resnet.explain.gallery import ClassShots, Gallery
from keras_resnet.pages import document, text


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
        f"<h1>What {text(title)} looks at</h1>",
        f"<p>{text(predictions.source)}: {figures}.</p>",
        *(f"<p class=quiet>{text(note)}</p>" for note in gallery.notes),
        _explanation(),
        _links(gallery),
    ]
    if predictions.labels is not None:
        parts.append("<h2 id=mistakes>The surest mistakes</h2>")
        shots = "".join(shot_article(shot, names) for shot in gallery.mistakes)
        parts.append(f"<div class=shots>{shots}</div>" if shots else "<p>There are none.</p>")
    parts.append("<h2>Class by class</h2>")
    parts += [_class(one, f"class{place}", names) for place, one in enumerate(gallery.classes)]
    body = "\n".join(parts)
    return document(f"What {title} looks at", body)


def _explanation() -> str:
    return (
        "<p>A heat map shows which parts of the image speak for a class: the brighter, the more. "
        "The maps of one image share a scale, so that those of two classes can be compared.</p>"
    )


def _links(gallery: Gallery) -> str:
    links = ["<a href=#mistakes>mistakes</a>"] if gallery.predictions.labels is not None else []
    for place, one in enumerate(gallery.classes):
        links.append(f"<a href=#class{place}>{text(one.name)}</a>")
    return f"<nav aria-label='On this page'>{''.join(links)}</nav>"


def _class(one: ClassShots, anchor: str, names: Sequence[str]) -> str:
    if one.correct is None:
        count = f"{one.examples:,} photos predicted"
    else:
        share = one.correct / one.examples
        count = f"{one.correct:,} of {one.examples:,} right ({share:.1%})"
    parts = [f"<section><h3 id={anchor}>{text(one.name)}</h3><p class=quiet>{count}</p>"]
    for kind, shots in (
        ("Best", one.best),
        ("Worst", one.worst),
        ("Most doubtful", one.doubtful),
    ):
        if shots:
            inside = "".join(shot_article(shot, names) for shot in shots)
            parts.append(f"<h4>{kind}</h4><div class=shots>{inside}</div>")
    return "".join([*parts, "</section>"])
