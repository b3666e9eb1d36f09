"""What the rest of the pipeline needs to know about a data set."""

import abc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline import label_sets, order
from keras_resnet.input_pipeline.corrupt_images import SkippedImages
from keras_resnet.preprocessing import MAX_PIXELS

_CHUNK = 256


class Source(abc.ABC):
    """One split of a data set: encoded images with their labels, and a name for error messages.

    Examples travel through `tf.data` as ids until `fetch` turns a few of them at a time, in
    parallel, into encoded images. An id is whatever the source can make an ordered row of cheaply
    and read an example by: an index, or a serialized record with its name.

    Attributes:
        num_examples: at least 1.
        class_names: position i names label i.
        description: for people, as in "digits train: 1,437 images, 10 classes".
        layout: for people, one line on how files were found to lie; "" where nothing was to find.
        skipped: where corrupt images are noted and skipped; None stops at the first one.
        upright: whether training turns images as their EXIF says. (Evaluation does what the
            preprocessing of the model says.)
        max_pixels: how many pixels an image may claim to have, see `formats.limits`.
        scaled_decoding: as in `Preprocessing`, in training.
        multi_label: an image may have several labels or none; `fetch` and `labels` then give rows
            of 0 and 1, uint8[n, classes], in place of int32[n].
        of_cache: whether `fetch` gives what a cache has decoded, see `decoding.decode_window`.
        is_synthetic: there are no files, and batches are made without decoding.
        labels_at_hand: `labels` costs no reading beyond what training reads anyway.
    """

    layout = ""
    skipped: SkippedImages | None = None
    upright = False
    max_pixels = MAX_PIXELS
    scaled_decoding = "never"
    multi_label = False
    of_cache = False
    is_synthetic = False
    labels_at_hand = False

    def __init__(self, *, title: str, num_examples: int, class_names: tuple[str, ...]):
        self.num_examples = num_examples
        self.class_names = class_names
        self.title = title
        self.description = f"{title}: {num_examples:,} images, {len(class_names)} classes"

    @property
    def decoding(self) -> dict[str, Any]:
        """How training decodes the images: arguments of `decoding.decode_window`."""
        names = ("upright", "max_pixels", "scaled_decoding", "of_cache")
        return {name: getattr(self, name) for name in names}

    @abc.abstractmethod
    def training_order(
        self, *, batch_size: int, seed: int, start_step: int, shard_index: int, num_shards: int
    ) -> tf.data.Dataset:
        """Endless batches of `batch_size // num_shards` ids, from batch `start_step` on.

        Every epoch is a fresh permutation, batches run across the borders of epochs, and the
        hosts (shards) together read every example once an epoch.
        """

    @abc.abstractmethod
    def evaluation_order(self, *, shard_index: int, num_shards: int) -> tf.data.Dataset:
        """Single ids of `order.shard_range(num_examples, …)`, each once."""

    def prepare(self) -> None:  # noqa: B027 (most sources have nothing to prepare)
        """Reads what `fetch` needs at hand, before a graph with it is built.

        `fetch` would do it itself, but a graph that makes variables is built twice.
        """

    @abc.abstractmethod
    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Handles [n, …] -> encoded images string[n] and labels; runs inside the graph.

        Returns:
            Of the labels int32[n], with `multi_label` uint8[n, classes].
        """

    def read(self, example_id: Any) -> bytes:
        """The encoded image of the example with this id (numpy)."""
        with tf.device("CPU:0"):
            encoded, _ = self.fetch(tf.constant(np.asarray(example_id)[None]))
        return encoded.numpy()[0]

    @abc.abstractmethod
    def records(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Every example's name and a function that reads its encoded image, in order."""

    @abc.abstractmethod
    def example_name(self, example_id: Any) -> str:
        """The name in error messages of the example with this id (numpy)."""

    def constant_batch(self, batch_size: int, image_size: int) -> dict[str, tf.Tensor]:
        """Of a synthetic source its one batch, {"image": uint8[b, s, s, 3], "label": int32[b]}."""
        raise NotImplementedError(f"{type(self).__name__} is not synthetic.")

    def encoded_bytes(self) -> int:
        """About how many bytes all encoded images take together."""
        raise NotImplementedError(f"{type(self).__name__} cannot be cached.")

    def fingerprint(self) -> str:
        """Changes whenever the files behind the split do."""
        raise NotImplementedError(f"{type(self).__name__} cannot be cached.")

    def chunks(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """What `fetch` gives of all examples, a few hundred at a time, in the order of records."""
        raise NotImplementedError(f"{type(self).__name__} cannot be cached.")

    def labels(self) -> np.ndarray:
        """int32[num_examples], in the order of records; most sources read all examples for it.

        With `multi_label` uint8[num_examples, classes].
        """
        with tf.init_scope():
            return np.concatenate([labels.numpy() for _, labels in self.chunks()])

    def label_text(self, label: Any) -> str:
        """The class of an example with this label; of several what `label_sets.join` gives."""
        if not self.multi_label:
            return self.class_names[label]
        return label_sets.join([self.class_names[number] for number in np.flatnonzero(label)])

    def label_cell(self, label: Any) -> str:
        """The same as a cell of a CSV file, from which a table is read exactly."""
        if not self.multi_label:
            return label_sets.join([self.class_names[label]])
        return self.label_text(label)

    def class_counts(self) -> np.ndarray:
        """int64[classes]: the examples of each class."""
        if self.multi_label:
            return self.labels().sum(axis=0, dtype=np.int64)
        return np.bincount(self.labels(), minlength=len(self.class_names))


class RandomAccessSource(Source):
    """A source that reads any example at once: its ids are indices, and seeking is free."""

    def training_order(
        self, *, batch_size: int, seed: int, start_step: int, shard_index: int, num_shards: int
    ) -> tf.data.Dataset:
        batches = order.training_indices(
            self.num_examples, batch_size=batch_size, seed=seed, start_step=start_step
        )
        size = batch_size // num_shards
        return batches.map(lambda batch: batch[shard_index * size : (shard_index + 1) * size])

    def evaluation_order(self, *, shard_index: int, num_shards: int) -> tf.data.Dataset:
        return tf.data.Dataset.range(*order.shard_range(self.num_examples, shard_index, num_shards))

    def example_name(self, example_id: Any) -> str:
        return f"{self.title}: image {int(example_id)}"

    def chunks(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        ids = tf.data.Dataset.range(self.num_examples).batch(_CHUNK)
        yield from ids.map(self.fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
