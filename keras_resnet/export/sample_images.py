"""Images to measure an export on: given files, the evaluation split, or drawn ones."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet import input_pipeline
from keras_resnet.errors import UserError
from keras_resnet.input_pipeline.corrupt_images import describe
from keras_resnet.input_pipeline.image_listing import list_images
from keras_resnet.preprocessing import Preprocessing

BATCH = 32
# (uint8 [n, size, size, 3], int [n] labels or None), one batch after the other.
Batches = Iterator[tuple[np.ndarray, np.ndarray | None]]


@dataclasses.dataclass
class Samples:
    """Images as the network sees them.

    Attributes:
        batches: starts over at the first image.
        description: for people, such as "1,000 images of photos/test".
    """

    batches: Callable[[], Batches]
    description: str

    def first(self, count: int) -> np.ndarray:
        """The first `count` images, or all if there are fewer."""
        images = []
        for batch, _ in self.batches():
            images.append(batch)
            if sum(map(len, images)) >= count:
                break
        return np.concatenate(images)[:count]


def of_files(
    paths: Iterable[str | os.PathLike],
    preprocessing: Preprocessing,
    class_names: tuple[str, ...],
    limit: int,
) -> Samples:
    """Image files; where a file's folder is named like a class, that is its label.

    Args:
        paths: files, and folders of which every image file is taken.
        preprocessing: of the network.
        class_names: of the network.
        limit: number of images, 0 for all.

    Raises:
        UserError: a path does not exist, or there are no images.
    """
    paths = list(paths)
    files = list(itertools.islice(list_images(paths), limit or None))
    if not files:
        raise UserError(f"--images={','.join(map(str, paths))}: no image files there")
    numbers = {name: label for label, name in enumerate(class_names)}
    labels = [numbers.get(file.parent.name, -1) for file in files]

    def batches() -> Batches:
        for start in range(0, len(files), BATCH):
            images = [_read(file, preprocessing) for file in files[start : start + BATCH]]
            truth = np.array(labels[start : start + BATCH])
            yield np.stack(images), None if -1 in labels else truth

    return Samples(batches, f"{len(files):,} given images")


def _read(file: Path, preprocessing: Preprocessing) -> np.ndarray:
    try:
        encoded = file.read_bytes()
        return input_pipeline.evaluation_image(tf.constant(encoded), preprocessing).numpy()
    except tf.errors.OpError as error:
        raise UserError(f"{file} {describe(encoded, ValueError(error.message))}") from error


def of_source(source: input_pipeline.Source, preprocessing: Preprocessing, limit: int) -> Samples:
    """The evaluation split, in its order."""
    total = min(source.num_examples, limit or source.num_examples)

    def batches() -> Batches:
        left = total
        for batch in input_pipeline.evaluation_batches(
            source, batch_size=BATCH, preprocessing=preprocessing
        ):
            count = min(left, int(batch["mask"].numpy().sum()))
            if count:
                yield batch["image"].numpy()[:count], batch["label"].numpy()[:count]
            left -= count
            if not left:
                return

    return Samples(batches, f"{total:,} images of {source.title}")


def drawn(preprocessing: Preprocessing, count: int = BATCH) -> Samples:
    """Smooth random images, when nobody gave any better."""
    images = smooth_images(count, preprocessing.image_size)

    def batches() -> Batches:
        yield images, None

    return Samples(batches, f"{count} random images (no --images given: use real ones)")


def smooth_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, size, size, 3]: noise of several scales, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 8, 8, 3)).astype(np.float32)
    smooth = tf.image.resize(coarse, (size, size), "bicubic").numpy()
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
