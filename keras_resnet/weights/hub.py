"""Weights over the network: the Hugging Face hub, and the files of keras.applications."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import keras

from keras_resnet.weights import library_config, transformers_config
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError, note
from keras_resnet.weights.defaults import KERAS, KERAS_URL
from keras_resnet.weights.files import has_known_ending, read_file, require, sha256

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
    try:
        return Path(hub.hf_hub_download(where.repository, file, revision=where.revision))
    except Exception as error:  # of its own, of its HTTP client, of the disk: no common kind
        raise WeightsError(_failure(where, file, address, error)) from error


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


def _failure(where: HubAddress, file: str, address: str, error: Exception) -> str:
    """The sentences for a file that cannot be had: which, why, and what to do."""
    begin = f"Could not fetch {file} of {address}: "
    for kind, sentence in _REASONS.items():
        if type(error).__name__ == kind:
            return begin + sentence(where, error)
    return f"{begin}{_words(error)} ({type(error).__name__}). {_BY_PATH}"


def _no_repository(where: HubAddress, error: Exception) -> str:
    return (
        f"{_server()} has no repository {where.repository}, or only for those who are logged in "
        "(`hf auth login`). Check how it is written."
    )


def _gated(where: HubAddress, error: Exception) -> str:
    return (
        f"its terms have to be accepted at {_server()}/{where.repository} first, by the account "
        "that is logged in here (`hf auth login`)."
    )


def _no_revision(where: HubAddress, error: Exception) -> str:
    return (
        f"{where.repository} has no revision {where.revision!r}; give the name of a branch or tag, "
        "or a commit, or none."
    )


def _no_file(where: HubAddress, error: Exception) -> str:
    hub = require("huggingface_hub", "hf", "Fetching weights")
    try:
        names = hub.HfApi(endpoint=_server()).list_repo_files(
            where.repository, revision=where.revision
        )
    except Exception:  # the list is for help only
        names = []
    files = [name for name in names if has_known_ending(name)]
    there = f" Weights there: {', '.join(files[:10])}." if files else ""
    return f"{where.repository} has no such file (404).{there}"


def _not_here(where: HubAddress, error: Exception) -> str:
    constants = require("huggingface_hub.constants", "hf", "Fetching weights")
    cache = constants.HF_HUB_CACHE
    if constants.HF_HUB_OFFLINE:
        return (
            f"it is not in the cache {cache}, and HF_HUB_OFFLINE forbids to ask {_server()}. "
            f"Unset it once to fetch the file. {_BY_PATH}"
        )
    # The client says the same of every failure, and what it was in the cause.
    cause = error.__cause__
    answered = isinstance(cause, OSError) and not isinstance(cause, ConnectionError)
    why = f"fails ({_words(cause)})" if cause is not None and answered else "does not answer"
    return (
        f"{_server()} {why}, and the file is not in the cache {cache}. Check the connection, and "
        f"HF_ENDPOINT if a mirror is used. {_BY_PATH}"
    )


def _server() -> str:
    return require("huggingface_hub.constants", "hf", "Fetching weights").ENDPOINT


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(" .")


_BY_PATH = "A file that is already here can be named by its path."
# What the hub's client raises -> what to say of it.
_REASONS: dict[str, Callable[[HubAddress, Exception], str]] = {
    "RepositoryNotFoundError": _no_repository,
    "GatedRepoError": _gated,
    "RevisionNotFoundError": _no_revision,
    "RemoteEntryNotFoundError": _no_file,
    "EntryNotFoundError": _no_file,
    "LocalEntryNotFoundError": _not_here,
    "OfflineModeIsEnabled": _not_here,
}


def _check_cached(path: Path, address: str) -> None:
    """The hub's cache names large files by their SHA-256 but does not look at them again."""
    stored = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", stored.name) and sha256(stored) != stored.name:
        raise WeightsError(
            f"The cached file of {address} is broken: the SHA-256 of {stored} is not its name. "
            "Delete it and load again."
        )
