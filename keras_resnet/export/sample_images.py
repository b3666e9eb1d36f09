"""Images to measure an export on: given files, the evaluation split, or drawn ones."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_resnet import input_pipeline
from keras_resnet.errors import UserError
from keras_resnet.input_pipeline.corrupt_images import describe
from keras_resnet.input_pipeline.image_listing import list_images
from keras_resnet.input_pipeline.sources.base import RandomAccessSource
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
        are_drawn: whether nobody gave any images, and these are noise.
    """

    batches: Callable[[], Batches]
    description: str
    are_drawn: bool = False

    def first(self, count: int) -> np.ndarray:
        """The first `count` images, or all if there are fewer."""
        images = []
        for batch, _ in self.batches():
            images.append(batch)
            if sum(map(len, images)) >= count:
                break
        return np.concatenate(images)[:count]

    def refuse_drawn(self) -> None:
        """Raises UserError where these are noise, by which nothing is learned."""
        if self.are_drawn:
            raise UserError(
                "int8 learns the ranges of its activations from images, and there are none: name "
                "some as the network will see, --calibration=PATHS (a hundred or more, of all "
                "classes), or export from the work directory of a run, which has them"
            )


def of_files(
    paths: Iterable[str | os.PathLike],
    preprocessing: Preprocessing,
    class_names: tuple[str, ...],
    limit: int,
    option: str = "images",
) -> Samples:
    """Image files; where a file's folder is named like a class, that is its label.

    Args:
        paths: files, and folders of which every image file is taken.
        preprocessing: of the network.
        class_names: of the network.
        limit: number of images, 0 for all. They are drawn, the same ones each time, as the list may
            be one of class after class.
        option: the command's, for messages.

    Raises:
        UserError: a path does not exist, or there are no images.
    """
    paths = list(paths)
    files = list(list_images(paths))
    if not files:
        raise UserError(f"--{option}={','.join(map(str, paths))}: no image files there")
    files = [files[place] for place in _some_of(len(files), limit)]
    numbers = {name: label for label, name in enumerate(class_names)}
    labels = [numbers.get(file.parent.name, -1) for file in files]

    def batches() -> Batches:
        for start in range(0, len(files), BATCH):
            images = [_read(file, preprocessing) for file in files[start : start + BATCH]]
            truth = np.array(labels[start : start + BATCH])
            yield np.stack(images), None if -1 in labels else truth

    return Samples(batches, f"{len(files):,} images of {', '.join(map(str, paths))}")


def _some_of(total: int, limit: int) -> np.ndarray:
    """Numbers of `limit` examples of `total` in rising order; of all of them if it is 0.

    Drawn, as every n-th one may be of the same class.
    """
    return np.sort(np.random.default_rng(0).permutation(total)[: limit or total])


def _read(file: Path, preprocessing: Preprocessing) -> np.ndarray:
    return _decode(file.read_bytes(), preprocessing, str(file))


def _decode(encoded: bytes, preprocessing: Preprocessing, name: str, **options) -> np.ndarray:
    image = tf.constant(encoded)
    try:
        return input_pipeline.evaluation_image(image, preprocessing, **options).numpy()
    except tf.errors.OpError as error:
        raise UserError(f"{name} {describe(encoded, ValueError(error.message))}") from error


def of_source(source: input_pipeline.Source, preprocessing: Preprocessing, limit: int) -> Samples:
    """Images of a split, in its order; `limit` of them, as in `of_files`, or all if it is 0.

    Record files are read from their beginning, as their images were shuffled when they were
    written.
    """
    total = min(source.num_examples, limit or source.num_examples)
    description = f"{total:,} images of {source.title}"
    if total < source.num_examples and isinstance(source, RandomAccessSource):
        return Samples(lambda: _some(source, preprocessing, total), description)

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

    return Samples(batches, description)


def _some(source: RandomAccessSource, preprocessing: Preprocessing, limit: int) -> Batches:
    source.prepare()
    numbers = _some_of(source.num_examples, limit)
    for start in range(0, limit, BATCH):
        chosen = numbers[start : start + BATCH]
        encoded, labels = source.fetch(tf.constant(chosen))
        images = [
            _decode(file, preprocessing, source.example_name(number), of_cache=source.of_cache)
            for number, file in zip(chosen, encoded.numpy(), strict=True)
        ]
        yield np.stack(images), labels.numpy()


def drawn(preprocessing: Preprocessing, count: int = BATCH) -> Samples:
    """Smooth random images, when nobody gave any better."""
    images = smooth_images(count, preprocessing.image_size)

    def batches() -> Batches:
        yield images, None

    return Samples(
        batches, f"{count} random images (no --images given: use real ones)", are_drawn=True
    )


def smooth_images(count: int, size: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, size, size, 3]: noise of several scales, as photographs have."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 8, 8, 3)).astype(np.float32)
    smooth = tf.image.resize(coarse, (size, size), "bicubic").numpy()
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
