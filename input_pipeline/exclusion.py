"""Lists of files to leave out: `data.exclude`, as `keras-resnet inspect` writes them.

    # keras-resnet inspect photos
    train/cat/17.jpg
    "train/cat/two\\nlines.jpg"

A line for each file, relative to the folder of the data (of a table: to the table's folder) or
absolute. A line that starts with # says something else. A name in double quotes is a JSON string,
for what a line cannot hold: line breaks, and bytes that are no UTF-8. Loads TensorFlow for buckets
only.
"""

import json
import os
import re
from collections.abc import Collection, Iterable

from keras_resnet.input_pipeline import label_tables
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.places import read_bytes, root_of

# What a line cannot hold as it is, or would be read as something else.
_NEEDS_QUOTES = re.compile(r"^[#\"\s]|\s$|[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def base_of(path: str) -> str:
    """The folder that the names in a list of the data `path` are relative to."""
    root = root_of(path)
    is_table = label_tables.is_table(root) and not os.path.isdir(root)
    return os.path.dirname(root) if is_table else root


def normalized(path: str) -> str:
    """A path as lists are compared by."""
    return path if "://" in path else os.path.abspath(path)


def is_excluded(path: str, excluded: Collection[str]) -> bool:
    """Whether a file is in a list that `read` gave."""
    return bool(excluded) and normalized(path) in excluded


def read(file: str, path: str) -> frozenset[str]:
    """The normalized paths in a list, for the data under `path`.

    Raises:
        DataError: the list cannot be read, or none of its files is there, so that it must belong
            to other data.
    """
    base = base_of(path)
    listed = []
    for number, line in enumerate(_text(file).split("\n"), start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            listed.append(_joined(base, _name(file, number, line)))
    if listed and "://" not in base and not any(map(os.path.lexists, listed)):
        raise DataError(
            f"exclude={file}: none of its {len(listed):,} files is there, the first: {listed[0]}. "
            f"Names are relative to {base}, or absolute."
        )
    return frozenset(map(normalized, listed))


def lines(paths: Iterable[str], path: str) -> list[str]:
    """What `read` reads: a line for each file, relative to the data under `path` where it can."""
    base = base_of(path)
    return [_line(_relative(file, base)) for file in paths]


def _relative(file: str, base: str) -> str:
    if "://" in file:
        return file.removeprefix(f"{base}/")
    inside = os.path.relpath(os.path.abspath(file), os.path.abspath(base))
    return os.path.abspath(file) if inside.startswith(os.pardir) else inside


def _line(name: str) -> str:
    return json.dumps(name) if _NEEDS_QUOTES.search(name) else name


def _name(file: str, number: int, line: str) -> str:
    if not line.startswith('"'):
        return line
    try:
        name = json.loads(line)
        assert isinstance(name, str)
    except (ValueError, AssertionError) as error:
        raise DataError(
            f'exclude={file}, line {number}: {line} is no name in JSON, as in "a\\nb.jpg".'
        ) from error
    return name


def _joined(base: str, name: str) -> str:
    if "://" in name:
        return name
    return f"{base}/{name}" if "://" in base else os.path.join(base, name)


def _text(file: str) -> str:
    try:
        return read_bytes(root_of(file)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"exclude={file}: is no text in UTF-8 (byte {error.start:,}).") from error
    except OSError as error:
        raise DataError(f"exclude={file}: cannot be read: {error.strerror or error}.") from error
