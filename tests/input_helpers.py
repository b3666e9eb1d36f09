"""What the tests of the input pipeline share: encoded images, image folders, small sources."""

import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_resnet.input_pipeline.sources.base import RandomAccessSource

PREPROCESSING = {
    "image_size": 8,
    "crop_ratio": 1.0,
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channel_order": "rgb",
}


def encode(image: Image.Image | np.ndarray, file_format: str = "PNG", **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def smooth_image(height: int, width: int, seed: int = 0) -> Image.Image:
    """An RGB image with structure at several scales, as photographs have."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, height // 8), max(2, width // 8), 3), np.uint8)
    image = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.integers(-12, 13, image.shape)
    return Image.fromarray(np.clip(image + noise, 0, 255).astype(np.uint8))


def write_images(folder: Path, classes: dict[str, int], size: int = 8) -> None:
    """`folder/CLASS/N.png` for N below the count of each class, all different."""
    for label, (name, count) in enumerate(sorted(classes.items())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = np.full((size, size, 3), (label, index, 7), np.uint8)
            (folder / name / f"{index}.png").write_bytes(encode(image))


class NumberedSource(RandomAccessSource):
    """`num_examples` images whose first pixel and whose label say which example it is."""

    def __init__(self, num_examples: int, size: int = 8):
        super().__init__(
            title="numbered",
            num_examples=num_examples,
            class_names=tuple(str(label) for label in range(num_examples)),
        )
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (num_examples, size, size, 3), np.uint8)
        images[:, 0, 0, 0] = np.arange(num_examples) % 256
        self.files = [encode(image) for image in images]
        self._encoded = tf.constant(self.files)

    def fetch(self, ids):
        return tf.gather(self._encoded, ids), tf.cast(ids, tf.int32)

    def records(self):
        return ((f"number {i}", lambda file=file: file) for i, file in enumerate(self.files))


def labels_of(dataset) -> np.ndarray:
    return np.concatenate([batch["label"] for batch in dataset.as_numpy_iterator()])


def images_of(dataset) -> np.ndarray:
    return np.concatenate([batch["image"] for batch in dataset.as_numpy_iterator()])
