"""RandAugment, AutoAugment and TrivialAugment: each policy in one piece. Standard library only.

A policy turns an image's random numbers into a few (operation, argument) pairs, for a whole chunk
of images at once; `operations` then runs only the chosen operation on an image. Chances, tables
and ranges are those of timm (RandAugment) and torchvision (the others), quoted below. A new policy
is a class or a table here, and its name in `POLICIES`.
"""

import dataclasses
import re
from typing import Any, Protocol

from keras_resnet.input_pipeline.errors import DataError, did_you_mean

Tensor = Any  # TensorFlow's, which the functions that need it load
Color = tuple[int, int, int]

# timm fills with ImageNet's mean color; torchvision's default is black.
_MEAN_COLOR = (124, 116, 104)
_BLACK = (0, 0, 0)

_ENHANCEMENTS = ("Color", "Contrast", "Brightness", "Sharpness")

# timm's rand_augment_transform: argument = base ± slope × magnitude, cut to a whole number where
# "whole". Translations are in fractions of the image's side.
_RAND_ROWS = {
    # name: (base, slope, with random sign, whole)
    "AutoContrast": (0, 0, False, False),
    "Equalize": (0, 0, False, False),
    "Invert": (0, 0, False, False),
    "Rotate": (0, 3.0, True, False),
    "Posterize": (0, 0.4, False, True),
    "Solarize": (0, 25.6, False, True),
    "SolarizeAdd": (0, 11.0, False, True),
    "Color": (0.1, 0.18, False, False),
    "Contrast": (0.1, 0.18, False, False),
    "Brightness": (0.1, 0.18, False, False),
    "Sharpness": (0.1, 0.18, False, False),
    "ShearX": (0, 0.03, True, False),
    "ShearY": (0, 0.03, True, False),
    "TranslateX": (0, 0.045, True, False),
    "TranslateY": (0, 0.045, True, False),
}
# What `inc1` replaces: a negative slope, or a random sign around "no change".
_INCREASING_ROWS = {
    "Posterize": (4, -0.4, False, True),
    "Solarize": (256, -25.6, False, True),
    **dict.fromkeys(_ENHANCEMENTS, (1.0, 0.09, True, False)),
}

# Cubuk et al. 2019 (AutoAugment), tables 9 (ImageNet) and 7 (CIFAR-10), as torchvision has them:
# 25 pairs of (operation, probability, magnitude 0..9).
_IMAGENET_POLICY = """
Posterize .4 8 Rotate .6 9; Solarize .6 5 AutoContrast .6 0; Equalize .8 0 Equalize .6 0
Posterize .6 7 Posterize .6 6; Equalize .4 0 Solarize .2 4; Equalize .4 0 Rotate .8 8
Solarize .6 3 Equalize .6 0; Posterize .8 5 Equalize 1 0; Rotate .2 3 Solarize .6 8
Equalize .6 0 Posterize .4 6; Rotate .8 8 Color .4 0; Rotate .4 9 Equalize .6 0
Equalize 0 0 Equalize .8 0; Invert .6 0 Equalize 1 0; Color .6 4 Contrast 1 8
Rotate .8 8 Color 1 2; Color .8 8 Solarize .8 7; Sharpness .4 7 Invert .6 0
ShearX .6 5 Equalize 1 0; Color .4 0 Equalize .6 0; Equalize .4 0 Solarize .2 4
Solarize .6 5 AutoContrast .6 0; Invert .6 0 Equalize 1 0; Color .6 4 Contrast 1 8
Equalize .8 0 Equalize .6 0
"""
_CIFAR10_POLICY = """
Invert .1 0 Contrast .2 6; Rotate .7 2 TranslateX .3 9; Sharpness .8 1 Sharpness .9 3
ShearY .5 8 TranslateY .7 9; AutoContrast .5 0 Equalize .9 0; ShearY .2 7 Posterize .3 7
Color .4 3 Brightness .6 7; Sharpness .3 9 Brightness .7 9; Equalize .6 0 Equalize .5 0
Contrast .6 7 Sharpness .6 5; Color .7 7 TranslateX .5 8; Equalize .3 0 AutoContrast .4 0
TranslateY .4 3 Sharpness .2 6; Brightness .9 6 Color .2 8; Solarize .5 2 Invert 0 0
Equalize .2 0 AutoContrast .6 0; Equalize .2 0 Equalize .6 0; Color .9 9 Equalize .6 0
AutoContrast .8 0 Solarize .2 8; Brightness .1 3 Color .7 0; Solarize .4 5 AutoContrast .9 0
TranslateY .9 9 TranslateY .7 9; AutoContrast .9 0 Solarize .8 3; Equalize .8 0 Invert .1 0
TranslateY .7 9 AutoContrast .9 0
"""


class Policy(Protocol):
    """What the pipeline needs to know of a policy."""

    @property
    def random_count(self) -> int:
        """How many uniform random numbers an image needs."""

    @property
    def fill(self) -> Color:
        """RGB color of what operations move into the image."""

    def choose(self, numbers: Tensor, image_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What to do with each image.

        Args:
            numbers: float32[n, random_count] in [0, 1).
            image_shape: height and width in pixels.

        Returns:
            int32[n, layers] places in `operations.NAMES`, and their arguments, float32[n, layers].
        """


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """RandAugment (Cubuk et al. 2020) in timm's notation: `rand-m9-mstd0.5` and so on.

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

    fill = _MEAN_COLOR

    @property
    def random_count(self) -> int:
        return 4 * self.layers

    def choose(self, numbers: Tensor, image_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `Policy`."""
        from keras_resnet.input_pipeline.augment import operations

        height, width = image_shape
        rows = {**_RAND_ROWS, **(_INCREASING_ROWS if self.increasing else {})}
        return operations.choose_by_magnitude(
            rows,
            numbers,
            layers=self.layers,
            probability=self.probability,
            magnitude=self.magnitude,
            magnitude_std=self.magnitude_std,
            scales={"TranslateX": width, "TranslateY": height},
            least=dict.fromkeys(_ENHANCEMENTS, 0.1),
        )


@dataclasses.dataclass(frozen=True)
class AutoAugment:
    """One of 25 pairs of operations, each applied with its own probability.

    Attributes:
        table: two rows of (operation, probability, magnitude 0..9) a pair, separated by ";".
    """

    table: str

    fill = _BLACK
    random_count = 5

    def choose(self, numbers: Tensor, image_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `Policy`."""
        from keras_resnet.input_pipeline.augment import operations

        pairs = []
        for text in self.table.strip().replace("\n", ";").split(";"):
            first, second = text.split()[:3], text.split()[3:]
            pairs.append([self._row(first, image_shape), self._row(second, image_shape)])
        return operations.choose_pairs(pairs, numbers)

    @staticmethod
    def _row(
        words: list[str], image_shape: tuple[int, int]
    ) -> tuple[str, float, float, float, bool]:
        """(operation, probability, base, amount, random sign).

        The argument is torchvision's AutoAugment._augmentation_space in 10 steps.
        """
        name, probability, magnitude = words
        share = int(magnitude) / 9
        height, width = image_shape
        base, amount, signed = {
            "ShearX": (0, 0.3 * share, True),
            "ShearY": (0, 0.3 * share, True),
            "TranslateX": (0, int(150 / 331 * width * share), True),
            "TranslateY": (0, int(150 / 331 * height * share), True),
            "Rotate": (0, 30 * share, True),
            **dict.fromkeys(_ENHANCEMENTS, (1, 0.9 * share, True)),
            "Posterize": (8 - round(4 * share), 0, False),
            "Solarize": (255 - 255 * share, 0, False),
        }.get(name, (0, 0, False))
        return name, float(probability), base, amount, signed


@dataclasses.dataclass(frozen=True)
class TrivialAugment:
    """Müller and Hutter 2021, table 2 ("Wide"): one operation, its strength uniform in 31 steps."""

    fill = _BLACK
    random_count = 3

    def choose(self, numbers: Tensor, image_shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """See `Policy`."""
        from keras_resnet.input_pipeline.augment import operations

        steps = [step * (1 / 30) for step in range(30)] + [1.0]
        none = [0.0] * len(steps)
        shear = [0.99 * step for step in steps]
        shift = [float(int(32 * step)) for step in steps]
        # name: (base, amounts, with random sign)
        rows = {
            "Identity": (0.0, none, False),
            "ShearX": (0.0, shear, True),
            "ShearY": (0.0, shear, True),
            "TranslateX": (0.0, shift, True),
            "TranslateY": (0.0, shift, True),
            "Rotate": (0.0, [135 * step for step in steps], True),
            **dict.fromkeys(_ENHANCEMENTS, (1.0, [0.99 * step for step in steps], True)),
            "Posterize": (0.0, [8.0 - round(step / 5) for step in range(31)], False),
            "Solarize": (0.0, [255 - 255 * step for step in steps], False),
            "AutoContrast": (0.0, none, False),
            "Equalize": (0.0, none, False),
        }
        return operations.choose_one(rows, numbers)


# The policies without options by name; `rand` has options and is read by `parse_policy`.
POLICIES: dict[str, Policy] = {
    "auto-imagenet": AutoAugment(_IMAGENET_POLICY),
    "auto-cifar10": AutoAugment(_CIFAR10_POLICY),
    "trivial": TrivialAugment(),
}
_NAMES = list(POLICIES)
KNOWN = f"rand-m9-mstd0.5 (also n, p, inc), {', '.join(_NAMES[:-1])} or {_NAMES[-1]}"
_RAND_OPTIONS: dict[str, tuple[str, type, float, float, str]] = {
    # name: (attribute, type, lowest, highest, both in words)
    "m": ("magnitude", float, 0, 10, "0..10"),
    "mstd": ("magnitude_std", float, 0, float("inf"), "0 or more"),
    "n": ("layers", int, 1, 15, "1..15"),
    "p": ("probability", float, 0, 1, "0..1"),
    "inc": ("increasing", int, 0, 1, "0 or 1"),
}


def parse_policy(policy: str) -> Policy:
    """A policy as configs write it: one of POLICIES, or a `RandAugment`.

    Raises:
        DataError: it is neither.
    """
    if policy in POLICIES:
        return POLICIES[policy]
    first, *options = policy.split("-")
    if first != "rand":
        raise DataError(
            f"Unknown augmentation policy {policy!r}.{did_you_mean(policy, POLICIES)} "
            f"Known: {KNOWN}."
        )
    values: dict[str, Any] = {}
    for option in options:
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", option)
        row = _RAND_OPTIONS.get(found[1]) if found else None
        if found is None or row is None or (row[1] is int and "." in found[2]):
            raise DataError(
                f"Augmentation policy {policy!r}: {option!r} is none of m, mstd, n, p and inc "
                "followed by a number (n and inc by a whole one)."
            )
        name, kind, lowest, highest, accepted = row
        values[name] = kind(found[2])
        if not lowest <= values[name] <= highest:
            raise DataError(f"Augmentation policy {policy!r}: {option!r} must be in {accepted}.")
    return RandAugment(**{**values, "increasing": bool(values.get("increasing", 0))})
