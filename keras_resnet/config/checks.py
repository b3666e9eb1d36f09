"""What the values of a configuration may be together. Nothing here imports TensorFlow."""

import re

from ml_collections import ConfigDict

from keras_resnet.config.keras_optimizers import (
    KEYS_OF_OURS,
    parse_arguments,
    refuse_keys_of_ours,
)
from keras_resnet.config.renamings import parse_renamings
from keras_resnet.config.schema import KEYS, flatten
from keras_resnet.errors import UsageError
from keras_resnet.input_pipeline.augment.settings import check_augment
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.sources import SETTINGS

_CALLBACK = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def check(config: ConfigDict) -> ConfigDict:
    """Returns `config` if every value can be used.

    Raises:
        UsageError: one line that quotes the key, the value and what is accepted.
    """
    for name, value in flatten(config):
        KEYS[name].check(value)
    _check_tuples(config)
    _check_profile_steps(config.tensorboard.profile_steps)
    _check_callbacks(config.training.callbacks)
    parse_renamings(config.model.weights_rename, "config.model.weights_rename")
    refuse_keys_of_ours(config, {key: KEYS[f"optimizer.{key}"].default for key in KEYS_OF_OURS})
    parse_arguments(config)
    if config.model.unfreeze_epoch and not config.model.freeze:
        raise UsageError(
            f"config.model.unfreeze_epoch={config.model.unfreeze_epoch} has nothing to unfreeze; "
            "set config.model.freeze=body to train the classifier alone until then"
        )
    _check_data(config)
    _check_label_sets(config)
    _check_distillation(config)
    return config


def _check_distillation(config: ConfigDict) -> None:
    if config.distill.teacher:
        return
    for name in ("temperature", "weight"):
        if config.distill[name] != KEYS[f"distill.{name}"].default:
            raise UsageError(
                f"config.distill.{name}={config.distill[name]!r} is of a teacher, and there is "
                "none; set config.distill.teacher=PATH, for example the work directory of a run"
            )


def _check_label_sets(config: ConfigDict) -> None:
    if not config.data.multi_label:
        return
    if config.loss.name != "binary":
        raise UsageError(
            f"config.loss.name={config.loss.name!r} takes one label an image, and "
            "config.data.multi_label=True reads several; set config.loss.name=binary, or "
            "config.data.multi_label=false"
        )
    if config.data.sampler == "balanced":
        raise UsageError(
            "config.data.sampler='balanced' with config.data.multi_label=True: images that have "
            "several classes cannot be shown so that every class comes equally often; set "
            "config.data.sampler=shuffle, and config.loss.class_weights=balanced weighs the rare "
            "ones more"
        )


def _check_data(config: ConfigDict) -> None:
    """The sizes of images, and what the pipeline says of its own settings."""
    size, other = config.data.image_size, config.data.train_image_size
    if isinstance(size, str) and other:
        raise UsageError(
            f"config.data.train_image_size={other} and config.data.image_size={size!r} both say "
            "the size of training images; leave out the former, and config.evaluation.image_size "
            "sets that of evaluation"
        )
    try:
        for setting in SETTINGS:
            setting.check(config.data[setting.name], "config.data.")
    except DataError as error:
        raise UsageError(str(error)) from error
    try:
        check_augment(config.data.augment.to_dict())
    except DataError as error:
        raise UsageError(f"config.data.augment: {error}") from error


def _check_tuples(config: ConfigDict) -> None:
    for key in ("mean", "std"):
        value = config.data[key]
        if len(value) != 3 or not all(isinstance(entry, int | float) for entry in value):
            raise UsageError(f"config.data.{key}={value!r} must be three numbers, for R, G and B")
    if min(config.data.std) <= 0:
        raise UsageError(f"config.data.std={config.data.std!r} must be above 0")
    boundaries = config.schedule.boundaries
    if list(boundaries) != sorted(boundaries) or any(entry < 0 for entry in boundaries):
        raise UsageError(
            f"config.schedule.boundaries={boundaries!r} must be epochs in rising order"
        )
    weights = config.loss.class_weights
    named = isinstance(weights, str)
    if not named and not all(isinstance(entry, int | float) and entry >= 0 for entry in weights):
        raise UsageError(f"config.loss.class_weights={weights!r} must be numbers of 0 or more")
    if config.schedule.name == "step" and not boundaries:
        raise UsageError(
            "config.schedule.name='step' needs config.schedule.boundaries=(…) in epochs"
        )


def _check_callbacks(names: tuple[str, ...]) -> None:
    """By their form alone: to read a config imports nothing that it names."""
    for name in names:
        if not _CALLBACK.fullmatch(name):
            raise UsageError(
                f"config.training.callbacks={names!r}: {name!r} must be package.module:factory, "
                "for example tracking:WandB"
            )


def _check_profile_steps(steps: tuple) -> None:
    whole = len(steps) == 2 and all(type(step) is int for step in steps)
    if steps and not (whole and 0 <= steps[0] < steps[1]):
        raise UsageError(
            f"config.tensorboard.profile_steps={steps!r} must be (first, last + 1), for example "
            "(10, 15), or () for none"
        )
