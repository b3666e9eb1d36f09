"""What Hugging Face transformers saves beside its `ResNet-` and `BitForImageClassification`.

`config.json` has the architecture and the names of the classes, `preprocessor_config.json` what is
done to images.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.architectures import ARCHITECTURES, Architecture
from keras_resnet.architectures.row import IMAGENET_MEAN, IMAGENET_STD
from keras_resnet.preprocessing import Preprocessing, PreprocessingError
from keras_resnet.weights import transformers_bit_config
from keras_resnet.weights.checkpoint import Checkpoint, WeightsError

PREPROCESSOR = "preprocessor_config.json"
_EXPANSION = 4  # of a bottleneck: its output's channels for one inside
_ROWS = {"basic": "ResNet18", "bottleneck": "ResNet50"}
_PIL_FILTERS = {2: "bilinear", 3: "bicubic"}
# From this size on, transformers' ConvNextImageProcessor warps the image and does not crop it.
_WARPED = 384


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of transformers' ResNet or Big Transfer."""
    return config.get("model_type") in _NETWORKS


def read_config(checkpoint: Checkpoint, config: Mapping[str, Any], path: Path) -> None:
    """Adds architecture, channels and class names to a checkpoint.

    Raises:
        WeightsError: for a network that cannot be built here, quoting the key.
    """
    checkpoint.network = _NETWORKS[config["model_type"]](config, path)
    checkpoint.channels = config.get("num_channels", 3)
    names = _class_names(config.get("id2label"))
    if names:
        checkpoint.network["classes"] = len(names)
        # Its own placeholders say nothing.
        if names != [f"LABEL_{number}" for number in range(len(names))]:
            checkpoint.class_names = names


def _network(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    kind = config.get("layer_type", "bottleneck")
    depths = tuple(config.get("depths", (3, 4, 6, 3)))
    hidden = tuple(config.get("hidden_sizes", (256, 512, 1024, 2048)))
    if kind not in _ROWS:
        raise WeightsError(f"{path} has layer_type={kind!r}; there are basic and bottleneck here.")
    # Its blocks have ReLU inside whatever `hidden_act` is, which holds for their outputs alone.
    if config.get("hidden_act", "relu") != "relu":
        raise WeightsError(
            f"{path} has hidden_act={config['hidden_act']!r}: transformers uses it after the sums "
            "and ReLU inside the blocks, networks here have one activation. Only 'relu' loads."
        )
    share = _EXPANSION if kind == "bottleneck" else 1
    if any(size % share for size in hidden) or len(hidden) != len(depths):
        raise WeightsError(f"{path} has hidden_sizes={list(hidden)} for depths={list(depths)}.")
    same = (row.name for row in ARCHITECTURES.values() if _is_plain(row, kind, depths))
    strided = {"stage_stride": ((2,),) * len(depths)}  # the first stage, too
    return {
        **(strided if config.get("downsample_in_first_stage", False) else {}),
        "name": next(same, _ROWS[kind]),
        "block": kind,
        "depths": depths,
        "widths": tuple(size // share for size in hidden),
        "stem_width": config.get("embedding_size", 64),
        "stride_in_1x1": kind == "bottleneck" and config.get("downsample_in_bottleneck", False),
    }


# model_type -> the function that reads its network.
_NETWORKS = {"resnet": _network, "bit": transformers_bit_config.network_of}


def _is_plain(row: Architecture, kind: str, depths: tuple[int, ...]) -> bool:
    plain = row.library == "torchvision" and row.groups == 1 and row.base_width == 64
    return plain and row.block == kind and row.depths == depths


def _class_names(labels: Any) -> list[str] | None:
    """The values of `id2label`, in the order of their numbers."""
    if not isinstance(labels, Mapping) or not labels:
        return None
    by_number = {int(number): str(name) for number, name in labels.items()}
    return [by_number[number] for number in sorted(by_number)]


def read_preprocessor(checkpoint: Checkpoint, settings: Mapping[str, Any], path: Path) -> None:
    """Adds what `preprocessor_config.json` says to a checkpoint.

    Raises:
        WeightsError: if it asks for what evaluation here cannot do, quoting the key.
    """
    for key in ("do_resize", "do_rescale", "do_normalize"):
        if settings.get(key, True) is not True:
            raise WeightsError(
                f"{path} has {key}={settings[key]!r}; images are always resized, scaled to 0..1 "
                "and normalized here. Give the preprocessing yourself, and take the file away."
            )
    if abs(settings.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise WeightsError(f"{path} has rescale_factor={settings['rescale_factor']!r}, not 1/255.")
    resample = settings.get("resample", 3)
    if resample not in _PIL_FILTERS:
        raise WeightsError(
            f"{path} has resample={resample!r}; there are 2 (bilinear) and 3 (bicubic) here."
        )
    image_size, crop_ratio, resize = _sizes(settings, path)
    try:
        checkpoint.preprocessing = Preprocessing(
            image_size=image_size,
            crop_ratio=crop_ratio,
            interpolation=_PIL_FILTERS[resample],
            mean=settings.get("image_mean", IMAGENET_MEAN),
            std=settings.get("image_std", IMAGENET_STD),
            channel_order="rgb",
            resize=resize,
        )
    except PreprocessingError as error:
        raise WeightsError(f"{path} asks for what evaluation here cannot do: {error}") from error


def _sizes(settings: Mapping[str, Any], path: Path) -> tuple[int, float, str]:
    """Image size, crop ratio and the rule of resizing."""
    size = settings.get("size", 224)
    short = size.get("shortest_edge") if isinstance(size, Mapping) else size
    if settings.get("do_center_crop") and "crop_size" in settings:
        crop = _side(settings["crop_size"], "crop_size", path)
        resized = short or _side(size, "size", path)
        if crop > resized:
            raise WeightsError(f"{path} has a crop_size of {crop} beyond the size {resized}.")
        return crop, crop / resized, "shortest_edge"
    if short is None or short >= _WARPED:
        return short or _side(size, "size", path), 1.0, "plain"
    return short, settings.get("crop_pct") or 224 / 256, "shortest_edge"


def _side(size: Any, key: str, path: Path) -> int:
    if isinstance(size, Mapping) and size.get("height") == size.get("width"):
        size = size.get("height")
    if not isinstance(size, int):
        raise WeightsError(f"{path} has {key}={size!r}; images are square here.")
    return size
