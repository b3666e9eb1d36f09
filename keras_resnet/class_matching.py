"""The classes of labelled data among those of a model, by name."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from keras_resnet.errors import UserError, nearest

_NAMED = 10
_ADVICE = (
    "Give the folders the model's names, leave those out that it does not know, or name the "
    "model's classes with --class_names=FILE (class_names= in Python), a line for each"
)


def match_classes(
    data: Sequence[str], model: Sequence[str], title: str, advice: str = _ADVICE
) -> tuple[np.ndarray, list[str]]:
    """Finds each class of the data among those of the model.

    Names are compared as they are, then without regard to case, to spaces, dashes and underscores,
    and to how accents are encoded. A model whose classes are called by their numbers has no names:
    the classes of the data are then taken in their order, if they are as many.

    Args:
        data: names of the classes of the data.
        model: names of the classes of the model, by number.
        title: of the data, for errors.
        advice: what to do about classes that the model does not have, for errors.

    Returns:
        int32 [len(data)], the number of each class of the data in the model, and lines on what is
        not plain.

    Raises:
        UserError: the model has no such class, or two classes of the data are one of the model.
    """
    unnamed = list(model) == [str(number) for number in range(len(model))]
    if unnamed and not set(data) <= set(model):
        return _in_order(data, model, title)
    numbers = _by_name(data, model)
    unknown = [name for name, number in zip(data, numbers, strict=True) if number is None]
    if unknown:
        raise UserError(f"{_unknown(unknown, data, model, title)}. {advice}")
    found = np.array(numbers, "int32")
    _check_once(data, found, model, title)
    notes = []
    if len(data) < len(model):
        notes.append(f"{len(data):,} of the model's {len(model):,} classes are in the data")
    pairs = [(name, model[number]) for name, number in zip(data, found, strict=True)]
    written = [f"{name} = {its_name}" for name, its_name in pairs if name != its_name]
    if written:
        notes.append(f"the same class, written otherwise: {_listed(written)}")
    return found, notes


def _check_once(data: Sequence[str], found: np.ndarray, model: Sequence[str], title: str) -> None:
    """Raises UserError if two classes of the data are one of the model."""
    times = np.bincount(found, minlength=len(model))
    if times.max() > 1:
        number = int(times.argmax())
        same = [name for name, its_number in zip(data, found, strict=True) if its_number == number]
        raise UserError(
            f"{title}: its classes {_listed(same)} are one class of the model, {model[number]!r}"
        )


def _by_name(data: Sequence[str], model: Sequence[str]) -> list[int | None]:
    exact = {name: number for number, name in enumerate(model)}
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(model):
        alike.setdefault(_plain(name), []).append(number)

    def find(name: str) -> int | None:
        if name in exact:
            return exact[name]
        candidates = alike.get(_plain(name), [])
        return candidates[0] if len(candidates) == 1 else None

    return [find(name) for name in data]


def _plain(name: str) -> str:
    text = unicodedata.normalize("NFKC", name).casefold()
    return " ".join(text.replace("_", " ").replace("-", " ").split())


def _in_order(
    data: Sequence[str], model: Sequence[str], title: str
) -> tuple[np.ndarray, list[str]]:
    if len(data) != len(model):
        raise UserError(
            f"{title} has {len(data):,} classes ({_listed(data)}), and the model {len(model):,} "
            "without names, so they cannot be told from each other; --class_names=FILE "
            "(class_names= in Python) names the model's, a line for each"
        )
    note = (
        f"the model's {len(model):,} classes have no names: they are taken to be those of the "
        f"data in their order, {_listed(data)}"
    )
    return np.arange(len(model), dtype="int32"), [note]


def _unknown(unknown: list[str], data: Sequence[str], model: Sequence[str], title: str) -> str:
    meant = nearest(unknown[0], model) if len(unknown) < len(data) else ""
    return (
        f"{title}: {len(unknown):,} of its {len(data):,} classes are none of the model's: "
        f"{_listed(unknown)}{meant}. The model's {len(model):,} are {_listed(model)}"
    )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
