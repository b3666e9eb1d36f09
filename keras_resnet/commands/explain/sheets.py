"""The gallery as contact sheets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_resnet.commands.show.contact_sheet import Section, write_sheet
from keras_resnet.explain.gallery import ClassShots, Gallery, Shot
from keras_resnet.explain.label_set_gallery import Answer, ClassAnswers, LabelSetGallery
from keras_resnet.explain.pictures import answer_with_heat, sized, with_heat

# A mistake is a photo and one heat map or two; two mistakes a row, or three.
_OF_MISTAKES = 6
_MOST_COLUMNS = 12


def write_sheets(gallery: Gallery | LabelSetGallery, folder: Path) -> None:
    """Writes mistakes.png and classes.png, if there is anything to show on them."""
    if isinstance(gallery, LabelSetGallery):
        mistakes = [picture for answer in gallery.mistakes for picture in _two(answer)]
        title = "The surest mistakes: photo, and what speaks for the class"
        sections = [_section_of_sets(one) for one in gallery.classes]
    else:
        names = gallery.predictions.class_names
        mistakes = [picture for shot in gallery.mistakes for picture in _three(shot, names)]
        title = "The surest mistakes: photo, what speaks for the prediction, what for the label"
        sections = [_section(one, names) for one in gallery.classes]
    parts = [_as_section(title, mistakes)] if mistakes else []
    _write(folder / "mistakes.png", parts, _OF_MISTAKES)
    sections = [one for one in sections if len(one.images)]
    columns = max((len(one.images) for one in sections), default=1)
    _write(folder / "classes.png", sections, min(columns, _MOST_COLUMNS))


def _write(file: Path, sections: list[Section], columns: int) -> None:
    if sections:
        write_sheet(file, sections, columns)
    else:
        file.unlink(missing_ok=True)  # of an earlier call


def _three(shot: Shot, names: Sequence[str]) -> list[tuple[np.ndarray, str]]:
    label = shot.label if shot.label is not None else shot.prediction
    return [
        (sized(shot.photo), f"is {names[label]}"),
        (with_heat(shot, shot.heat_of_prediction), _sure(shot, shot.prediction, names)),
        (with_heat(shot, shot.heat_of_label), _sure(shot, label, names)),
    ]


def _two(answer: Answer) -> list[tuple[np.ndarray, str]]:
    labels = ", ".join(answer.labels) if answer.labels else "nothing"
    return [
        (sized(answer.photo), f"is {labels}"),
        (answer_with_heat(answer), f"{answer.sentence} {answer.probability:.0%}"),
    ]


def _section(one: ClassShots, names: Sequence[str]) -> Section:
    return _as_section(
        one.name,
        [
            (
                with_heat(shot, shot.heat_of_prediction),
                f"{kind}: {_sure(shot, shot.prediction, names)}",
            )
            for kind, shot in _kinds(one)
        ],
    )


def _section_of_sets(one: ClassAnswers) -> Section:
    kinds = {
        "false": one.false_positives,
        "missed": one.false_negatives,
        "surest": one.surest,
        "doubtful": one.doubtful,
    }
    return _as_section(
        one.name,
        [
            (answer_with_heat(answer), f"{kind}: {answer.probability:.0%}")
            for kind, answers in kinds.items()
            for answer in answers
        ],
    )


def _as_section(title: str, pictures: list[tuple[np.ndarray, str]]) -> Section:
    shown = np.stack([picture for picture, _ in pictures]) if pictures else np.zeros((0, 1, 1, 3))
    return Section(title, shown, [caption for _, caption in pictures])


def _kinds(one: ClassShots) -> list[tuple[str, Shot]]:
    kinds = {"best": one.best, "worst": one.worst, "doubtful": one.doubtful}
    return [(kind, shot) for kind, shots in kinds.items() for shot in shots]


def _sure(shot: Shot, number: int, names: Sequence[str]) -> str:
    return f"{shot.probabilities[number]:.0%} {names[number]}"
