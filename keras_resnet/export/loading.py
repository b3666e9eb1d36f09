"""Models to export and to predict with: from `.keras` files and from work directories."""

import os
import sys
import zipfile
from pathlib import Path

import keras

import keras_resnet.layers
import keras_resnet.models  # noqa: F401  registers the layers and models with Keras
from keras_resnet import storage
from keras_resnet.errors import UserError
from keras_resnet.export.model_paths import check_keras_file
from keras_resnet.training.run import restore
from keras_resnet.training.workdir import WorkDir


def load_model(path: Path) -> keras.Model:
    """The model in a `.keras` file.

    Raises:
        UserError: there is no such file, or no model in it.
    """
    file = check_keras_file(path)
    if not zipfile.is_zipfile(file):  # of another file Keras says that it was not found
        raise UserError(f"{path}: cannot be loaded (a .keras file is a zip archive)")
    try:
        return keras.saving.load_model(file, compile=False)
    except Exception as error:  # Keras raises what its parts raise: zipfile, h5py, json, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: cannot be loaded ({reason[:200]})") from error


def load_model_of_workdir(path: str | os.PathLike) -> keras.Model:
    """The trained network of a run: model.keras if it is finished, else its newest checkpoint.

    A model.keras is taken as well where it has no checkpoints beside it.

    Raises:
        UserError: no run was started here, or it has come to neither of them yet.
    """
    workdir = WorkDir(path)
    config = workdir.read_config()
    has_checkpoints = any(workdir.checkpoints.glob("*.index"))
    if workdir.model.exists() and (workdir.result.exists() or not has_checkpoints):
        with storage.local_copy(workdir.model) as file:
            return load_model(file)
    trainer, step = restore(config, workdir)
    print(f"{path} is not finished; taking the checkpoint of step {step:,}", file=sys.stderr)
    return trainer.inference_model()
