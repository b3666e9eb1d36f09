"""Class names in text files, read before TensorFlow is loaded."""

from collections.abc import Iterable
from pathlib import Path

from keras_resnet.errors import UserError
from keras_resnet.printing import from_bytes, to_bytes

# The asset of a SavedModel that names its classes, one a line.
LABELS = "labels.txt"


def read_labels(path: Path) -> list[str]:
    """Class names, one a line.

    Raises:
        UserError: the file cannot be read, or holds none.
    """
    try:
        names = lines_of(path)
    except OSError as error:
        raise UserError(
            f"--labels={path}: cannot be read ({getattr(error, 'strerror', error)})"
        ) from error
    if not any(names):
        raise UserError(f"--labels={path}: holds no names")
    return names


def lines_of(path: Path) -> list[str]:
    """The lines of a file, which end with a line feed or both characters, and nowhere else."""
    lines = from_bytes(path.read_bytes()).removesuffix("\n").split("\n")
    return [line.removesuffix("\r") for line in lines]


def write_labels(path: Path, names: Iterable[str]) -> None:
    """Writes class names, one a line, as `label_lines`."""
    path.write_bytes(label_lines(names))


def label_lines(names: Iterable[str]) -> bytes:
    r"""Class names, one a line.

    The bytes of a name are its own; line breaks in it, which would part it, are written as `\n`
    and `\r`.
    """
    lines = (name.replace("\r", "\\r").replace("\n", "\\n") for name in names)
    return b"".join(to_bytes(line) + b"\n" for line in lines)
