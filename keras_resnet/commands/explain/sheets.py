"""The gallery as contact sheets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_resnet.commands.show.contact_sheet import Section, write_sheet
from keras_resnet.explain.gallery import ClassShots, Gallery, Shot
from keras_resnet.explain.pictures import sized, with_heat

# A mistake is a photo and two heat maps; two mistakes a row.
_OF_MISTAKES = 6
_MOST_COLUMNS = 12


def write_sheets(gallery: Gallery, folder: Path) -> None:
    """Writes mistakes.png, if there are any, and classes.png."""
    names = gallery.predictions.class_names
    mistakes = folder / "mistakes.png"
    if gallery.mistakes:
        pictures = [picture for shot in gallery.mistakes for picture in _three(shot, names)]
        section = Section(
            "The surest mistakes: photo, what speaks for the prediction, what for the label",
            np.stack([picture for picture, _ in pictures]),
            [caption for _, caption in pictures],
        )
        write_sheet(mistakes, [section], _OF_MISTAKES)
    else:
        mistakes.unlink(missing_ok=True)  # of an earlier call
    columns = max(len(_kinds(one)) for one in gallery.classes)
    sections = [_section(one, names) for one in gallery.classes]
    write_sheet(folder / "classes.png", sections, min(columns, _MOST_COLUMNS))


def _three(shot: Shot, names: Sequence[str]) -> list[tuple[np.ndarray, str]]:
    label = shot.label if shot.label is not None else shot.prediction
    return [
        (sized(shot.photo), f"is {names[label]}"),
        (with_heat(shot, shot.heat_of_prediction), _sure(shot, shot.prediction, names)),
        (with_heat(shot, shot.heat_of_label), _sure(shot, label, names)),
    ]


def _section(one: ClassShots, names: Sequence[str]) -> Section:
    shots = _kinds(one)
    return Section(
        one.name,
        np.stack([with_heat(shot, shot.heat_of_prediction) for _, shot in shots]),
        [f"{kind}: {_sure(shot, shot.prediction, names)}" for kind, shot in shots],
    )


def _kinds(one: ClassShots) -> list[tuple[str, Shot]]:
    kinds = {"best": one.best, "worst": one.worst, "doubtful": one.doubtful}
    return [(kind, shot) for kind, shots in kinds.items() for shot in shots]


def _sure(shot: Shot, number: int, names: Sequence[str]) -> str:
    return f"{shot.probabilities[number]:.0%} {names[number]}"
