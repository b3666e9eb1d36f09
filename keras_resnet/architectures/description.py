"""A row as plain values, for the files of models."""

import dataclasses
from typing import Any

from keras_resnet.architectures import ARCHITECTURES, Architecture
from keras_resnet.architectures.row import CHANGEABLE
from keras_resnet.axes import frozen
from keras_resnet.preprocessing import Preprocessing


def describe(row: Architecture) -> dict[str, Any] | None:
    """A row as JSON can hold it: the name, and what differs from the table's row of that name.

    None for a row that the table does not have, or with parts that are no plain values.
    """
    own = ARCHITECTURES.get(row.name)
    if own is None:
        return None
    kept = CHANGEABLE - {*Preprocessing.names()}  # a model stores its preprocessing by itself
    names = [field.name for field in dataclasses.fields(row) if field.name in kept]
    changed = {
        name: getattr(row, name) for name in names if getattr(row, name) != getattr(own, name)
    }
    if not all(isinstance(value, (str, int, float, tuple)) for value in changed.values()):
        return None
    return {"name": row.name, **{key: _lists(value) for key, value in changed.items()}}


def _lists(value: Any) -> Any:
    """Tuples as lists, as far down as they go: Keras stores tuples in a form of its own."""
    return list(map(_lists, value)) if isinstance(value, tuple) else value


def fields_of(description: Any) -> dict[str, Any]:
    """What `describe` gave, as fields of `Architecture` and the `name`; empty for anything else."""
    name = description.get("name") if isinstance(description, dict) else None
    if not isinstance(name, str) or name not in ARCHITECTURES:
        return {}
    known = CHANGEABLE | {"name"}
    return {key: frozen(value) for key, value in description.items() if key in known}
