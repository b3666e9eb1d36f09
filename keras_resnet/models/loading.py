"""Models from `.keras` files."""

import zipfile
from pathlib import Path

import keras

import keras_resnet.layers
import keras_resnet.models  # noqa: F401  registers the layers and models with Keras
from keras_resnet.bounds import check_keras_archive
from keras_resnet.errors import UserError
from keras_resnet.storage import check_keras_file


def load_model(path: Path) -> keras.Model:
    """The model in a `.keras` file.

    Raises:
        UserError: there is no such file, no model in it, or it was refused (see `bounds`).
    """
    file = check_keras_file(path)
    if not zipfile.is_zipfile(file):  # of another file Keras says that it was not found
        raise UserError(f"{path}: cannot be loaded (a .keras file is a zip archive)")
    check_keras_archive(file)
    try:
        return keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras raises what its parts raise: zipfile, h5py, json, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be loaded ({reason[:200]})") from error
