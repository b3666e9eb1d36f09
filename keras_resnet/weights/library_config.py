"""The `config.json` beside weights, by the library that wrote it."""

from pathlib import Path
from typing import Any

from keras_resnet.bounds import parse_json
from keras_resnet.weights import keras_hub_config, timm_config, transformers_config
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError, in_one_line


def read_into(checkpoint: Checkpoint, path: Path) -> None:
    """Adds to a checkpoint what a `config.json` says, and the preprocessor's file beside it.

    One that is neither timm's nor transformers' nor KerasHub's says nothing.

    Raises:
        WeightsError: if a file is no JSON, or asks for what we do not have.
    """
    with in_one_line(path):
        config = read_json(path)
        if transformers_config.is_ours(config):
            transformers_config.read_config(checkpoint, config, path)
            preprocessor = path.with_name(transformers_config.PREPROCESSOR)
            if preprocessor.is_file():
                settings = read_json(preprocessor)
                transformers_config.read_preprocessor(checkpoint, settings, preprocessor)
        elif isinstance(config.get("architecture"), str):
            timm_config.read_config(checkpoint, config, path)
        elif network := keras_hub_config.network_of(config, str(path)):
            checkpoint.network = network


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if it holds something else.

    Raises:
        WeightsError: if it is no JSON.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is no JSON file ({error}).") from error
    return content if isinstance(content, dict) else {}
