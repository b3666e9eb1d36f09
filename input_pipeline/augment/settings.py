"""The augmentations: one row for each, from which everything else about it follows.

A row says how a configuration sets it, what is accepted, how many random numbers an image needs
and, for one that works on single images, what is done. A new one is a row here, with a function
that loads TensorFlow when it is called. docs/augmentation.md describes each with its source.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from keras_resnet.input_pipeline.augment import policies
from keras_resnet.input_pipeline.errors import DataError, unknown_name
from keras_resnet.input_pipeline.settings import (
    Setting,
    is_count,
    is_not_negative,
    is_share,
    is_switch,
)

Tensor = Any  # TensorFlow's, which is not loaded here


def _no_numbers(value: Any) -> int:
    return 0


def _as_drawn(value: Any, numbers: Tensor, image_shape: tuple[int, int]) -> Tensor:
    return numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation(Setting):
    """A setting of `data.augment`; its default means off.

    Attributes:
        random_count: from its value to the uniform random numbers that each image needs, which
            come from a stream of its own.
        prepare: from the value, the numbers float32[n, random_count] of a chunk and the height
            and width of its images to tensors of n rows, for `of_image`.
        of_image: from an image uint8[h, w, 3], the value and the image's rows of what `prepare`
            returned to the new image; None for what is not done to single images of equal size.
        modifies: it is no augmentation by itself, but goes with those named here.
    """

    random_count: Callable[[Any], int] = _no_numbers
    prepare: Callable[[Any, Tensor, tuple[int, int]], Any] = _as_drawn
    of_image: Callable[[Tensor, Any, Any], Tensor] | None = None
    modifies: tuple[str, ...] = ()

    def is_on(self, augment: Mapping[str, Any]) -> bool:
        """Whether these settings ask for it."""
        if self.modifies:
            return any(augment.get(name) for name in self.modifies)
        value = augment.get(self.name, self.default)
        return any(value) if isinstance(value, tuple | list) else value != self.default


def _is_jitter(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) in (0, 4)
        and all(is_not_negative(entry) for entry in value)
        and (not value or value[3] <= 0.5)
    )


def _is_policy(value: Any) -> bool:
    if value and isinstance(value, str):
        policies.parse_policy(value)
    return isinstance(value, str)


def _choose_operations(policy: str, numbers: Tensor, image_shape: tuple[int, int]) -> Any:
    return policies.parse_policy(policy).choose(numbers, image_shape)


def _run_operations(image: Tensor, policy: str, chosen: tuple[Tensor, Tensor]) -> Tensor:
    from keras_resnet.input_pipeline.augment import operations

    return operations.apply_row(image, *chosen, fill=policies.parse_policy(policy).fill)


def _color_jitter(image: Tensor, strengths: tuple[float, ...], numbers: Tensor) -> Tensor:
    from keras_resnet.input_pipeline.augment import color

    return color.color_jitter(image, numbers, strengths)


def _random_erasing(image: Tensor, probability: float, numbers: Tensor) -> Tensor:
    from keras_resnet.input_pipeline.augment import erasing

    return erasing.random_erasing(image, numbers, probability)


# Those of single images are applied in the order in which they stand here, which is timm's and
# torchvision's.
_ROWS = (
    Augmentation(
        name="crop_padding",
        default=0,
        help="Pads each side with so many black pixels and crops back to the old size at random.",
        accepts=is_count,
        accepted="a number of pixels, 0 or more",
        random_count=lambda value: 2,
    ),
    Augmentation(
        name="flip",
        default=False,
        help="Mirrors every second image on average, left to right.",
        accepts=is_switch,
        accepted="True or False",
        random_count=lambda value: 1,
    ),
    Augmentation(
        name="random_resized_crop",
        default=False,
        help="Takes a random part of 8 to 100 % of the area and resizes it (the Inception crop).",
        accepts=is_switch,
        accepted="True or False",
        random_count=lambda value: 22,  # areas and aspects of ten tries, row and column
    ),
    Augmentation(
        name="policy",
        default="",
        help="Applies randomly chosen operations: RandAugment, AutoAugment or TrivialAugment.",
        accepts=_is_policy,
        accepted=f"'' or one of {policies.KNOWN}",
        random_count=lambda value: policies.parse_policy(value).random_count,
        prepare=_choose_operations,
        of_image=_run_operations,
    ),
    Augmentation(
        name="color_jitter",
        default=(),
        help="Changes brightness, contrast, saturation and hue by at most these four strengths.",
        accepts=_is_jitter,
        accepted="() or four numbers (brightness, contrast, saturation, hue), 0 or more, hue up "
        "to 0.5",
        random_count=lambda value: 5,
        of_image=_color_jitter,
    ),
    Augmentation(
        name="random_erasing",
        default=0.0,
        help="Puts noise in place of a rectangle, with this probability.",
        accepts=is_share,
        accepted="a probability, 0..1",
        random_count=lambda value: 25,  # whether; areas and aspects of ten tries; place; noise
        of_image=_random_erasing,
    ),
    Augmentation(
        name="mixup",
        default=0.0,
        help="Blends pairs of images with weights from a beta distribution of this alpha.",
        accepts=is_not_negative,
        accepted="the alpha of a beta distribution, 0 or more",
    ),
    Augmentation(
        name="cutmix",
        default=0.0,
        help="Pastes a box of one image into another, its size by a beta distribution of this "
        "alpha; with mixup too, each batch takes one of them.",
        accepts=is_not_negative,
        accepted="the alpha of a beta distribution, 0 or more",
    ),
    Augmentation(
        name="mix_probability",
        default=1.0,
        help="The share of the batches that mixup and cutmix are applied to.",
        accepts=is_share,
        accepted="a probability, 0..1",
        modifies=("mixup", "cutmix"),
    ),
    Augmentation(
        name="repeats",
        default=1,
        help="How many times an example stands in a batch, augmented anew each time.",
        accepts=lambda value: is_count(value) and value >= 1,
        accepted="a number of times, 1 or more",
    ),
)
AUGMENTATIONS: dict[str, Augmentation] = {row.name: row for row in _ROWS}


def check_augment(augment: Mapping[str, Any]) -> dict[str, Any]:
    """The augmentations that are on, checked; `mix_probability` goes with mixup and cutmix.

    Raises:
        DataError: an unknown name, or a value that cannot be used.
    """
    for name, value in augment.items():
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
        AUGMENTATIONS[name].check(value, "Augmentation ")
    return {
        name: augment.get(name, row.default)
        for name, row in AUGMENTATIONS.items()
        if row.is_on(augment)
    }


def mixes(augment: Mapping[str, Any]) -> bool:
    """Whether batches are to be mixed, by mixup or CutMix."""
    return bool(augment.get("mixup") or augment.get("cutmix"))


def check_batch(augment: Mapping[str, Any], batch_size: int) -> None:
    """Raises DataError if a host's or replica's part of the batch cannot be mixed in pairs."""
    if mixes(augment) and batch_size % 2:
        raise DataError(
            f"mixup and CutMix mix pairs of images, but {batch_size} of a batch fall to each "
            f"host or replica; that must be even, such as {batch_size + 1}."
        )
