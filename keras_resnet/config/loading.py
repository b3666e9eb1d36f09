"""The configuration of a run: bundled and own config files on top of the defaults, and as JSON.

A config file is Python with a function `get_config()` that returns an `ml_collections.ConfigDict`
(or a dict) holding only what differs from `default_config()`. `config_keys` has every key and its
default, `config_checks` what may stand there. Nothing here imports TensorFlow, so
that a misspelled key is answered at once.
"""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.config.schema import default_config, flatten
from keras_resnet.errors import UsageError, nearest
from keras_resnet.preprocessing import Preprocessing


def configs_folder() -> Path:
    """Returns the folder of the bundled configs."""
    return Path(__file__).parents[1] / "configs"


def bundled_configs() -> dict[str, Path]:
    """Returns the bundled configs by name."""
    return {path.stem: path for path in sorted(configs_folder().glob("[a-z]*.py"))}


def load_config(name_or_path: str) -> ConfigDict:
    """Returns the full config of a bundled name or of a file, on top of the defaults.

    A file may build on another: `BASE = "NAME"`, a bundled config or a path beside the file, is
    applied before its own `get_config()`.

    Raises:
        UsageError: there is no such config, the file fails, or sets an unknown key or wrong type.
    """
    path = _config_path(name_or_path, Path(), f"--config={name_or_path}")
    config, layers = default_config(), []
    while path is not None:
        if path in [known for known, _ in layers]:
            raise UsageError(f"--config={name_or_path}: {path} builds on itself")
        base, delta = _run_config_file(path, name_or_path)
        layers.append((path, delta))
        path = base and _config_path(base, path.parent, f"{path}: BASE={base!r}")
    for path, delta in reversed(layers):
        merge(config, delta, where=str(path))
    return config


def _config_path(name_or_path: str, folder: Path, where: str) -> Path:
    path = bundled_configs().get(name_or_path)
    if path is None:
        path = folder / Path(name_or_path).expanduser()
        if path.suffix != ".py" or not path.is_file():
            known = sorted(bundled_configs())
            raise UsageError(
                f"{where}: neither a bundled config ({', '.join(known)}) nor a "
                f"Python file{nearest(name_or_path, known)}"
            )
    return path.resolve()


def _run_config_file(path: Path, name: str) -> tuple[str | None, dict[str, Any]]:
    """Returns the name of what the file builds on, and what it sets."""
    try:
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        delta = module.get_config()
        delta = delta.to_dict() if isinstance(delta, ConfigDict) else dict(delta)
    except Exception as error:  # the file is the user's own code: anything can happen in it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"--config={name}: {path} failed with {reason}") from error
    return getattr(module, "BASE", None), delta


def merge(config: ConfigDict, delta: Mapping[str, Any], where: str) -> ConfigDict:
    """Sets the keys of `delta` in `config`, which knows every key and type; returns `config`."""
    for key, value in flatten(delta):
        check_key(key, where)
        *parents, last = key.split(".")
        holder = config
        for parent in parents:
            holder = holder[parent]
        default, expected = holder[last], holder.get_type(last)
        if expected is tuple and isinstance(value, list):
            value = tuple(value)
        if expected is float and type(value) is int:
            value = float(value)
        if type(value) is not expected and not (value is None and default is None):
            raise UsageError(
                f"{where}: {key}={value!r} is {type(value).__name__}, but it takes "
                f"{expected.__name__}, for example {default!r}"
            )
        holder[last] = value
    return config


def check_key(key: str, where: str) -> None:
    """Raises UsageError, naming the nearest key, unless `key` (dotted) is one that can be set."""
    known = [name for name, _ in flatten(default_config())]
    if key in known:
        return
    inside = [name for name in known if name.startswith(key + ".")]
    if inside:
        raise UsageError(f"{where}: {key} is a group; set one of {', '.join(inside)}")
    raise UsageError(f"{where}: unknown key {key!r}{nearest(key, known)}")


def differing_keys(ours: ConfigDict, theirs: ConfigDict) -> list[str]:
    """Returns "key: theirs -> ours" for every leaf that differs."""
    ours, theirs = dict(flatten(ours)), dict(flatten(theirs))
    return [f"{key}: {theirs[key]!r} -> {ours[key]!r}" for key in ours if ours[key] != theirs[key]]


def training_image_size(config: ConfigDict) -> int:
    """Returns the pixels along each side of a training image."""
    return config.data.train_image_size or config.data.image_size


def preprocessing(config: ConfigDict) -> Preprocessing:
    """Returns the preprocessing of `data.*` that evaluation and saved models use."""
    return Preprocessing.from_fields_of(config.data)


# Keys of `data` that say where the images come from; the rest says what is done with them.
SOURCE_KEYS = (
    "source",
    "name",
    "path",
    "label_offset",
    "class_names",
    "cache",
    "cache_path",
    "on_error",
    "max_broken_share",
)


def source_options(config: ConfigDict) -> dict[str, Any]:
    """Returns what `input_pipeline.open_source` takes of `data.*`, all but the split."""
    return {key: config.data[key] for key in SOURCE_KEYS}


def to_json(config: ConfigDict) -> str:
    """Returns the config as readable JSON; `from_json` is its inverse."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str, where: str) -> ConfigDict:
    """Reads what `to_json` wrote; keys that came with a later version get their default.

    Raises:
        UsageError: the text is no such JSON, or holds a key this version does not know.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where}: no JSON ({error}); restore the file or start elsewhere"
        ) from error
    return merge(default_config(), values, where)
