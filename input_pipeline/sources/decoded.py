"""A small set of large photos, kept decoded and shrunk: what `data.cache=decoded` does.

The same photo is decoded in each epoch, and a photo of 12 megapixels takes ten times as long as the
rest of a training image. So each large JPEG is decoded once, at the smallest of a half, a quarter
and an eighth of its sides that leaves twice those wanted, and its pixels go into a packed file
(`caching.PackedFile`), which any order is read from. Everything else is kept as it is.

What a run sees depends on the images alone, not on what is on the disk: a photo that is not there
is decoded and shrunk in the same way when it is read. So a run that was killed, has lost the file
or has no room for it goes on with the same batches. `tf.data`'s own cache holds one order of
elements and begins again after a kill.
"""

import errno
import functools
import hashlib
import itertools
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.decoding import is_jpeg, ratio_of_window, whole_image
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.formats import exif, jpeg, shrunk
from keras_resnet.input_pipeline.places import in_bucket
from keras_resnet.input_pipeline.sources import caching
from keras_resnet.input_pipeline.sources.base import RandomAccessSource, Source
from keras_resnet.input_pipeline.sources.memory import readable

# Of the space that is left on a disk, how much the photos of a split may take, and how much at all.
SHARE_OF_DISK = 0.5
MOST_BYTES = 16 * 2**30
# Photos that are held while they are decoded: a phone's and its pixels take 7 MB.
_AT_ONCE = 4

_log = logging.getLogger("input_pipeline")


class Decoded(caching.Cached):
    """Large JPEGs as pixels at a part of their size, in a packed file where there is room."""

    of_cache = True

    def __init__(self, source: Source, side: int, folder: str):
        """Raises DataError unless `source` reads any example at once.

        Args:
            source: images as they are stored.
            side: what the short side is resized to; twice that is kept.
            folder: on a local disk, for the packed file; "" for none.
        """
        if not isinstance(source, RandomAccessSource):
            raise DataError(
                "cache='decoded' is for sources that read any image at once, such as image_folder; "
                f"{source.title} is a stream of records. Set data.cache to memory or file."
            )
        super().__init__(source)
        self._images, self._side, self._folder = source, side, folder
        self._packed: caching.PackedFile | None = None
        self._is_prepared = False

    def prepare(self) -> None:
        if self._is_prepared:
            return
        self._is_prepared = True
        try:
            self._packed = self._pack()
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            why = "the disk is full" if full else error.strerror or error
            self._go_without(f"{self._folder} cannot be written: {why}")

    def labels(self) -> np.ndarray:
        return self._images.labels()

    def read(self, example_id: Any) -> bytes:
        return self._images.read(example_id)

    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope(), tf.device("CPU:0"):
            labels = tf.constant(self.labels())
        encoded = tf.numpy_function(self._read, [ids], tf.string, stateful=False)
        return tf.ensure_shape(encoded, ids.shape), tf.gather(labels, ids)

    def _read(self, ids: np.ndarray) -> np.ndarray:
        if self._packed is not None:
            return self._packed.read_images(ids)
        images = np.empty(len(ids), object)
        for place, example_id in enumerate(ids):
            images[place] = self._whole(example_id)
        return images

    def _whole(self, example_id: Any) -> bytes:
        return self._shrink(self._images.read(example_id))

    def _shrink(self, encoded: bytes) -> bytes:
        return shrink(encoded, self._side, self.max_pixels)

    def _pack(self) -> caching.PackedFile | None:
        """The packed file, found or written; None where there is none.

        Raises:
            OSError: it cannot be written.
        """
        if not self._folder or in_bucket(self._folder):
            if self._folder:
                self._go_without(f"{self._folder} is not on a local disk")
            return None
        root = Path(self._folder).expanduser()
        key: list[Any] = [self._images.fingerprint(), self.description, self.class_names]
        key += [self._side, self.max_pixels, tf.__version__]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        folder = caching.packed_folder(root, self.title, name)
        if not caching.is_whole(folder):
            root.mkdir(parents=True, exist_ok=True)
            limit = min(MOST_BYTES, int(SHARE_OF_DISK * shutil.disk_usage(root).free))
            _log.warning(
                "keeping    the %d images of %s decoded and shrunk, in %s",
                self.num_examples,
                self.title,
                folder,
            )
            if not caching.write_packed(folder, self.title, self._chunks(), limit):
                self._go_without(
                    f"they take more than {readable(limit)}, the most that is used of {root}"
                )
                return None
        return caching.PackedFile(self._images, folder, self._whole)

    def _go_without(self, why: str) -> None:
        _log.warning(
            "%s: %s. Photos are decoded in every epoch instead, with the same result.",
            self.description,
            why,
        )

    def _chunks(self) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """All images as they are kept, some at a time, and their labels."""
        labels, readers = self.labels(), (read for _, read in self._images.records())
        place = 0
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(itertools.islice(readers, _AT_ONCE)):
                images = list(pool.map(lambda read: self._shrink(read()), some))
                yield images, labels[place : place + len(some)]
                place += len(some)


def shrink(encoded: bytes, side: int, max_pixels: int) -> bytes:
    """An image as it is kept: of a large JPEG what `formats.shrunk` writes, else itself.

    What cannot be decoded stays itself, too: the pipeline says what is wrong with it.
    """
    if encoded.startswith(shrunk.START):  # of a file that somebody made so it is no image
        return b""
    try:
        with tf.device("CPU:0"):
            ratio, whole, pixels, orientation = _decoder(side, max_pixels)(tf.constant(encoded))
    except tf.errors.OpError:
        return encoded
    if int(ratio) == 1:
        return encoded
    return shrunk.write(pixels.numpy(), whole.numpy(), int(ratio), int(orientation))


@functools.lru_cache(maxsize=8)
def _decoder(side: int, max_pixels: int) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """What takes an image file, string [], and is traced once for all threads.

    It returns ratio, height and width as stored, the pixels and EXIF's orientation; of ratio 1 no
    pixels.
    """

    def decode(encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
        def large():
            whole = tf.stack(jpeg.size(encoded, max_pixels))
            shrinks = tf.cast(tf.reduce_min(whole), tf.float32) / side
            ratio = ratio_of_window(whole_image(whole), shrinks, "auto")
            window = whole_image((whole + ratio - 1) // ratio)
            pixels = tf.cond(
                ratio > 1,
                lambda: jpeg.decode_window(encoded, window, ratio),
                lambda: tf.zeros([0, 0, 3], tf.uint8),
            )
            return ratio, whole, pixels, exif.orientation(encoded)

        def other():
            return 1, tf.zeros([2], tf.int32), tf.zeros([0, 0, 3], tf.uint8), 1

        return tf.cond(is_jpeg(encoded), large, other)

    spec = tf.TensorSpec([], tf.string)
    return tf.function(decode, autograph=False).get_concrete_function(spec)
