"""Tables of images and their labels: CSV, TSV and JSON lines. Loads TensorFlow for buckets only."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.image_listing import is_image_name
from keras_resnet.input_pipeline.places import read_bytes

SUFFIXES = (".csv", ".tsv", ".jsonl")
# What columns are called, in lower case and without spaces, dashes and underscores.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "filepath", "image", "imagepath", "imagefile"),
        *("imagename", "img", "imgpath", "fname"),
    ),
    "label": ("label", "labels", "class", "classname", "category", "target", "labelname"),
    "split": ("split", "subset", "set", "partition", "fold"),
}
_NAMED = 5

# Split -> (path as it is written, label) of each image.
Rows = dict[str, list[tuple[str, str]]]


def is_table(path: str) -> bool:
    """Whether a file of this name is taken for a table."""
    return path.lower().endswith(SUFFIXES)


def read_table(path: str) -> Rows:
    """The images and labels of a table, by split: "train" where it names none.

    CSV may be separated by commas, semicolons or tabs; a byte order mark and Windows' line ends do
    not matter. The first line names the columns (path, label and perhaps split, or other usual
    words); without such a line the first column is the path, the second the label. A line of a
    .jsonl file is an object with these keys. Paths are relative to the table's folder.

    Raises:
        DataError: it cannot be read, names no path or no label, or an image twice.
    """
    text = _text(path)
    records = _json_lines(path, text) if path.lower().endswith(".jsonl") else _csv(path, text)
    rows: Rows = {}
    seen: dict[tuple[str, str], int] = {}
    for number, record in records:
        file, label = record.get("path"), record.get("label")
        if file in (None, "") or label in (None, ""):
            lacking = "path" if file in (None, "") else "label"
            raise DataError(f"{path}, line {number}: has no {lacking}.")
        if isinstance(label, (list, dict, bool)) or not isinstance(file, str):
            raise DataError(
                f"{path}, line {number}: the path {file!r} with the label {label!r}; an image has "
                "one path and one label, a text or a whole number."
            )
        split = str(record.get("split") or "train")
        if (first := seen.setdefault((split, file), number)) != number:
            raise DataError(f"{path}, line {number}: {file} is in line {first} already.")
        rows.setdefault(split, []).append((file, str(label)))
    if not rows:
        raise DataError(f"{path} holds no images.")
    return rows


def resolve(table: str, path: str) -> str:
    """Where the image `path` of a table lies."""
    path = path.replace("\\", "/")
    return path if "://" in path else os.path.join(os.path.dirname(table), path)


def check_files(table: str, paths: Iterable[str]) -> None:
    """Raises DataError if local images of a table are not there, naming the first."""
    places = [resolve(table, path) for path in paths]
    missing = [place for place in places if "://" not in place and not os.path.isfile(place)]
    if missing:
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        raise DataError(
            f"{table} names {len(missing):,} of {len(places):,} images that are not there: "
            f"{', '.join(missing[:_NAMED])}{more}. Paths are relative to the folder of the table."
        )


def _text(path: str) -> str:
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text in UTF-8 (byte {error.start:,} is {error.object[error.start]:#x}); "
            "save it in this encoding."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _csv(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, what its columns hold) of each row that is not blank."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    places: dict[str, int] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if places is None:
                places = _places(path, cells)
                if not is_image_name(cells[0].strip()):
                    continue  # the line that names the columns
            yield (
                reader.line_num,
                {key: cells[place].strip() for key, place in places.items() if place < len(cells)},
            )
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error


def _places(path: str, cells: list[str]) -> dict[str, int]:
    """Which column holds what, by the names in the first line."""
    named = _known(cells)
    if is_image_name(cells[0].strip()):
        if len(cells) < 2:
            raise DataError(f"{path}: a line has one column; needed are a path and a label.")
        return {"path": 0, "label": 1} | ({"split": 2} if len(cells) > 2 else {})
    lacking = [key for key in ("path", "label") if key not in named]
    if lacking:
        raise DataError(
            f"{path}: its first line names the columns {', '.join(map(repr, cells))}; none of them "
            f"is a {' or a '.join(lacking)}. Call the columns path and label (and split)."
        )
    return {key: cells.index(name) for key, name in named.items()}


def _known(names: Iterable[str]) -> dict[str, str]:
    """path, label and split -> what they are called among `names`."""
    plain = {"".join(letter for letter in name.lower() if letter.isalnum()): name for name in names}
    return {
        key: plain[word]
        for key, words in _COLUMNS.items()
        for word in [next((word for word in words if word in plain), None)]
        if word is not None
    }


def _json_lines(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: is no JSON ({error}).") from error
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number}: is no JSON object with path and label.")
        yield number, {key: record[name] for key, name in _known(record).items()}
