"""The gallery as one page of HTML that needs nothing else: no script, no network, no other file."""

from collections.abc import Sequence

from keras_resnet.explain.articles import answer_article, shot_article
from keras_resnet.explain.gallery import ClassShots, Gallery
from keras_resnet.explain.label_set_gallery import ClassAnswers, LabelSetGallery
from keras_resnet.pages import document, text

_EXPLANATION = (
    "A heat map shows which parts of the image speak for a class: the brighter, the more."
)
_SCALE = " The maps of one image share a scale, so that those of two classes can be compared."


def make_page(gallery: Gallery | LabelSetGallery, title: str) -> str:
    """The page.

    Args:
        gallery: what to show.
        title: which model it is of.
    """
    predictions = gallery.predictions
    if isinstance(gallery, LabelSetGallery):
        figures = _figures_of_sets(gallery)
        mistakes = [answer_article(one) for one in gallery.mistakes]
        classes = [_class_of_sets(one, f"class{i}") for i, one in enumerate(gallery.classes)]
    else:
        names = gallery.predictions.class_names
        figures = _figures(gallery)
        mistakes = [shot_article(shot, names) for shot in gallery.mistakes]
        classes = [_class(one, f"class{i}", names) for i, one in enumerate(gallery.classes)]
    parts = [
        f"<h1>What {text(title)} looks at</h1>",
        f"<p>{text(predictions.source)}: {figures}.</p>",
        *(f"<p class=quiet>{text(note)}</p>" for note in gallery.notes),
        f"<p>{_EXPLANATION}{_SCALE * isinstance(gallery, Gallery)}</p>",
        _links(gallery),
    ]
    if predictions.labels is not None:
        parts.append("<h2 id=mistakes>The surest mistakes</h2>")
        shots = "".join(mistakes)
        parts.append(f"<div class=shots>{shots}</div>" if shots else "<p>There are none.</p>")
    parts.append("<h2>Class by class</h2>")
    return document(f"What {title} looks at", "\n".join([*parts, *classes]))


def _figures(gallery: Gallery) -> str:
    predictions = gallery.predictions
    images = f"{len(predictions.paths):,} images"
    if predictions.labels is None:
        return images
    right = int((predictions.classes == predictions.labels).sum())
    return f"{images}, {right:,} right ({predictions.top1:.2%})"


def _figures_of_sets(gallery: LabelSetGallery) -> str:
    predictions = gallery.predictions
    images = "an image may have several labels"
    found = predictions.figures()
    if not found:
        return images
    return f"{images}; mAP {found['map']:.4f}, F1 {found['f1']:.4f} at the model's thresholds"


def _links(gallery: Gallery | LabelSetGallery) -> str:
    links = ["<a href=#mistakes>mistakes</a>"] if gallery.predictions.labels is not None else []
    names = [one.name for one in gallery.classes]
    links += [f"<a href=#class{place}>{text(name)}</a>" for place, name in enumerate(names)]
    return f"<nav aria-label='On this page'>{''.join(links)}</nav>"


def _class(one: ClassShots, anchor: str, names: Sequence[str]) -> str:
    if one.correct is None:
        count = f"{one.examples:,} photos predicted"
    else:
        share = one.correct / one.examples
        count = f"{one.correct:,} of {one.examples:,} right ({share:.1%})"
    kinds = (("Best", one.best), ("Worst", one.worst), ("Most doubtful", one.doubtful))
    shots = [(kind, [shot_article(shot, names) for shot in shots]) for kind, shots in kinds]
    return _section(one.name, anchor, count, shots)


def _class_of_sets(one: ClassAnswers, anchor: str) -> str:
    count = f"predicted of {one.predicted:,} images, above {one.threshold:.3g}"
    if one.examples is not None:
        count = f"{one.examples:,} images have it; {count}, {one.correct:,} of those rightly"
    if one.average_precision is not None:
        count += f"; average precision {one.average_precision:.4f}"
    kinds = (
        ("Falsely predicted, the surest first", one.false_positives),
        ("Missed, the surest first", one.false_negatives),
        ("Most probable", one.surest),
        ("Nearest to the threshold", one.doubtful),
    )
    shots = [(kind, list(map(answer_article, answers))) for kind, answers in kinds]
    return _section(one.name, anchor, count, shots)


def _section(name: str, anchor: str, count: str, kinds: Sequence[tuple[str, list[str]]]) -> str:
    parts = [f"<section><h3 id={anchor}>{text(name)}</h3><p class=quiet>{count}</p>"]
    for kind, articles in kinds:
        if articles:
            parts.append(f"<h4>{kind}</h4><div class=shots>{''.join(articles)}</div>")
    return "".join([*parts, "</section>"])
