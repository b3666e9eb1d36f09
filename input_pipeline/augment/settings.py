"""The keys of augmentation and what they may be set to. Standard library only."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from keras_resnet.input_pipeline.errors import DataError, did_you_mean, unknown_name


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """RandAugment in timm's notation: `rand-m9-mstd0.5` and so on.

    Attributes:
        magnitude: `m`, 0..10; timm's M.
        magnitude_std: `mstd`, standard deviation of the magnitude, which stays in 0..10.
        layers: `n`, operations drawn for each image, with replacement.
        probability: `p`, that a drawn operation is applied.
        increasing: `inc1`, every operation gets stronger as the magnitude grows.
    """

    magnitude: float = 10.0
    magnitude_std: float = 0.0
    layers: int = 2
    probability: float = 0.5
    increasing: bool = False


# Policies without options: name -> description.
FIXED_POLICIES = ("auto-imagenet", "auto-cifar10", "trivial")
_POLICIES = "rand-m9-mstd0.5 (also n, p, inc), auto-imagenet, auto-cifar10 or trivial"
_RAND_OPTIONS = {
    "m": ("magnitude", float, lambda value: 0 <= value <= 10, "0..10"),
    "mstd": ("magnitude_std", float, lambda value: value >= 0, "0 or more"),
    "n": ("layers", int, lambda value: 1 <= value <= 15, "1..15"),
    "p": ("probability", float, lambda value: 0 <= value <= 1, "0..1"),
    "inc": ("increasing", int, lambda value: value in (0, 1), "0 or 1"),
}


def parse_policy(policy: str) -> RandAugment | str:
    """A policy as configs write it: a `RandAugment`, or one of FIXED_POLICIES.

    Raises:
        DataError: it is neither.
    """
    if policy in FIXED_POLICIES:
        return policy
    first, *options = policy.split("-")
    if first != "rand":
        raise DataError(
            f"Unknown augmentation policy {policy!r}.{did_you_mean(policy, FIXED_POLICIES)} "
            f"Known: {_POLICIES}."
        )
    values = {}
    for option in options:
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", option)
        name, kind, accepts, accepted = _RAND_OPTIONS.get(found[1] if found else "", [None] * 4)
        if name is None or (kind is int and "." in found[2]):
            raise DataError(
                f"Augmentation policy {policy!r}: {option!r} is none of m, mstd, n, p and inc "
                "followed by a number (n and inc by a whole one)."
            )
        values[name] = kind(found[2])
        if not accepts(values[name]):
            raise DataError(f"Augmentation policy {policy!r}: {option!r} must be in {accepted}.")
    return RandAugment(**{**values, "increasing": bool(values.get("increasing", 0))})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_pixels(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_switch(value: Any) -> bool:
    return type(value) is bool


def _is_probability(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_alpha(value: Any) -> bool:
    return _is_number(value) and 0 <= value < float("inf")


def _is_jitter(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) in (0, 4)
        and all(_is_number(entry) and 0 <= entry < float("inf") for entry in value)
        and (not value or value[3] <= 0.5)
    )


def _is_policy(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    if value:
        parse_policy(value)
    return True


def _is_repeats(value: Any) -> bool:
    return type(value) is int and value >= 1


_JITTER = "() or four numbers (brightness, contrast, saturation, hue), 0 or more, hue up to 0.5"


class Augmentation(NamedTuple):
    """What is known of one augmentation: what it can be set to, and the value that means off."""

    accepts: Callable[[Any], bool]
    accepted: str
    default: Any
    help: str


AUGMENTATIONS: dict[str, Augmentation] = {
    name: Augmentation(*row)
    for name, *row in (
        ("crop_padding", _is_pixels, "a number of pixels, 0 or more", 0,
         "Pads each side with so many black pixels and crops back to the old size at random."),
        ("flip", _is_switch, "True or False", False,
         "Mirrors every second image on average, left to right."),
        ("random_resized_crop", _is_switch, "True or False", False,
         "Takes a random part of 8 to 100 % of the area and resizes it (the Inception crop)."),
        ("policy", _is_policy, f"'' or one of {_POLICIES}", "",
         "Applies randomly chosen operations: RandAugment, AutoAugment or TrivialAugment."),
        ("color_jitter", _is_jitter, _JITTER, (),
         "Changes brightness, contrast, saturation and hue by at most these four strengths."),
        ("random_erasing", _is_probability, "a probability, 0..1", 0.0,
         "Puts noise in place of a rectangle, with this probability."),
        ("mixup", _is_alpha, "the alpha of a beta distribution, 0 or more", 0.0,
         "Blends pairs of images with weights from a beta distribution of this alpha."),
        ("cutmix", _is_alpha, "the alpha of a beta distribution, 0 or more", 0.0,
         "Pastes a box of one image into another, its size by a beta distribution of this alpha."),
        ("mix_probability", _is_probability, "a probability, 0..1", 1.0,
         "The share of the batches that mixup and cutmix are applied to."),
        ("repeats", _is_repeats, "a number of times, 1 or more", 1,
         "How many times an example stands in a batch, augmented anew each time."),
    )
}  # fmt: skip


def check_augment(augment: Mapping[str, Any]) -> dict[str, Any]:
    """The augmentations that are on, checked; `mix_probability` goes with mixup and cutmix.

    Raises:
        DataError: an unknown name, or a value that cannot be used.
    """
    augment = dict(augment)
    for name, value in augment.items():
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
        accepts, accepted, *_ = AUGMENTATIONS[name]
        if not accepts(value):
            raise DataError(f"Augmentation {name} is {value!r}; it must be {accepted}.")
    checked = {name: value for name, value in augment.items() if _is_on(name, value)}
    if mixes(checked):
        checked["mix_probability"] = float(augment.get("mix_probability", 1.0))
    return checked


def _is_on(name: str, value: Any) -> bool:
    if name == "mix_probability":  # kept with mixup and cutmix only
        return False
    if name == "color_jitter":
        return any(value)
    return value != AUGMENTATIONS[name].default


def mixes(augment: Mapping[str, Any]) -> bool:
    """Whether batches are to be mixed, by mixup or CutMix."""
    return bool(augment.get("mixup") or augment.get("cutmix"))
