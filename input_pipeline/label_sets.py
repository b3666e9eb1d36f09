"""Several labels an image, or none: how tables write them. Standard library only.

    cat|dog      cat;dog      cat, dog      ["cat", "dog"]      two lines of one image

A cell is read with the first of these separators that any cell of the table holds, so that a comma
in the name of a class does no harm beside `|`. An empty cell is an image without any label.
"""

import ast
import json
from collections.abc import Iterable, Sequence
from typing import Any

from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.printing import is_plain_cell

SEPARATORS = ("|", ";", ",")
HINT = (
    "For several labels an image, or none, set data.multi_label=true with loss.name=binary; "
    "`keras-resnet train --data` does so where a table has them."
)
_WORDS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
_LONGEST = 100_000  # letters of a cell that may be a list


def separator_of(cells: Iterable[str]) -> str:
    """Returns the separator of these cells, "" where none of them holds any."""
    texts = [cell for cell in cells if as_list(cell) is None]
    return next((sign for sign in SEPARATORS if any(sign in text for text in texts)), "")


def written_as(values: Sequence[Any]) -> str:
    """Says how several labels an image are written, in a few words; "" where there are none.

    A comma counts only where what it parts recurs, so that there are fewer parts than cells: it is
    in the names of many classes ("tench, Tinca tinca").

    Args:
        values: of the labels of a table, texts and lists.
    """
    lists = [value for value in values if isinstance(value, list)]
    texts = {value for value in values if isinstance(value, str)}
    found = [as_list(text) for text in texts]
    lists += [value for value in found if value is not None]
    if any(len(value) != 1 for value in lists):
        return "as lists"
    separator = separator_of(texts)
    if separator == ",":
        parts = {part for text in texts for part in _parts(text, separator)}
        separator = separator if len(parts) < len(texts) else ""
    return f"parted by {separator!r}" if separator else ""


def labels_of(value: Any, separator: str) -> tuple[str, ...]:
    """Returns the labels in a cell of CSV or a value of JSON, each once, in their order.

    Raises:
        DataError: it is none, or a list of something else than texts and whole numbers.
    """
    if isinstance(value, str):
        listed = as_list(value)
        value = _parts(value, separator) if listed is None else listed
    elif value is None:
        value = []
    elif not isinstance(value, list):
        value = [value]
    if any(isinstance(label, bool) or not isinstance(label, (str, int)) for label in value):
        raise DataError(f"the labels {value!r}: labels are texts or whole numbers")
    return tuple(dict.fromkeys(text for label in value if (text := str(label).strip())))


def join(names: Sequence[str]) -> str:
    """Returns names as a cell that `labels_of` reads: with `|`, or as a list where that is safer.

    One name alone, too, is a list if it holds a separator, or what a cell cannot hold as it is (see
    `printing.is_plain_cell`): JSON has only printable ASCII, and is no formula.
    """
    signs = (*SEPARATORS, "[")
    plain = all(is_plain_cell(name) and not any(sign in name for sign in signs) for name in names)
    return "|".join(names) if plain else json.dumps(list(names))


def is_yes(cell: str) -> bool | None:
    """Returns what a cell of a column for one class says; None where that is neither yes nor no."""
    return _WORDS.get(cell.strip().lower())


def as_list(cell: str) -> list[Any] | None:
    """Returns the list that a cell holds, as JSON or Python writes it; None where it is none."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]") and len(text) <= _LONGEST):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list) else None
    return None


def _parts(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator)] if separator else [text]
