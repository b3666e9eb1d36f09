"""Reading weight files. Nothing in a file is ever run."""

import hashlib
import importlib
import os
import re
import types
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from keras_resnet.weights import keras_files, timm_config
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError

# torch.hub's convention: the file name ends with the start of the file's SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth|pt)$")
# What training scripts wrap around a state dict; the averaged weights first, as timm has it.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
# DistributedDataParallel, torch.compile, Lightning.
_PREFIXES = ("module.", "_orig_mod.", "model.")


def read_file(path: str | os.PathLike) -> Checkpoint:
    """Reads a weight file; the name's ending says the format.

    Args:
        path: `.keras`, `.weights.h5` or `.h5` (Keras), `.safetensors`, or `.pth`, `.pt`,
            `.pth.tar` or `.bin` (PyTorch). A `config.json` of timm next to a `.safetensors` or
            PyTorch file, as in a folder downloaded from the hub, is read along with it.

    Raises:
        WeightsError: if there is no such file or it cannot be read.
        ImportError: naming the extra to install, if a package for this format is missing.
    """
    path = Path(path)
    if not path.is_file():
        problem = "is a folder; name the file in it" if path.is_dir() else "does not exist"
        raise WeightsError(f"The weight file {str(path)!r} {problem}.")
    for suffix, read in _READERS.items():
        if path.name.endswith(suffix):
            return read(path)
    raise WeightsError(
        f"No weight format known for {path.name!r}: its name should end with {', '.join(_READERS)}."
    )


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
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path} is truncated or no safetensors file ({_one_line(error)})."
        ) from error
    return _with_config(path, arrays)


def _read_torch(path: Path) -> Checkpoint:
    torch = require("torch", "torch", f"Reading the PyTorch file {path.name}")
    _check_hash_in_name(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError, ...
        raise WeightsError(_torch_failure(path, error)) from error
    state = _unwrap(content)
    if state is None:
        raise WeightsError(
            f"{path} holds no state dict: no mapping of names to tensors, alone or under "
            f"{', '.join(map(repr, _WRAPPERS))}."
        )
    arrays = {name: _to_numpy(torch, tensor) for name, tensor in state.items()}
    return _with_config(path, arrays)


def _torch_failure(path: Path, error: Exception) -> str:
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    if wanted:
        return (
            f"{path} was refused: it holds more than tensors ({wanted[1]}), and unpickling that "
            "could run any code. If you trust where it comes from, load it in PyTorch and save "
            "its state dict alone."
        )
    return f"{path} is truncated or no PyTorch file of tensors ({_one_line(error)})."


def _unwrap(content) -> dict | None:
    """The state dict inside a training script's checkpoint."""
    while isinstance(content, Mapping):
        tensors = {name: v for name, v in content.items() if hasattr(v, "detach")}
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            return _without_prefix(tensors) if tensors else None
        content = inner
    return None


def _without_prefix(state: dict) -> dict:
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            return _without_prefix({name.removeprefix(prefix): v for name, v in state.items()})
    return state


def _to_numpy(torch, tensor) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.dtype in (torch.bfloat16, torch.float16):  # numpy lacks the first
        tensor = tensor.float()
    return tensor.numpy()


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
        timm_config.read_into(checkpoint, config)
    return checkpoint


def _one_line(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."


_READERS: dict[str, Callable[[Path], Checkpoint]] = {
    ".keras": keras_files.read_keras_archive,
    ".weights.h5": keras_files.read_keras_weights,
    ".h5": keras_files.read_legacy_h5,
    ".safetensors": _read_safetensors,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".pth.tar": _read_torch,
    ".bin": _read_torch,
}
