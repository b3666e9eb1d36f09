"""Tables of images and their labels: CSV, TSV and JSON lines. Loads TensorFlow for buckets only."""

import csv
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from keras_resnet.input_pipeline import label_sets
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.image_listing import is_image_name
from keras_resnet.input_pipeline.places import read_bytes
from keras_resnet.printing import is_plain_cell

SUFFIXES = (".csv", ".tsv", ".jsonl")
# What columns are called, in lower case and without spaces, dashes and underscores.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "file", "filename", "filepath", "image", "imagepath", "imagefile"),
        *("imagename", "img", "imgpath", "fname"),
    ),
    "label": (
        *("label", "labels", "class", "classname", "category", "target", "labelname"),
        *("classes", "categories", "tags", "targets"),
    ),
    "split": ("split", "subset", "set", "partition", "fold"),
}
_NAMED = 5

# Split -> (path as it is written, its labels) of each image.
Rows = dict[str, list[tuple[str, tuple[str, ...]]]]


@dataclasses.dataclass(frozen=True)
class Table:
    """What a table says.

    Attributes:
        rows: its images by split: "train" where it names none.
        multi_label: whether an image may have several labels or none; else each has one.
        class_names: where each class has a column of its own, all of them; else empty.
        written: how several labels an image are written, in a few words; "" where there are none.
    """

    rows: Rows
    multi_label: bool
    class_names: tuple[str, ...]
    written: str


@dataclasses.dataclass(frozen=True)
class _Record:
    """A line: `label` is a text, or what JSON has, or the classes whose columns say yes."""

    number: int
    split: str
    path: str
    label: Any


def is_table(path: str) -> bool:
    """Whether a file of this name is taken for a table."""
    return path.lower().endswith(SUFFIXES)


def read_table(path: str, multi_label: bool | None = False) -> Table:
    """The images and labels of a table.

    CSV may be separated by commas, semicolons or tabs; a byte order mark and Windows' line ends do
    not matter. The first line names the columns (path, label and perhaps split, or other usual
    words); without such a line the first column is the path, the second the label. In place of the
    label each class may have a column of 0 and 1. A line of a .jsonl file is an object with these
    keys. Paths are relative to the table's folder. What a cell cannot hold exactly is written as
    JSON: a path as a string in its quotes, a label as a list (see `path_cell`, `label_sets.join`).

    Args:
        path: of the table.
        multi_label: whether an image may have several labels or none, written as `label_sets` says;
            None: if some image has.

    Raises:
        DataError: it cannot be read, or names no path, no label, or, where each image has one
            label, several or an image twice.
    """
    text = _text(path)
    class_names: list[str] = []
    if path.lower().endswith(".jsonl"):
        lines = _json_lines(path, text)
    else:
        lines = _csv(path, text, class_names)
    records = [_record(path, number, values) for number, values in lines]
    if not records:
        raise DataError(f"{path} holds no images.")
    written = _written(records, class_names)
    if multi_label is None:
        multi_label = bool(written)
    rows = _sets(path, records) if multi_label else _single(path, records, bool(written))
    return Table(rows, multi_label, tuple(class_names), written if multi_label else "")


def _record(path: str, number: int, values: dict[str, Any]) -> _Record:
    file = values.get("path")
    if file in (None, "") or "label" not in values:
        lacking = "path" if file in (None, "") else "label"
        empty = " An image without any label has an empty one." if lacking == "label" else ""
        raise DataError(f"{path}, line {number}: has no {lacking}.{empty}")
    if not isinstance(file, str):
        raise DataError(
            f"{path}, line {number}: the path {file!r}; an image has one path and one label, a "
            "text or a whole number."
        )
    return _Record(number, str(values.get("split") or "train"), file, values["label"])


def _written(records: list[_Record], class_names: list[str]) -> str:
    """How several labels an image, or none, are written; "" where each seems to have one."""
    if class_names:
        one_each = all(len(record.label) == 1 for record in records)
        return "" if one_each else "in a column for each class"
    if written := label_sets.written_as([record.label for record in records]):
        return written
    labels: dict[tuple[str, str], str] = {}
    for record in records:
        label = labels.setdefault((record.split, record.path), str(record.label))
        if label != str(record.label):
            return "in several lines of one image"
    return ""


def _sets(path: str, records: list[_Record]) -> Rows:
    separator = label_sets.separator_of(
        record.label for record in records if isinstance(record.label, str)
    )
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for record in records:
        try:
            labels = label_sets.labels_of(record.label, separator)
        except DataError as error:
            raise DataError(f"{path}, line {record.number}: {error}.") from error
        images = found.setdefault(record.split, {})
        images[record.path] = tuple(dict.fromkeys((*images.get(record.path, ()), *labels)))
    if not any(labels for images in found.values() for labels in images.values()):
        raise DataError(f"{path}: none of its images has a label.")
    return {split: list(images.items()) for split, images in found.items()}


def _single(path: str, records: list[_Record], has_sets: bool) -> Rows:
    hint = f" {label_sets.HINT}" if has_sets else ""
    rows: Rows = {}
    seen: dict[tuple[str, str], int] = {}
    for record in records:
        label, number, file = record.label, record.number, record.path
        label = (label_sets.as_list(label) or label) if isinstance(label, str) else label
        if isinstance(label, list) and len(label) == 1:
            label = label[0]
        if label in (None, ""):
            raise DataError(f"{path}, line {number}: has no label. {label_sets.HINT}")
        if isinstance(label, (list, dict, bool)):
            raise DataError(
                f"{path}, line {number}: the path {file!r} with the label {label!r}; an image has "
                f"one path and one label, a text or a whole number.{hint}"
            )
        if (first := seen.setdefault((record.split, file), number)) != number:
            raise DataError(f"{path}, line {number}: {file} is in line {first} already.{hint}")
        rows.setdefault(record.split, []).append((file, (str(label),)))
    return rows


def path_cell(path: str) -> str:
    """A path as a cell of a CSV file, from which it is read exactly.

    It is a JSON string in its quotes where it holds line breaks, terminal escapes, bytes that are
    no UTF-8, spaces at an end, or begins as formulas do.
    """
    return path if is_plain_cell(path) and not path.startswith('"') else json.dumps(path)


def path_of_cell(cell: str) -> str:
    """The path that `path_cell` wrote, or that somebody else wrote into a cell."""
    if not (len(cell) > 1 and cell.startswith('"') and cell.endswith('"')):
        return cell
    try:
        return str(json.loads(cell))
    except ValueError:
        return cell


def resolve(table: str, path: str) -> str:
    """Where the image `path` of a table lies."""
    path = path.removeprefix("file://")  # a file of this machine, and checked as one
    if "://" in path:
        return path.replace("\\", "/")
    place = os.path.join(os.path.dirname(table), path)
    if "\\" in path and not os.path.lexists(place):  # written on Windows
        place = os.path.join(os.path.dirname(table), path.replace("\\", "/"))
    return place


def check_files(table: str, paths: Iterable[str]) -> None:
    """Raises DataError if images of a table are not there or cannot be read, naming the first.

    Those in buckets are not asked for, but their addresses are looked at.
    """
    places = [resolve(table, path) for path in paths]
    _check_addresses(table, [place for place in places if "://" in place])
    missing = [place for place in places if "://" not in place and not os.path.isfile(place)]
    if missing:
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        what = "are no files" if any(map(os.path.exists, missing[:_NAMED])) else "are not there"
        raise DataError(
            f"{table} names {len(missing):,} of {len(places):,} images that {what}: "
            f"{', '.join(missing[:_NAMED])}{more}. Paths are relative to the folder of the table."
        )


def _check_addresses(table: str, places: list[str]) -> None:
    if not places:
        return
    import tensorflow as tf

    known = set(tf.io.gfile.get_registered_schemes()) - {""}
    foreign = [place for place in places if place.partition("://")[0] not in known]
    if foreign:
        raise DataError(
            f"{table} names {len(foreign):,} of {len(places):,} addresses that cannot be read as "
            f"files, such as {foreign[0]}. Download these images and name the files; gs:// "
            "addresses in a bucket work."
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


def _csv(path: str, text: str, class_names: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, what its columns hold) of each row that is not blank.

    Args:
        path: of the table.
        text: of it.
        class_names: gets the names of the classes that have a column of their own.
    """
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    columns: _Columns | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _columns(path, cells)
                class_names += columns.classes
                if not is_image_name(cells[0].strip()):
                    continue  # the line that names the columns
            yield reader.line_num, columns.values(path, reader.line_num, cells)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error


def _delimiter(text: str) -> str:
    """What parts the cells of the first line: where it names an image, all behind its name."""
    first = text.lstrip("\r\n").split("\n", 1)[0]
    signs = sorted((sign for sign in ",;\t" if sign in first), key=first.count, reverse=True)
    after_image = [sign for sign in signs if is_image_name(first.split(sign, 1)[0].strip(' "'))]
    return (*after_image, *signs, ",")[0]


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Which column holds what.

    Attributes:
        places: of path, label and split.
        classes: class -> its column of 0 and 1, where there is no column of labels.
        count: of columns that the first line names; 0 where it is an image itself.
    """

    places: dict[str, int]
    classes: dict[str, int]
    count: int

    def values(self, path: str, number: int, cells: list[str]) -> dict[str, Any]:
        """path, label and split of a row."""
        values: dict[str, Any] = {
            key: cells[place].strip() for key, place in self.places.items() if place < len(cells)
        }
        if "path" in values:
            values["path"] = path_of_cell(values["path"])
        if self.classes:
            values["label"] = self._classes_of(path, number, cells)
        elif self.count and (more := [cell for cell in cells[self.count :] if cell.strip()]):
            if self.places["label"] != self.count - 1:
                raise DataError(
                    f"{path}, line {number}: has {len(cells)} cells, the first line names "
                    f"{self.count}; put a text that holds the separator in quotes."
                )
            # cat, dog without quotes
            values["label"] = [values["label"], *more]
        return values

    def _classes_of(self, path: str, number: int, cells: list[str]) -> list[str]:
        chosen = []
        for name, place in self.classes.items():
            cell = cells[place] if place < len(cells) else ""
            answer = label_sets.is_yes(cell)
            if answer is None:
                raise DataError(
                    f"{path}, line {number}: {cell.strip()!r} in the column {name!r}. Without a "
                    "column of labels each column beside path and split is a class, and holds 0 "
                    "or 1; call the column of labels label."
                )
            chosen += [name] if answer else []
        return chosen


def _columns(path: str, cells: list[str]) -> _Columns:
    """Which column holds what, by the names in the first line."""
    named = _known(cells)
    if is_image_name(cells[0].strip()):
        if len(cells) < 2:
            raise DataError(f"{path}: a line has one column; needed are a path and a label.")
        return _Columns({"path": 0, "label": 1} | ({"split": 2} if len(cells) > 2 else {}), {}, 0)
    places = {key: cells.index(name) for key, name in named.items()}
    others = {
        cell.strip(): place
        for place, cell in enumerate(cells)
        if cell.strip() and place not in places.values()
    }
    if "label" not in named and "path" in named and len(others) > 1:
        return _Columns(places, others, len(cells))
    lacking = [key for key in ("path", "label") if key not in named]
    if lacking:
        raise DataError(
            f"{path}: its first line names the columns {', '.join(map(repr, cells))}; none of them "
            f"is a {' or a '.join(lacking)}. Call the columns path and label (and split)."
        )
    return _Columns(places, {}, len(cells))


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
