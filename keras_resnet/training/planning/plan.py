"""A config for a folder of labelled images, and why it is that one."""

import dataclasses
import os
import statistics
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.architectures import get_architecture
from keras_resnet.config import check, default_config, merge
from keras_resnet.errors import UsageError
from keras_resnet.input_pipeline.image_sizes import sample_sizes
from keras_resnet.input_pipeline.layout import Layout
from keras_resnet.input_pipeline.layout_finder import explain_listing, find_layout
from keras_resnet.input_pipeline.sources.memory import readable
from keras_resnet.storage import absolute
from keras_resnet.training.finetuning import read_pretrained
from keras_resnet.training.planning.device import Device, find_device
from keras_resnet.training.planning.recipe import Photos, Pretrained, Recipe, choose
from keras_resnet.training.planning.splits import Splits, choose_splits
from keras_resnet.weights import WeightsError, likely_networks, preprocessing_of, row_of

SPLIT, MINUTES = 0.2, 60.0
# Of several labels an image. The losses of the classes are added up, so that the rates of softmax
# suit; what smoothing would give away, a class that is sure, is what a threshold needs.
LABEL_SETS = {
    "data.multi_label": True,
    "loss.name": "binary",
    "loss.sum_classes": True,
    "loss.label_smoothing": 0.0,
}
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")


@dataclasses.dataclass(frozen=True)
class Plan:
    """What was chosen for some images.

    Attributes:
        config: checked, to train with.
        lines: five, each on what was chosen, why, and how to change it; and a sixth where photos
            are kept decoded.
        warnings: on what a person should know of the images.
    """

    config: ConfigDict
    lines: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_run(
    data: str | os.PathLike,
    *,
    weights: str = "",
    split: float = SPLIT,
    minutes: float = MINUTES,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Chooses how to train on labelled images; `keras_resnet.training.plan` says the rest."""
    given = {**(overrides or {})}
    if weights:
        given["model.weights"] = weights
    if given.get("data.multi_label"):
        given = {**LABEL_SETS, **given}
    if not minutes > 0:
        raise UsageError(f"--minutes={minutes:g} must be above 0")
    path = absolute(data) if os.fspath(data) else ""
    # What is wrong with the values that are given is said before anything is listed.
    base = check(merge(default_config(), given, "overrides"))
    with explain_listing(path):
        layout = find_layout(path, given.get("data.multi_label"))
        splits = choose_splits(layout, split, given)
        photos = _photos(splits)
    pretrained = _pretrained(base, given) if base.model.weights else None
    device = find_device(base)
    if layout.multi_label:
        given = {**LABEL_SETS, **given}
    recipe = choose(photos, device, minutes, pretrained, given)
    values = {"data.source": "image_folder", "data.path": path, **splits.config(), **recipe.values}
    config = check(merge(default_config(), values, "overrides"))
    lines = _lines(layout, splits, photos, device, recipe, config, minutes)
    return Plan(config, lines, tuple(splits.warnings()))


def _photos(splits: Splits) -> Photos:
    files = [path for path, _ in splits.examples["train"]]
    # Where no header can be read, the run will say which file is broken.
    sizes = sample_sizes(files) or [(224, 224)]
    height, width = (round(statistics.median(side)) for side in zip(*sizes, strict=True))
    jpegs = sum(path.lower().endswith(_JPEG) for path in files) / len(files)
    return Photos(len(files), len(splits.examples["validation"]), height, width, jpegs)


def _pretrained(config: ConfigDict, given: Mapping[str, Any]) -> Pretrained:
    """What the weights say of their network, or the config of them."""
    weights = read_pretrained(config)
    try:
        row = row_of(weights)
    except WeightsError as error:
        if "model.name" not in given:
            example, *_ = [*likely_networks(weights), "ResNet50"]
            raise UsageError(
                f"--weights={config.model.weights}: they do not say which network they are of; "
                f"name it, for example --config.model.name={example}"
            ) from error
        row = get_architecture(config.model.name)
    preprocessing = preprocessing_of(weights, None)
    size = None if preprocessing is None else preprocessing.image_size
    return Pretrained(row.name, size or row.image_size)


def _lines(
    layout: Layout,
    splits: Splits,
    photos: Photos,
    device: Device,
    recipe: Recipe,
    config: ConfigDict,
    minutes: float,
) -> tuple[str, ...]:
    data, model, optimizer = config.data, config.model, config.optimizer
    start = f"from {model.weights}" if model.weights else "from random weights"
    hurried = " (more would be better)" if config.epochs < recipe.wanted_epochs else ""
    first, epochs = _number(model.unfreeze_epoch, "epoch"), _number(config.epochs, "epoch")
    steps = photos.count / config.batch_size
    stages = (
        f"the classifier alone for {first}, then all layers, each stage at "
        f"{optimizer.layer_decay:g} of the rate above it; "
        if model.unfreeze_epoch
        else ""
    )
    kept = (
        f"the best of {data.eval_split} is kept"
        if config.checkpoint.model == "best"
        else f"the last step is kept, as {photos.validation} images are too few to choose by"
    )
    flips = "mirrored images" if data.augment.flip else "no mirrored images"
    crop = "random parts" if data.augment.random_resized_crop else "shifted crops"
    return (
        f"images     {splits.counts()} ({splits.why}): {layout.describe()}",
        f"network    {model.name} at {data.image_size} px, {start}: the images are "
        f"{photos.width} × {photos.height} (median), {device} for {_number(minutes, 'minute')}. "
        "Change: --config.model.name=, --config.data.image_size=, --minutes=",
        f"length     {epochs} of {steps:,.0f} steps of {config.batch_size} images, about "
        f"{_duration(recipe.minutes)}{hurried}. "
        "Change: --config.epochs=, --config.batch_size=",
        f"rates      {stages}{optimizer.name}, peak rate {optimizer.learning_rate:g}, "
        f"{config.schedule.name}; {kept}. "
        "Change: --config.optimizer.learning_rate=",
        f"augment    {crop}, {flips}. Where left and right mean something: "
        "--config.data.augment.flip=false",
        *_kept(data, recipe),
    )


def _kept(data: ConfigDict, recipe: Recipe) -> tuple[str, ...]:
    if not recipe.kept_bytes:
        return ()
    where = data.cache_path or "the work directory, until the run ends"
    return (
        "reading    the photos are large and few: they are decoded and shrunk once, and kept so in "
        f"{where} (about {readable(recipe.kept_bytes)}). "
        "Change: --config.data.cache=none",
    )


def _duration(minutes: float) -> str:
    if minutes >= 90:
        return f"{minutes / 60:.1f} hours"
    return _number(max(1, round(minutes)), "minute")


def _number(count: float, what: str) -> str:
    number = f"{count:,}" if isinstance(count, int) else f"{count:g}"
    return f"{number} {what}{'' if count == 1 else 's'}"
