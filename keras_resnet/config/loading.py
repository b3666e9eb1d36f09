"""Config files on top of the defaults.

A config file is Python with a function `get_config()` that returns an `ml_collections.ConfigDict`
(or a dict) holding only what differs from `default_config()`; `schema` has every key.
"""

import importlib.util
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.config.image_sizes import ImageSizes, image_sizes
from keras_resnet.config.key import Key
from keras_resnet.config.schema import KEYS, default_config, flatten
from keras_resnet.errors import UsageError, did_you_mean
from keras_resnet.input_pipeline.sources import SETTINGS, exif_of
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
    path: Path | None = _config_path(name_or_path, Path(), f"--config={name_or_path}")
    config = default_config()
    layers: list[tuple[Path, dict[str, Any]]] = []
    while path is not None:
        if path in [known for known, _ in layers]:
            raise UsageError(f"--config={name_or_path}: {path} builds on itself")
        base, delta = _run_config_file(path, name_or_path)
        if not isinstance(base, str | None):
            raise UsageError(
                f"{path}: BASE={base!r} is not a text; it names a bundled config or a file, for "
                'example BASE = "digits"'
            )
        layers.append((path, delta))
        path = _config_path(base, path.parent, f"{path}: BASE={base!r}") if base else None
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
                f"{where} is neither a bundled config ({', '.join(known)}) nor a "
                f"Python file.{did_you_mean(name_or_path, known)}"
            )
    return path.resolve()


def _run_config_file(path: Path, name: str) -> tuple[Any, dict[str, Any]]:
    """Returns its BASE, None without one, and what it sets."""
    try:
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        assert spec is not None  # the name ends with .py
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        delta = module.get_config()
        delta = delta.to_dict() if isinstance(delta, ConfigDict) else dict(delta)
    except (Exception, SystemExit) as error:  # the user's own code: anything can happen in it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        where = f" in line {lines[-1]}" if lines else ""
        raise UsageError(f"--config={name}: {path} failed{where} with {reason}") from error
    return getattr(module, "BASE", None), delta


def merge(config: ConfigDict, delta: Mapping[str, Any], where: str) -> ConfigDict:
    """Sets the keys of `delta`, nested or dotted, in `config`, which has every key; returns it.

    Raises:
        UsageError: a key does not exist, or a value has another type than its key.
    """
    for name, value in flatten(delta):
        set_value(config, name, check_key(name, where).accept(value, where))
    return config


def set_value(config: ConfigDict, name: str, value: Any) -> None:
    """Sets the dotted key `name`, whose type `value` has."""
    *groups, last = name.split(".")
    for group in groups:
        config = config[group]
    with config.ignore_type():  # its key has checked it, and may take a word for a tuple
        config[last] = value


def check_key(name: str, where: str) -> Key:
    """Returns the row of the key `name`.

    Raises:
        UsageError: it does not exist, naming the closest, or is a group of keys.
    """
    if name in KEYS:
        return KEYS[name]
    inside = [key for key in KEYS if key.startswith(name + ".")]
    if inside:
        raise UsageError(f"{where}: {name} is a group; set one of {', '.join(inside)}")
    hint = did_you_mean(name, KEYS) or " `keras-resnet config` lists them."
    raise UsageError(f"{where}: there is no key {name!r}.{hint}")


def training_image_sizes(config: ConfigDict) -> ImageSizes:
    """Returns the pixels along each side of a training image, over the run."""
    return image_sizes(config.data.train_image_size or config.data.image_size)


def training_image_size(config: ConfigDict) -> int:
    """Returns the pixels along each side of a training image, of a schedule the most."""
    return max(training_image_sizes(config).sizes)


def with_training_image_size(config: ConfigDict, size: int) -> ConfigDict:
    """Returns a copy of `config` that trains at one size; it evaluates as before."""
    values = {
        "evaluation.image_size": evaluation_image_size(config),
        "data.image_size": size,
        "data.train_image_size": 0,
    }
    return merge(config.copy_and_resolve_references(), values, "")


def evaluation_image_size(config: ConfigDict) -> int:
    """Returns the pixels along each side of an image in evaluation, predict and exports."""
    return config.evaluation.image_size or image_sizes(config.data.image_size).last


def preprocessing(config: ConfigDict) -> Preprocessing:
    """Returns the preprocessing of `data.*` that evaluation and saved models use."""
    values = {name: config.data[name] for name in Preprocessing.names()}
    values["image_size"] = evaluation_image_size(config)
    values["exif"] = exif_of(config.data.source, config.data.exif)
    return Preprocessing(**values)


def source_options(config: ConfigDict) -> dict[str, Any]:
    """Returns what `input_pipeline.open_source` takes of `data.*`, all but the split."""
    return {setting.name: config.data[setting.name] for setting in SETTINGS}
