"""The name of the image that made a step fail, in place of TensorFlow's own message."""

from collections.abc import Callable, Iterable

import tensorflow as tf

from keras_resnet import input_pipeline


class explain_broken_images:
    """Turns TensorFlow's error about an unreadable example into a DataError with its name.

    Attributes:
        handles: gives those of the examples to search, such as a step's; None searches the source.
    """

    def __init__(self, source: input_pipeline.Source):
        self.source = source
        self.handles: Callable[[], Iterable] | None = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        failures = (
            tf.errors.InvalidArgumentError,
            tf.errors.NotFoundError,
            tf.errors.DataLossError,
            tf.errors.UnknownError,  # what an exception in Python becomes
        )
        if isinstance(error, failures):
            named = input_pipeline.find_corrupt_image(self.source, self.handles and self.handles())
            if named is not None:
                raise named from error
        return False
