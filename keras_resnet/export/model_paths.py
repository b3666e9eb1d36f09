"""What a model is loaded from, looked at before TensorFlow is loaded."""

from pathlib import Path

from keras_resnet.errors import UsageError, UserError


def check_keras_file(path: Path) -> Path:
    """The path of a `.keras` file, with `~` resolved.

    Raises:
        UsageError: the name does not end with .keras.
        UserError: there is no such file.
    """
    if path.suffix != ".keras":
        raise UsageError(f"{path}: the name of a model's file should end with .keras")
    resolved = path.expanduser()
    if not resolved.is_file():
        raise UserError(f"{path}: {'is a folder' if resolved.is_dir() else 'no such file'}")
    return resolved


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
