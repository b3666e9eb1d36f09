"""Training augmentation. Every random number is a function of (seed, step, place in the batch).

Each augmentation takes its numbers from a stream of its own, drawn for the whole global batch,
so that adding one leaves the others as they were, and several hosts together make the very batch
that one host would make. docs/augmentation.md describes each key with its source.

    settings   the keys and their checks; loads no TensorFlow
    pipeline   the order in which the augmentations are applied, and their random numbers
    crop       random resized crop, crop with padding, flip
    pixels, geometry   single operations, as PIL computes them
    color, policies, erasing   what uses them
    mixing     mixup and CutMix: numbers for the batch, and the mixing on the device
    repeats    repeated augmentation

Names are imported on first use, so that `input_pipeline.augment.settings` alone costs nothing.
"""

import importlib

_EXPORTS = {
    "AUGMENTATIONS": "settings",
    "augment_images": "pipeline",
    "batch_extras": "pipeline",
    "check_augment": "settings",
    "check_batch": "pipeline",
    "crop_and_flip": "crop",
    "crop_window": "crop",
    "major_labels": "mixing",
    "mix_images": "mixing",
    "mix_targets": "mixing",
    "random_numbers": "pipeline",
    "random_resized_crop": "crop",
    "training_handles": "repeats",
    "training_image": "pipeline",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
