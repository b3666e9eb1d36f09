"""Training augmentation. Every random number is a function of (seed, step, place in the batch).

Each augmentation takes its numbers from a stream of its own, drawn for the whole global batch,
so that adding one leaves the others as they were, and several hosts together make the very batch
that one host would make. docs/augmentation.md describes each key with its source.

    settings   the augmentations, a row for each: value, check, help, random numbers, what is done
    policies   RandAugment and its kin, a piece for each
    pipeline   the order in which the augmentations are applied, and drawing their random numbers
    crop       random resized crop, crop with padding, flip
    pixels, geometry   single operations, as PIL computes them
    operations, color, erasing   what is done to an image with them
    mixing     mixup and CutMix: numbers for the batch, and the mixing on the device
    repeats    repeated augmentation

What is named here loads no TensorFlow; `settings` and `policies` do not either.
"""

from keras_resnet.input_pipeline.augment.settings import (
    AUGMENTATIONS,
    check_augment,
    check_batch,
    mixes,
)

__all__ = ["AUGMENTATIONS", "check_augment", "check_batch", "mixes"]
