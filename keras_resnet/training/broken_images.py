"""The name of the image that made a step fail, in place of TensorFlow's own message."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from keras_resnet import input_pipeline

_FAILURES = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.DataLossError,
    tf.errors.UnknownError,  # what an exception in Python becomes
)


@contextlib.contextmanager
def explain_broken_images(
    source: input_pipeline.Source, example_ids: Callable[[], Iterable] | None = None
) -> Iterator[None]:
    """Turns TensorFlow's error about an unreadable example into a DataError with its name.

    Args:
        source: that is read.
        example_ids: gives those of the examples to search, such as a step's; None searches all.
    """
    try:
        yield
    except _FAILURES as error:
        named = input_pipeline.find_corrupt_image(source, example_ids and example_ids())
        if named is None:
            raise
        raise named from error
