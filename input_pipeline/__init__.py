"""The image input pipeline: source → order → decode and crop → augment → batch.

It knows TensorFlow and TFDS and nothing of the models; of the package it uses `preprocessing` and
`errors`. `tf.data` batches leave it as uint8;
`normalize` turns them into what a model takes, on the device.

    source = open_source("tfds", name="digits", split="train")
    for batch in train_batches(source, batch_size=128, seed=0, num_steps=100, image_size=32,
                               augment={"crop_padding": 4}):
        batch["image"], batch["label"]    # uint8[128, 32, 32, 3], int32[128]

Names are imported on first use, so that `input_pipeline.errors` alone costs nothing.
"""

from typing import TYPE_CHECKING

from keras_resnet.lazy import lazy_names

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.augment.settings import AUGMENTATIONS as AUGMENTATIONS
    from keras_resnet.input_pipeline.batching import evaluation_batches as evaluation_batches
    from keras_resnet.input_pipeline.batching import train_batches as train_batches
    from keras_resnet.input_pipeline.corrupt_images import SkippedImages as SkippedImages
    from keras_resnet.input_pipeline.corrupt_images import find_corrupt_image as find_corrupt_image
    from keras_resnet.input_pipeline.errors import DataError as DataError
    from keras_resnet.input_pipeline.preprocessing import evaluation_image as evaluation_image
    from keras_resnet.input_pipeline.preprocessing import normalize as normalize
    from keras_resnet.input_pipeline.preprocessing import resized_side as resized_side
    from keras_resnet.input_pipeline.sources import open_source as open_source
    from keras_resnet.input_pipeline.sources.base import Source as Source
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "augment.settings": ["AUGMENTATIONS"],
            "batching": ["evaluation_batches", "train_batches"],
            "corrupt_images": ["SkippedImages", "find_corrupt_image"],
            "errors": ["DataError"],
            "preprocessing": ["evaluation_image", "normalize", "resized_side"],
            "sources": ["open_source"],
            "sources.base": ["Source"],
        },
    )
