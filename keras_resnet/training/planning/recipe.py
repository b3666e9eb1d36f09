"""Network, image size, batch, epochs and rates for some photos, a device and some minutes."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from keras_resnet.config.image_sizes import image_sizes
from keras_resnet.training.planning.device import Device, reading_seconds

# From random weights, the most able first: network, image size, least number of training images.
_NETWORKS = (
    ("ResNet50", 224, 20_000),
    ("ResNet34", 224, 5_000),
    ("ResNet18", 224, 0),
    ("ResNet18", 160, 0),
    ("ResNet18", 128, 0),
    ("ResNet18", 96, 0),
    ("ResNet18", 64, 0),
    ("CifarResNet20", 32, 0),
)
_SMALL = 56  # images up to so many pixels go into networks for CIFAR's
_ENLARGED = 1.15  # more than by this no photo is enlarged
# The part of the wanted epochs for which a larger network or image is still the better choice.
_ENOUGH = 0.5
_LEAST_EPOCHS = 3
# Images of a step on one device, and the steps that an epoch should have.
_BATCH, _STEPS = {"CPU": 32, "GPU": 64, "TPU": 256}, 20
_SMALLEST_BATCH = 8
# Photos are kept decoded where that takes so many bytes at most, and each is read so many times.
_KEPT_BYTES, _KEPT_EPOCHS = 4 * 2**30, 3
_JUDGES = 50  # validation images, of fewer the accuracy moves in steps of more than 2 points


@dataclasses.dataclass(frozen=True)
class Photos:
    """What a recipe depends on.

    Attributes:
        count: of training images.
        validation: of images to choose the best checkpoint by.
        height: median, in pixels.
        width: median, in pixels.
        jpegs: the share of JPEGs.
    """

    count: int
    validation: int
    height: int
    width: int
    jpegs: float = 1.0

    def ratio(self, side: int) -> int:
        """How many times shorter the sides of most are decoded when they become `side` pixels."""
        short = min(self.height, self.width)
        fitting = [ratio for ratio in (2, 4, 8) if short >= 2 * ratio * side]
        return max([1, *fitting]) if self.jpegs >= 0.5 else 1

    def kept_bytes(self, ratio: int) -> float:
        """What data.cache=decoded takes for images to train on and to choose by."""
        return (self.count + self.validation) * self.height * self.width * 3 / ratio**2


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights to start from: of which network, and for images of which size."""

    network: str
    image_size: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What was chosen: keys of the config, and about how long it takes."""

    values: dict[str, Any]
    minutes: float
    wanted_epochs: int
    kept_bytes: float = 0.0


def choose(
    photos: Photos,
    device: Device,
    minutes: float,
    pretrained: Pretrained | None,
    given: Mapping[str, Any],
) -> Recipe:
    """Chooses what `given`, keys of the config that are set already, leaves open."""
    wanted = _wanted_epochs(photos.count, pretrained)
    batch_size = given.get("batch_size", _batch_size(photos.count, device))
    for network, size in _candidates(photos, pretrained, given):
        reading = _reading_seconds(photos, size, wanted, device, given)
        per_image = device.seconds_of_image(multiply_adds(network, size), reading, batch_size)
        affordable = int(60 * minutes / (per_image * photos.count))
        if affordable >= _ENOUGH * wanted:
            break
    epochs = given.get("epochs", max(_LEAST_EPOCHS, min(wanted, affordable)))
    keeps = _keeps_decoded(photos, size, epochs, device, given)
    values = {
        **({"data.cache": "decoded"} if keeps else {}),
        "model.name": network,
        "data.image_size": size,
        "epochs": epochs,
        "batch_size": batch_size,
        "evaluate_every_epochs": math.ceil(epochs / 40),
        "checkpoint.every_epochs": math.ceil(epochs / 10),
        "loss.label_smoothing": 0.1,
        # The best of a few evaluations on some images is the one that was lucky.
        "checkpoint.model": "best" if photos.validation >= _JUDGES else "newest",
        # Without a pod nothing speaks against leaving out a photo that is cut off.
        "data.on_error": "stop" if device.kind == "TPU" else "skip",
    } | dict(given)
    more = _fine_tuning(values) if pretrained else _from_scratch(values)
    seconds = epochs * photos.count * per_image
    augmentation = _augmentation(size)
    kept_bytes = photos.kept_bytes(photos.ratio(size)) if keeps else 0.0
    return Recipe({**augmentation, **more, **values}, seconds / 60, wanted, kept_bytes)


def _keeps_decoded(
    photos: Photos, size: int, epochs: int, device: Device, given: Mapping[str, Any]
) -> bool:
    """Whether large photos are kept decoded: few of them, each read several times."""
    ratio = photos.ratio(size)
    return (
        device.kind != "TPU"  # a pod keeps nothing on its host
        and given.get("data.cache", "decoded") == "decoded"
        and given.get("data.scaled_decoding") != "never"
        and ratio > 1
        and epochs >= _KEPT_EPOCHS
        and photos.kept_bytes(ratio) <= _KEPT_BYTES
    )


def _reading_seconds(
    photos: Photos, size: int, epochs: int, device: Device, given: Mapping[str, Any]
) -> float:
    """Of a core, for one image in one epoch."""
    pixels = photos.height * photos.width
    scaled = given.get("data.scaled_decoding") != "never"
    ratio = photos.ratio(size) if scaled else 1
    once = reading_seconds(pixels, ratio)
    if not _keeps_decoded(photos, size, epochs, device, given):
        return once
    return reading_seconds(pixels, ratio, kept=True) + once / epochs


def _candidates(
    photos: Photos, pretrained: Pretrained | None, given: Mapping[str, Any]
) -> Iterator[tuple[str, int]]:
    """(network, image size), the most able first."""
    short = min(photos.height, photos.width)
    if pretrained is not None:
        size = pretrained.image_size
        sizes = [size, *(other for other in (160, 128, 96) if size >= 1.25 * other)]
        choices = [(pretrained.network, size) for size in sizes]
    elif short <= _SMALL:
        choices = [("CifarResNet20", max(16, 8 * round(short / 8)))]
    else:
        choices = [
            (network, size)
            for network, size, least in _NETWORKS
            if photos.count >= least and size <= _ENLARGED * short
        ]
    for network, size in choices:
        given_sizes = image_sizes(given.get("data.image_size", size)).sizes
        yield given.get("model.name", network), max(given_sizes)


def _wanted_epochs(count: int, pretrained: Pretrained | None) -> int:
    """The fewer images, the more often each is seen; good networks need fewer steps."""
    if pretrained is None:
        of_thousand, least, most = 150, 20, 300
    elif pretrained.image_size <= _SMALL:  # it has learned little that others can use
        of_thousand, least, most = 80, 10, 150
    else:
        of_thousand, least, most = 20, 5, 40
    return max(least, min(most, round(of_thousand * (1000 / count) ** 0.4)))


def _batch_size(count: int, device: Device) -> int:
    size = _BATCH[device.kind]
    if device.kind == "GPU" and count >= 20_000:
        size *= 2
    while size > _SMALLEST_BATCH and count < _STEPS * size * device.count:
        size //= 2
    return size * device.count


def _augmentation(size: int) -> dict[str, Any]:
    """Crops and mirrored images: those of CIFAR's networks, or of ImageNet's."""
    small = size <= _SMALL
    crop = {"crop_padding": size // 8} if small else {"random_resized_crop": True}
    return {
        **{f"data.augment.{key}": value for key, value in crop.items()},
        "data.augment.flip": True,
        "data.crop_ratio": 1.0 if small else 0.875,
    }


def _from_scratch(values: Mapping[str, Any]) -> dict[str, Any]:
    """He et al. 2015 with the regularization of small sets."""
    return {
        "optimizer.learning_rate": min(0.1 * values["batch_size"] / 128, 0.4),
        "optimizer.weight_decay": 5e-4,
        "schedule.warmup_epochs": max(1.0, round(0.05 * values["epochs"], 1)),
    }


def _fine_tuning(values: Mapping[str, Any]) -> dict[str, Any]:
    """The classifier alone, then all, with smaller rates below (Howard and Ruder 2018).

    The features of networks for CIFAR's images are made anew, for the most part: docs/results.md.
    """
    first = max(1, values["epochs"] // 5)
    size = max(image_sizes(values["data.image_size"]).sizes)
    rate, decay = (0.025, 0.8) if size <= _SMALL else (0.01, 0.5)
    staged = "model.freeze" not in values and first < values["epochs"]
    return {
        **({"model.freeze": "body", "model.unfreeze_epoch": first} if staged else {}),
        "optimizer.learning_rate": min(rate * values["batch_size"] / 32, 8 * rate),
        "optimizer.weight_decay": 1e-4,
        "optimizer.layer_decay": decay,
        "schedule.warmup_epochs": 0.5,
    }


@functools.cache
def multiply_adds(network: str, size: int) -> float:
    """Returns about what the forward pass of a network costs for an image of `size` pixels."""
    from keras_resnet.architectures import get_architecture

    native = get_architecture(network).image_size
    return _native_multiply_adds(network) * (size / native) ** 2


@functools.cache
def _native_multiply_adds(network: str) -> int:
    from keras_resnet.models import create_model
    from keras_resnet.models.costs import profile

    return profile(create_model(network)).multiply_adds
