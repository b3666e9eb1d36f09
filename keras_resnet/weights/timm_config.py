"""The `config.json` that timm puts beside its weights: architecture and preprocessing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.preprocessing import Preprocessing, PreprocessingError
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError
from keras_resnet.weights.timm_networks import TIMM_NETWORKS

_NEEDED = ("input_size", "crop_pct", "interpolation", "mean", "std")
# timm's crop_mode -> our rule of resizing.
_RESIZES = {"center": "floor", "squash": "plain"}


def read_config(checkpoint: Checkpoint, config: Mapping[str, Any], path: Path) -> None:
    """Adds to a checkpoint what timm's `config.json` says.

    Raises:
        WeightsError: if it asks for a crop that we do not have.
    """
    pretrained = config.get("pretrained_cfg", config)
    checkpoint.architecture = config["architecture"]
    if checkpoint.architecture in TIMM_NETWORKS:
        name, changed = TIMM_NETWORKS[checkpoint.architecture]
        checkpoint.network = {"name": name, **changed}
    names = pretrained.get("label_names") or config.get("label_names")
    checkpoint.class_names = [str(name) for name in names] if names else None
    if all(key in pretrained for key in _NEEDED):
        checkpoint.preprocessing = _preprocessing(pretrained, path)
        if pretrained.get("test_input_size"):
            larger = {"input_size": pretrained["test_input_size"]}
            larger["crop_pct"] = pretrained.get("test_crop_pct") or pretrained["crop_pct"]
            checkpoint.test_preprocessing = _preprocessing({**pretrained, **larger}, path)


def _preprocessing(config: Mapping[str, Any], path: Path) -> Preprocessing:
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
