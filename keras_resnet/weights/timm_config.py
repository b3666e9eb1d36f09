"""The `config.json` that timm puts beside its weights: architecture and preprocessing."""

import json
from pathlib import Path

from keras_resnet.preprocessing import Preprocessing, PreprocessingError
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError

_NEEDED = ("input_size", "crop_pct", "interpolation", "mean", "std")
# timm's crop_mode -> our rule of resizing.
_RESIZES = {"center": "floor", "squash": "plain"}


def read_into(checkpoint: Checkpoint, path: Path) -> None:
    """Adds to a checkpoint what a `config.json` says; one that is not timm's says nothing.

    Raises:
        WeightsError: if the file is no JSON or asks for a crop that we do not have.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is no JSON file ({error}).") from error
    if not isinstance(config, dict) or "architecture" not in config:
        return
    pretrained = config.get("pretrained_cfg", config)
    checkpoint.architecture = config["architecture"]
    names = pretrained.get("label_names") or config.get("label_names")
    checkpoint.class_names = [str(name) for name in names] if names else None
    if all(key in pretrained for key in _NEEDED):
        checkpoint.preprocessing = _preprocessing(pretrained, path)
        if pretrained.get("test_input_size"):
            larger = {"input_size": pretrained["test_input_size"]}
            larger["crop_pct"] = pretrained.get("test_crop_pct") or pretrained["crop_pct"]
            checkpoint.test_preprocessing = _preprocessing({**pretrained, **larger}, path)


def _preprocessing(config: dict, path: Path) -> Preprocessing:
    crop_mode = config.get("crop_mode") or "center"
    if crop_mode not in _RESIZES:
        raise WeightsError(
            f"{path} asks for crop_mode={crop_mode!r}; evaluation here takes the center of the "
            "resized image ('center', 'squash')."
        )
    try:
        return Preprocessing(
            image_size=config["input_size"][-1],
            crop_ratio=config["crop_pct"],
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            channel_order="rgb",
            resize=_RESIZES[crop_mode],
        )
    except PreprocessingError as error:
        raise WeightsError(f"{path} asks for what evaluation here cannot do: {error}") from error
