"""The images of a split, in batches for a model or one by one by name. Loads TensorFlow."""

from collections.abc import Iterable, Iterator

import keras
import tensorflow as tf

from keras_resnet.explain.photos import Batch, decode
from keras_resnet.input_pipeline import Source
from keras_resnet.training.broken_images import explain_broken_images


def batches_of(
    source: Source, model: keras.Model, batch_size: int, limit: int
) -> Iterator[tuple[Batch, list[int]]]:
    """Yields batches of the images of a split, and the labels of those that can be read.

    Args:
        source: the split.
        model: for which the images are prepared.
        batch_size: images at a time.
        limit: of a larger split every second, third, ... image is read, at most so many.

    Raises:
        input_pipeline.DataError: a file cannot be read; what cannot be decoded is a problem of its
            batch.
    """
    source.prepare()
    ids = source.evaluation_order(shard_index=0, num_shards=1)
    ids = ids.shard(-(-source.num_examples // limit), 0).batch(batch_size)
    with explain_broken_images(source):
        for some in ids:
            with tf.device("CPU:0"):
                encoded, labels = source.fetch(some)
            names = [source.example_name(one) for one in some.numpy()]
            contents = list(zip(names, encoded.numpy().tolist(), strict=True))
            batch = decode(names, contents, model)
            pairs = zip(names, labels.numpy().tolist(), strict=True)
            yield batch, [label for name, label in pairs if name not in batch.problems]


def encoded_images(source: Source, names: Iterable[str]) -> dict[str, bytes]:
    """The image files of a split with the given names."""
    wanted = set(names)
    found: dict[str, bytes] = {}
    with explain_broken_images(source):
        for name, read in source.records():
            if name in wanted:
                found[name] = read()
                if len(found) == len(wanted):
                    break
    return found
