"""Class names from a text file, read before TensorFlow is loaded."""

from pathlib import Path

from keras_resnet.errors import UserError

# The asset of a SavedModel that names its classes, one a line.
LABELS = "labels.txt"


def read_labels(path: Path) -> list[str]:
    """Class names, one a line.

    Raises:
        UserError: the file cannot be read, or holds none.
    """
    try:
        names = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"--labels={path}: cannot be read ({getattr(error, 'strerror', error)})"
        ) from error
    if not any(names):
        raise UserError(f"--labels={path}: holds no names")
    return names
