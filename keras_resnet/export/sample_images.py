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

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
BATCH = 32


@dataclasses.dataclass
class Samples:
    """Images as the network sees them.

    Attributes:
        batches: makes an iterator of (uint8 [n, size, size, 3], int [n] labels or None).
        description: for people, such as "1,000 images of photos/test".
    """

    batches: Callable[[], Iterator[tuple[np.ndarray, np.ndarray | None]]]
    description: str

    def first(self, count: int) -> np.ndarray:
        """The first `count` images, or all if there are fewer."""
        images = []
        for batch, _ in self.batches():
            images.append(batch)
            if sum(map(len, images)) >= count:
                break
        return np.concatenate(images)[:count]


def list_images(paths: Iterable[str | os.PathLike]) -> Iterator[Path]:
    """The files among `paths` and every image file in the folders among them, sorted by folder.

    Raises:
        UserError: a path does not exist.
    """
    for path in map(Path, paths):
        if path.is_dir():
            for parent, folders, files in os.walk(path):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                for name in sorted(files):
                    if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                        yield Path(parent, name)
        elif path.exists():
            yield path
        else:
            raise UserError(f"{path}: no such file or folder")


def of_files(paths, preprocessing: dict, class_names: tuple[str, ...], limit: int) -> Samples:
    """Image files; where a file's folder is named like a class, that is its label."""
    files = list(itertools.islice(list_images(paths), limit or None))
    if not files:
        raise UserError(f"--images={','.join(map(str, paths))}: no image files there")
    numbers = {name: label for label, name in enumerate(class_names)}
    labels = [numbers.get(file.parent.name, -1) for file in files]

    def batches():
        for start in range(0, len(files), BATCH):
            images = [_read(file, preprocessing) for file in files[start : start + BATCH]]
            truth = np.array(labels[start : start + BATCH])
            yield np.stack(images), None if -1 in labels else truth

    return Samples(batches, f"{len(files):,} given images")


def _read(file: Path, preprocessing: dict) -> np.ndarray:
    try:
        encoded = file.read_bytes()
        return input_pipeline.evaluation_image(tf.constant(encoded), preprocessing).numpy()
    except tf.errors.OpError as error:
        from keras_resnet.input_pipeline.corrupt_images import describe

        raise UserError(f"{file} {describe(encoded, error.message)}") from error


def of_source(source: input_pipeline.Source, preprocessing: dict, limit: int) -> Samples:
    """The evaluation split, in its order."""
    total = min(source.num_examples, limit or source.num_examples)

    def batches():
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

    return Samples(batches, f"{total:,} images of {source.description.partition(':')[0]}")


def drawn(preprocessing: dict, count: int = BATCH) -> Samples:
    """Smooth random images, when nobody gave any better."""
    images = smooth_images(count, preprocessing["image_size"])

    def batches():
        yield images, None

    return Samples(batches, f"{count} random images (no --images given: use real ones)")


def smooth_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, size, size, 3]: noise of several scales, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 8, 8, 3)).astype(np.float32)
    smooth = tf.image.resize(coarse, (size, size), "bicubic").numpy()
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
