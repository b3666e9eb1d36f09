"""Weights over the network: the Hugging Face hub, and the files of keras.applications."""

import dataclasses
import re
from pathlib import Path

import keras

from keras_resnet.weights import library_config, transformers_config
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError, note
from keras_resnet.weights.defaults import KERAS, KERAS_URL
from keras_resnet.weights.files import read_file, require, sha256

TORCH_FILE = "pytorch_model.bin"
_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w./-]+))?")


@dataclasses.dataclass(frozen=True)
class HubAddress:
    """`hf://OWNER/REPOSITORY[@REVISION][/FILE]`"""

    repository: str
    revision: str | None = None
    file: str = "model.safetensors"

    @classmethod
    def parse(cls, address: str) -> "HubAddress":
        """Raises WeightsError for what is no such address."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise WeightsError(
                "An address of the Hugging Face hub is hf://OWNER/REPOSITORY[@REVISION][/FILE], "
                f"such as hf://timm/resnet50.a1_in1k; received {address!r}."
            )
        return cls(match[1], match[2], match[3] or cls.file)


def read_hub(address: str) -> Checkpoint:
    """Downloads a weight file of the hub, unless it is in its cache already, and reads it.

    The `config.json` of timm or transformers in the same repository gives architecture,
    preprocessing and class names.

    Raises:
        WeightsError: if there is no such file, it cannot be fetched, or it is broken.
        ImportError: naming the extra to install, if huggingface_hub is missing.
    """
    where = HubAddress.parse(address)
    path = _weights(where, address)
    _check_cached(path, address)
    config = None
    if not where.file.endswith((".keras", ".h5")):
        config = _download_if_there(where, "config.json", address)
    if config is not None and transformers_config.is_ours(library_config.read_json(config)):
        _fetch_preprocessor(where, address)
    checkpoint = read_file(path)
    checkpoint.origin = address
    if config is not None and config.parent != path.parent:
        library_config.read_into(checkpoint, config)
    return checkpoint


def _weights(where: HubAddress, address: str) -> Path:
    """The file of the address; of a repository without safetensors PyTorch's."""
    if where.file == HubAddress.file:
        path = _download_if_there(where, where.file, address)
        if path is not None:
            return path
        path = _download_if_there(where, TORCH_FILE, address)
        if path is not None:
            return path
    return _download(where, where.file, address)


def _fetch_preprocessor(where: HubAddress, address: str) -> None:
    """Puts transformers' description of the preprocessing beside the weights, if there is one."""
    try:
        found = _download_if_there(where, transformers_config.PREPROCESSOR, address)
    except WeightsError:  # offline, and not in the cache
        found = None
    if found is None:
        note(
            f"{address} has no {transformers_config.PREPROCESSOR} that could be fetched: the "
            "preprocessing is that of the variant."
        )


def read_keras_default(variant: str, include_top: bool) -> Checkpoint:
    """Downloads the weights of keras.applications, unless they are in Keras' cache, by MD5.

    Raises:
        WeightsError: if they cannot be fetched or the hash is wrong.
    """
    name, with_top, without_top = KERAS[variant]
    file = f"{name}_weights_tf_dim_ordering_tf_kernels{'' if include_top else '_notop'}.h5"
    try:
        path = keras.utils.get_file(
            file,
            KERAS_URL + file,
            cache_subdir="models",
            file_hash=with_top if include_top else without_top,
        )
    except Exception as error:  # get_file raises bare Exception for a failed download
        raise WeightsError(f"Could not fetch {KERAS_URL}{file}: {error}") from error
    checkpoint = read_file(path)
    checkpoint.origin = KERAS_URL + file
    return checkpoint


def _download(where: HubAddress, file: str, address: str) -> Path:
    hub = require("huggingface_hub", "hf", f"Fetching {address}")
    errors = require("huggingface_hub.errors", "hf", f"Fetching {address}")
    try:
        return Path(hub.hf_hub_download(where.repository, file, revision=where.revision))
    except (
        errors.EntryNotFoundError,
        errors.HfHubHTTPError,
        errors.HFValidationError,
        OSError,
        ValueError,
    ) as error:
        raise WeightsError(_failure(address, file, error)) from error


def _download_if_there(where: HubAddress, file: str, address: str) -> Path | None:
    """As `_download`; None if the repository has no such file."""
    errors = require("huggingface_hub.errors", "hf", f"Fetching {address}")
    try:
        return _download(where, file, address)
    except WeightsError as error:
        reason = error.__cause__
        # Without a connection the file may exist all the same: that is a subclass.
        if isinstance(reason, errors.EntryNotFoundError) and not isinstance(
            reason, errors.LocalEntryNotFoundError
        ):
            return None
        raise


def _failure(address: str, file: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    return (
        f"Could not fetch {file} of {address} ({type(error).__name__}): {text[:300]} "
        "A file that is already here can be named by its path."
    )


def _check_cached(path: Path, address: str) -> None:
    """The hub's cache names large files by their SHA-256 but does not look at them again."""
    stored = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", stored.name) and sha256(stored) != stored.name:
        raise WeightsError(
            f"The cached file of {address} is broken: the SHA-256 of {stored} is not its name. "
            "Delete it and load again."
        )
