"""The image input pipeline: source → order → decode and crop → augment → batch.

It knows TensorFlow and TFDS and nothing of the models. `tf.data` batches leave it as uint8;
`normalize` turns them into what a model takes, on the device.

    source = open_source("tfds", name="digits", split="train")
    for batch in train_batches(source, batch_size=128, seed=0, num_steps=100, image_size=32,
                               augment={"crop_padding": 4}):
        batch["image"], batch["label"]    # uint8[128, 32, 32, 3], int32[128]

Names are imported on first use, so that `input_pipeline.errors` alone costs nothing.
"""

import importlib

_EXPORTS = {
    "AUGMENTATIONS": "keras_resnet.input_pipeline.augment",
    "DataError": "keras_resnet.input_pipeline.errors",
    "SkippedImages": "keras_resnet.input_pipeline.corrupt_images",
    "Source": "keras_resnet.input_pipeline.sources.base",
    "evaluation_batches": "keras_resnet.input_pipeline.batching",
    "evaluation_image": "keras_resnet.input_pipeline.preprocessing",
    "find_corrupt_image": "keras_resnet.input_pipeline.corrupt_images",
    "normalize": "keras_resnet.input_pipeline.preprocessing",
    "open_source": "keras_resnet.input_pipeline.sources",
    "train_batches": "keras_resnet.input_pipeline.batching",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
