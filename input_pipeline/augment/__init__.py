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

from typing import TYPE_CHECKING

from keras_resnet.lazy import lazy_names

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.augment.crop import crop_and_flip as crop_and_flip
    from keras_resnet.input_pipeline.augment.crop import crop_window as crop_window
    from keras_resnet.input_pipeline.augment.crop import random_resized_crop as random_resized_crop
    from keras_resnet.input_pipeline.augment.mixing import major_labels as major_labels
    from keras_resnet.input_pipeline.augment.mixing import mix_images as mix_images
    from keras_resnet.input_pipeline.augment.mixing import mix_targets as mix_targets
    from keras_resnet.input_pipeline.augment.pipeline import augment_images as augment_images
    from keras_resnet.input_pipeline.augment.pipeline import batch_extras as batch_extras
    from keras_resnet.input_pipeline.augment.pipeline import check_batch as check_batch
    from keras_resnet.input_pipeline.augment.pipeline import random_numbers as random_numbers
    from keras_resnet.input_pipeline.augment.pipeline import training_image as training_image
    from keras_resnet.input_pipeline.augment.repeats import training_handles as training_handles
    from keras_resnet.input_pipeline.augment.settings import AUGMENTATIONS as AUGMENTATIONS
    from keras_resnet.input_pipeline.augment.settings import check_augment as check_augment
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "crop": ["crop_and_flip", "crop_window", "random_resized_crop"],
            "mixing": ["major_labels", "mix_images", "mix_targets"],
            "pipeline": [
                "augment_images",
                "batch_extras",
                "check_batch",
                "random_numbers",
                "training_image",
            ],
            "repeats": ["training_handles"],
            "settings": ["AUGMENTATIONS", "check_augment"],
        },
    )
