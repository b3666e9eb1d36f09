"""The configuration of a run: defaults, bundled and own config files, overrides, checks.

A config file is Python with a function `get_config()` that returns an `ml_collections.ConfigDict`
(or a dict) holding only what differs from `default_config()`. Nothing here imports TensorFlow, so
that a misspelt key is answered at once.
"""

import importlib.util
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from keras_resnet.errors import UsageError, nearest


def default_config() -> ConfigDict:
    """Returns every key there is, with its default and, by that, its type."""
    return ConfigDict(
        {
            "seed": 0,  # fixes initial weights, order of the examples and augmentation
            # auto: several hosts (TF_CONFIG, Slurm), else TPU, several GPUs, one GPU, the CPU.
            "strategy": "auto",
            "devices": 0,  # GPUs of mirrored, or parts of the CPU without GPUs; 0: all there are
            "connect_timeout": 300.0,  # seconds that multi_worker waits for the other hosts
            # mixed_bfloat16, mixed_float16: float32 variables, 16 bit arithmetic; the latter on one
            # replica only.
            "precision": "float32",
            "xla": "auto",  # auto: on for GPU, the strategy's own on TPU, off on CPU (slower)
            "xla_cache": "",  # folder that keeps what XLA compiled for the next start; "": none
            # Flags of the TPU compiler: run_tpu.sh puts them into LIBTPU_INIT_ARGS, preflight too.
            "libtpu_init_args": "",
            "batch_size": 128,  # global: over all replicas and hosts
            "accumulate_steps": 1,  # parts of a batch computed one by one, for less memory
            "epochs": 90,
            "evaluate_every_epochs": 1,
            "log_every_steps": 50,  # also the number of steps per call of the compiled loop
            "model": {
                "name": "CifarResNet20",  # keras_resnet.list_models() names them all
                # The next six are the variant's own unless set.
                "depths": (),  # blocks per stage
                "widths": (),  # channels per stage
                "shortcut": placeholder(str),  # A, B or D
                "residual": placeholder(bool),  # False: the plain twin, without shortcuts
                "dropout_rate": placeholder(float),
                "drop_path_rate": placeholder(float),  # stochastic depth of the last block
                # Batch norm over the global batch instead of each replica's part.
                "synchronized_norm": False,
                "zero_init_last_gamma": True,  # Goyal et al. 2017, section 5.1
                "rematerialize": False,  # less memory, more time
            },
            "data": {
                "source": "tfds",  # tfds, image_folder
                "name": "digits",  # data set in TFDS; unused by image_folder
                "path": "",  # data_dir of TFDS ("" is its own default), or the image folder
                "train_split": "train",
                "eval_split": "test",
                "image_size": 32,  # pixels, height and width of what the model sees
                # Evaluation resizes the short side to image_size / crop_ratio and crops the centre.
                "crop_ratio": 1.0,
                "interpolation": "bilinear",  # or bicubic
                # Of RGB values scaled to 0..1. The default is ImageNet's (torchvision's constants).
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
                # docs/augmentation.md has the meaning, source and cost of each.
                "augment": {
                    "crop_padding": 0,  # pixels of zeros on each side before a random crop
                    "flip": False,  # horizontally, every second image on average
                    "random_resized_crop": False,  # Inception crop: 8-100 % of the area
                    # rand-m9-mstd0.5 (RandAugment, as timm writes it; also n, p, inc),
                    # auto-imagenet, auto-cifar10 (AutoAugment) or trivial (TrivialAugment).
                    "policy": "",
                    "color_jitter": (),  # or (brightness, contrast, saturation, hue); torchvision
                    "random_erasing": 0.0,  # probability; Zhong et al. 2020, noise as in timm
                    "mixup": 0.0,  # alpha of the beta distribution; Zhang et al. 2018
                    "cutmix": 0.0,  # alpha; Yun et al. 2019. With mixup: each batch takes one
                    "mix_probability": 1.0,  # of a batch, to be mixed at all
                    "repeats": 1,  # copies of an example in a batch; Hoffer et al. 2020
                },
            },
            "optimizer": {
                "name": "sgd",  # sgd, lars, adamw, lamb
                "learning_rate": 0.1,  # the peak, after warm-up
                "scale_with_batch": False,  # times batch_size / 256; Goyal et al. 2017, section 2.1
                "momentum": 0.9,  # sgd and lars
                "nesterov": True,  # sgd and lars; MLPerf's LARS is without
                # On convolution and dense kernels only: L2 of sgd and lars, decoupled in adamw.
                "weight_decay": 1e-4,
                "trust_coefficient": 0.001,  # lars
                "beta_1": 0.9,  # adamw and lamb
                "beta_2": 0.999,
                "epsilon": 1e-7,
                "clip_norm": 0.0,  # largest norm of the whole gradient; 0: no limit
                # Factor of the learning rate from each stage to the one below it, from the
                # classifier down; below 1 for fine-tuning. Howard and Ruder 2018, section 3.2.
                "layer_decay": 1.0,
            },
            "schedule": {
                "name": "cosine",  # cosine, step, polynomial, exponential
                "warmup_epochs": 0.0,  # linear, Goyal et al. 2017, section 2.2
                # False: the decay counts from step 0 (timm); True: from the end of the warm-up
                # (torchvision, MLPerf).
                "decay_after_warmup": False,
                "end_learning_rate": 0.0,  # cosine and polynomial
                "boundaries": (),  # step: epochs after which the rate is multiplied by factor
                "factor": 0.1,  # step and exponential
                "decay_epochs": 1.0,  # exponential: epochs in which the rate falls by factor
                "power": 2.0,  # polynomial
            },
            "loss": {
                "name": "softmax",  # or binary: a yes or no for each class; Wightman et al. 2021
                "label_smoothing": 0.0,  # Szegedy et al. 2016, section 7
                "target_threshold": 0.0,  # binary: targets above it become 1, others 0; 0: as is
                "sum_classes": False,  # binary: sum over the classes instead of the mean
                "class_weights": (),  # one number for each class, or () for none
            },
            "ema": {  # moving average of the weights, which is then evaluated and saved
                "decay": 0.0,  # per step, for example 0.9999; 0: off
                "warmup": True,  # decay min(decay, (1 + t) / (10 + t)) after step t
            },
            "checkpoint": {
                "every_epochs": 1,
                "keep": 3,
            },
        }
    )


# Keys whose value is one of a few words. The values live here so that a wrong one is
# answered before TensorFlow is imported; the code that implements them looks them up by name.
CHOICES = {
    "strategy": ("auto", "cpu", "one_device", "mirrored", "multi_worker", "tpu"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "xla": ("auto", "on", "off"),
    "data.source": ("tfds", "image_folder"),
    "data.interpolation": ("bilinear", "bicubic"),
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


def configs_folder() -> Path:
    """Returns the folder of the bundled configs: in the installed package, or in the checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def bundled_configs() -> dict[str, Path]:
    """Returns the bundled configs by name."""
    return {path.stem: path for path in sorted(configs_folder().glob("[a-z]*.py"))}


def load_config(name_or_path: str) -> ConfigDict:
    """Returns the full config of a bundled name or of a file, on top of the defaults.

    Raises:
      UsageError: there is no such config, the file fails, or sets an unknown key or wrong type.
    """
    path = bundled_configs().get(name_or_path)
    if path is None:
        path = Path(name_or_path).expanduser()
        if path.suffix != ".py" or not path.is_file():
            known = sorted(bundled_configs())
            raise UsageError(
                f"--config={name_or_path}: neither a bundled config ({', '.join(known)}) nor a "
                f"Python file{nearest(name_or_path, known)}"
            )
    try:
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        delta = module.get_config()
        delta = delta.to_dict() if isinstance(delta, ConfigDict) else dict(delta)
    except Exception as error:  # the file is the user's own code: anything can happen in it
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UsageError(f"--config={name_or_path}: {path} failed with {reason}") from error
    return merge(default_config(), delta, where=str(path))


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


def check(config: ConfigDict) -> ConfigDict:
    """Returns `config` if every value can be used.

    Raises:
      UsageError: one line that quotes the key, the value and what is accepted.
    """
    values = dict(flatten(config))
    for key, choices in CHOICES.items():
        if values[key] not in choices:
            raise UsageError(
                f"config.{key}={values[key]!r} is not one of {', '.join(choices)}"
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
    if not 0 < config.data.crop_ratio <= 1:
        raise UsageError(f"config.data.crop_ratio={config.data.crop_ratio!r} must be in (0, 1]")
    _check_tuples(config)
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


def _check_augment(config: ConfigDict) -> None:
    from input_pipeline.augment.settings import check_augment  # loads no TensorFlow
    from input_pipeline.errors import DataError

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


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) for every leaf."""
    for key in config:
        value = config[key]
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differing_keys(ours: ConfigDict, theirs: ConfigDict) -> list[str]:
    """Returns "key: theirs -> ours" for every leaf that differs."""
    ours, theirs = dict(flatten(ours)), dict(flatten(theirs))
    return [f"{key}: {theirs[key]!r} -> {ours[key]!r}" for key in ours if ours[key] != theirs[key]]


def preprocessing(config: ConfigDict) -> dict[str, Any]:
    """Returns the preprocessing of `data.*` that evaluation and saved models use."""
    data = config.data
    return {
        "image_size": data.image_size,
        "crop_ratio": data.crop_ratio,
        "interpolation": data.interpolation,
        "mean": list(data.mean),
        "std": list(data.std),
        "channel_order": "rgb",
    }


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
