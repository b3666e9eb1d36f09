"""Models to export, from `.keras` files."""

import zipfile
from pathlib import Path

import keras

import keras_resnet.layers
import keras_resnet.models  # noqa: F401  registers the layers and models with Keras
from keras_resnet.errors import UserError


def load_model(path: Path) -> keras.Model:
    """The model in a `.keras` file.

    Raises:
        UserError: there is no such file, or no model in it.
    """
    if path.suffix != ".keras":
        raise UserError(f"--model={path}: the name should end with .keras")
    if not path.is_file():
        raise UserError(f"--model={path}: {'is a folder' if path.is_dir() else 'no such file'}")
    with path.open("rb") as file:  # of another file Keras says that it was not found
        is_archive = zipfile.is_zipfile(file)
    if not is_archive:
        raise UserError(f"--model={path}: cannot be loaded (a .keras file is a zip archive)")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises what its parts raise: zipfile, h5py, json, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"--model={path}: cannot be loaded ({reason[:200]})") from error


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
