"""What the values of a configuration may be. Nothing here imports TensorFlow."""

import math

from ml_collections import ConfigDict

from keras_resnet.config.schema import flatten
from keras_resnet.errors import UsageError, nearest
from keras_resnet.preprocessing import CHANNEL_ORDERS, INTERPOLATIONS

# Keys whose value is one of a few words. The values live here so that a wrong one is
# answered before TensorFlow is imported; the code that implements them looks them up by name.
CHOICES = {
    "strategy": ("auto", "cpu", "one_device", "mirrored", "multi_worker", "tpu"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "xla": ("auto", "on", "off"),
    "on_nonfinite": ("stop", "rollback"),
    "model.freeze": ("", "norm", "body"),
    "data.source": ("tfds", "image_folder", "tfrecord", "synthetic"),
    "data.cache": ("auto", "none", "memory", "file"),
    "data.on_error": ("stop", "skip"),
    "data.interpolation": INTERPOLATIONS,
    "data.channel_order": CHANNEL_ORDERS,
    "optimizer.name": ("sgd", "lars", "adamw", "lamb"),
    "schedule.name": ("cosine", "step", "polynomial", "exponential"),
    "loss.name": ("softmax", "binary"),
}
AT_LEAST_ONE = [
    "accumulate_steps",
    "batch_size",
    "epochs",
    "evaluate_every_epochs",
    "log_every_steps",
    "data.image_size",
    "checkpoint.every_epochs",
    "checkpoint.keep",
]
NOT_NEGATIVE = [
    "seed",
    "data.train_image_size",
    "devices",
    "connect_timeout",
    "optimizer.learning_rate",
    "optimizer.momentum",
    "optimizer.weight_decay",
    "optimizer.trust_coefficient",
    "optimizer.beta_1",
    "optimizer.beta_2",
    "optimizer.clip_norm",
    "schedule.warmup_epochs",
    "schedule.end_learning_rate",
    "schedule.factor",
    "loss.label_smoothing",
    "loss.target_threshold",
    "ema.decay",
    "data.augment.crop_padding",
    "data.max_broken_share",
]
ABOVE_ZERO = [
    "optimizer.epsilon",
    "optimizer.layer_decay",
    "schedule.decay_epochs",
    "schedule.power",
]
BELOW_ONE = [
    "optimizer.momentum",
    "optimizer.beta_1",
    "optimizer.beta_2",
    "loss.label_smoothing",
    "loss.target_threshold",
    "ema.decay",
]


def check(config: ConfigDict) -> ConfigDict:
    """Returns `config` if every value can be used.

    Raises:
        UsageError: one line that quotes the key, the value and what is accepted.
    """
    values = dict(flatten(config))
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise UsageError(
                f"config.{key}={values[key]!r} is not one of "
                f"{', '.join(choice or repr(choice) for choice in choices)}"
                f"{nearest(values[key], choices)}"
            )
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"config.{key}={value!r} is not a finite number")
    for key in AT_LEAST_ONE:
        if values[key] < 1:
            raise UsageError(f"config.{key}={values[key]!r} must be at least 1")
    for key in NOT_NEGATIVE:
        if values[key] < 0:
            raise UsageError(f"config.{key}={values[key]!r} must not be negative")
    for key in ABOVE_ZERO:
        if values[key] <= 0:
            raise UsageError(f"config.{key}={values[key]!r} must be above 0")
    for key in BELOW_ONE:
        if values[key] >= 1:
            raise UsageError(f"config.{key}={values[key]!r} must be below 1")
    if config.data.max_broken_share > 1:
        raise UsageError(
            f"config.data.max_broken_share={config.data.max_broken_share!r} must be in [0, 1]"
        )
    if not 0 < config.data.crop_ratio <= 1:
        raise UsageError(f"config.data.crop_ratio={config.data.crop_ratio!r} must be in (0, 1]")
    _check_tuples(config)
    _check_profile_steps(config.tensorboard.profile_steps)
    _check_augment(config)
    _check_model_name(config.model.name)
    return config


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
    if not all(isinstance(weight, int | float) and weight >= 0 for weight in weights):
        raise UsageError(f"config.loss.class_weights={weights!r} must be numbers of 0 or more")
    if config.schedule.name == "step" and not boundaries:
        raise UsageError(
            "config.schedule.name='step' needs config.schedule.boundaries=(…) in epochs"
        )


def _check_profile_steps(steps: tuple) -> None:
    if not steps:
        return
    if (
        len(steps) != 2
        or not all(type(step) is int for step in steps)
        or not 0 <= steps[0] < steps[1]
    ):
        raise UsageError(
            f"config.tensorboard.profile_steps={steps!r} must be (first, last + 1), for example "
            "(10, 15), or () for none"
        )


def _check_augment(config: ConfigDict) -> None:
    from keras_resnet.input_pipeline.augment.settings import check_augment  # loads no TensorFlow
    from keras_resnet.input_pipeline.errors import DataError

    try:
        check_augment(config.data.augment.to_dict())
    except DataError as error:
        raise UsageError(f"config.data.augment: {error}") from error


def _check_model_name(name: str) -> None:
    from keras_resnet.architectures import ARCHITECTURES

    if name not in ARCHITECTURES:
        raise UsageError(
            f"config.model.name={name!r} is no model of keras_resnet"
            f"{nearest(name, ARCHITECTURES) or '; keras_resnet.list_models() names them'}"
        )
