"""Reading weight files. Nothing in a file is ever run."""

import hashlib
import importlib
import math
import os
import re
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from keras_resnet.bounds import Budget, RefusedError, one_line, opened_zip
from keras_resnet.weights import keras_files, library_config, torch_files
from keras_resnet.weights.checkpoint import PLAIN, Checkpoint, WeightsError, in_one_line

# torch.hub's convention: the file name ends with the start of the file's SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt)$")
# In a folder that transformers, timm, KerasHub or a run saved, the first of them that is there.
_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin", "model.weights.h5", "model.keras")
# What KerasHub adds to the weights of a backbone: those of the classifier.
_HEAD_IN_FOLDER = "task.weights.h5"

_SAFETENSORS = {"BOOL", "BF16", "F16", "F32", "F64"}
_SAFETENSORS |= {f"{kind}{bits}" for kind in "IU" for bits in (8, 16, 32, 64)}


def read_file(path: str | os.PathLike) -> Checkpoint:
    """Reads a weight file; the name's ending says the format.

    Args:
        path: `.keras`, `.weights.h5` or `.h5` (Keras), `.safetensors`, `.npz`, or `.pth`, `.pt`,
            `.th`, `.ckpt`, `.pth.tar` or `.bin` (PyTorch); or a folder with a file of the usual
            name. A `config.json` of timm or transformers next to the file, as in a folder
            downloaded from the hub, is read along with it.

    Raises:
        WeightsError: if there is no such file or it cannot be read.
        ImportError: naming the extra to install, if a package for this format is missing.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(f"The weight file {str(path)!r} does not exist.")
    for suffix, read in _READERS.items():
        if path.name.endswith(suffix):
            with in_one_line(path):
                checkpoint = read(path)
                _check_kinds(checkpoint)
                return checkpoint
    raise WeightsError(
        f"No weight format known for {path.name!r}: its name should end with {', '.join(_READERS)}."
    )


def _read_folder(folder: Path) -> Checkpoint:
    found = next((folder / name for name in _IN_FOLDERS if (folder / name).is_file()), None)
    if found is None:
        raise WeightsError(
            f"The weight file {str(folder)!r} is a folder without {', '.join(_IN_FOLDERS)}; name "
            "the file in it."
        )
    checkpoint, head = read_file(found), folder / _HEAD_IN_FOLDER
    if found.name == "model.weights.h5":
        if head.is_file():
            checkpoint.arrays |= read_file(head).arrays
        if (folder / "config.json").is_file():
            library_config.read_into(checkpoint, folder / "config.json")
    return checkpoint


def _check_kinds(checkpoint: Checkpoint) -> None:
    """Raises WeightsError for an array that holds no numbers a network computes with."""
    for name, array in checkpoint.arrays.items():
        if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
            raise WeightsError(
                f"{checkpoint.origin}: {name!r} holds {array.dtype.name}, no plain numbers; {PLAIN}"
            )


def are_weights(path: Path) -> bool:
    """Whether `read_file` would read what is at `path`, by its name or the names in the folder."""
    if path.is_dir():
        return any((path / name).is_file() for name in _IN_FOLDERS)
    return path.is_file() and has_known_ending(path.name)


def has_known_ending(name: str) -> bool:
    """Whether a file of this name is one of weights."""
    return name.endswith(tuple(_READERS))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require(module: str, extra: str, purpose: str) -> types.ModuleType:
    """Imports an optional package.

    Raises:
        ImportError: naming the extra that brings the package.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs the package {module.split('.')[0]}: "
            f"pip install 'keras-resnet-tpu[{extra}]'"
        ) from error


def _read_safetensors(path: Path) -> Checkpoint:
    safetensors = require("safetensors", "safetensors", "Reading a .safetensors file")
    require("ml_dtypes", "safetensors", "Reading bfloat16")  # registers the dtype with numpy
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            if odd := {name: kind for name, kind in kinds.items() if kind not in _SAFETENSORS}:
                name, kind = next(iter(odd.items()))
                raise WeightsError(f"{path}: {name!r} holds {kind}; {PLAIN}")
            arrays = {name: file.get_tensor(name) for name in names}
    except WeightsError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is truncated or no safetensors file ({one_line(error)})."
        ) from error
    checkpoint = _with_config(path, arrays)
    checkpoint.ordered = False
    return checkpoint


def _read_torch(path: Path) -> Checkpoint:
    torch = require("torch", "torch", f"Reading the PyTorch file {path.name}")
    _check_hash_in_name(path)
    return _with_config(path, torch_files.read_state(torch, path))


def _read_npz(path: Path) -> Checkpoint:
    try:
        with opened_zip(Budget(path)) as archive:
            for member in archive.infolist():
                with archive.open(member) as content:
                    _check_npy(content, member.file_size, f"{path}: {member.filename}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except RefusedError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{path} is truncated or no .npz file of arrays ({one_line(error)})."
        ) from error
    return _with_config(path, arrays)


def _check_npy(content: IO[bytes], size: int, where: str) -> None:
    """Raises RefusedError for an array that says it is larger than its part of the archive."""
    version = np.lib.format.read_magic(content)
    headers = {(1, 0): np.lib.format.read_array_header_1_0}
    shape, _, dtype = headers.get(version, np.lib.format.read_array_header_2_0)(content)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > size:
        raise RefusedError(f"{where} is truncated: it has {size:,} bytes for the shape {shape}.")


def _check_hash_in_name(path: Path) -> None:
    match = _HASH_IN_NAME.search(path.name)
    if match is None or match[1].isdecimal():  # a date or a number of steps
        return
    found = sha256(path)
    if not found.startswith(match[1]):
        raise WeightsError(
            f"{path} is broken or not what its name says: its SHA-256 starts with "
            f"{found[: len(match[1])]}, by its name it should be {match[1]}. Download it again, "
            "or rename it if you changed it."
        )


def _with_config(path: Path, arrays: dict[str, np.ndarray]) -> Checkpoint:
    checkpoint = Checkpoint(str(path), arrays)
    config = path.with_name("config.json")
    if config.is_file():
        library_config.read_into(checkpoint, config)
    return checkpoint


_READERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".keras": keras_files.read_keras_archive,
    ".weights.h5": keras_files.read_keras_weights,
    ".h5": keras_files.read_legacy_h5,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".pth.tar": _read_torch,
    ".th": _read_torch,
    ".ckpt": _read_torch,
    ".bin": _read_torch,
    ".npz": _read_npz,
}
