"""Shots and answers as pieces of a page."""

from collections.abc import Sequence

from keras_resnet.explain.gallery import Shot
from keras_resnet.explain.label_set_gallery import Answer
from keras_resnet.explain.neighbors import Neighbor
from keras_resnet.explain.pictures import answer_with_heat, as_jpeg, sized, with_heat
from keras_resnet.pages import figure, quoted, text

_NEIGHBOR_SIDE = 96


def shot_article(shot: Shot, names: Sequence[str]) -> str:
    """HTML of a photo, its heat maps and the training images most like it.

    Args:
        shot: what to show.
        names: of all classes.
    """
    prediction = names[shot.prediction]
    known = "" if shot.label is None else names[shot.label]
    figures = [
        figure(as_jpeg(sized(shot.photo)), f"is {known}" if known else "photo", f"{shot.path}")
    ]
    for number, heat in (
        (shot.prediction, shot.heat_of_prediction),
        (shot.label, shot.heat_of_label),
    ):
        if heat is not None and number is not None:
            caption = f"{names[number]} {shot.probabilities[number]:.1%}"
            alt = f"{shot.path}: what speaks for {names[number]}"
            figures.append(figure(as_jpeg(with_heat(shot, heat)), caption, alt))
    wrong = known and known != prediction
    label = f"{known}, taken for {prediction}" if wrong else prediction
    return _article(label, figures, shot.path, shot.neighbors)


def answer_article(answer: Answer) -> str:
    """HTML of a photo, what speaks for one of its classes, and the training images most like it."""
    if answer.is_there is None:
        labels = "photo"
    else:
        labels = f"is {', '.join(answer.labels)}" if answer.labels else "has no label"
    alt = f"{answer.path}: what speaks for {answer.class_name}"
    wrong = answer.is_there is not None and answer.is_there != answer.predicted
    name = answer.sentence if wrong else answer.class_name
    figures = [
        figure(as_jpeg(sized(answer.photo)), labels, answer.path),
        figure(as_jpeg(answer_with_heat(answer)), f"{name} {answer.probability:.1%}", alt),
    ]
    return _article(answer.sentence, figures, answer.path, answer.neighbors)


def _article(label: str, figures: Sequence[str], path: str, neighbors: Sequence[Neighbor]) -> str:
    like = "".join(map(_neighbor, neighbors))
    if like:
        like = f"<p class=quiet>most like it in training</p><div class='row like'>{like}</div>"
    return (
        f"<article class=shot aria-label={quoted(label)}><div class=row>{''.join(figures)}</div>"
        f"<div class=path>{text(path)}</div>{like}</article>"
    )


def _neighbor(one: Neighbor) -> str:
    photo = as_jpeg(sized(one.photo, _NEIGHBOR_SIDE))
    return figure(photo, f"{one.label} {one.similarity:.2f}", f"{one.path}: {one.label}")
