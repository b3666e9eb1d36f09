"""Random numbers in place of images."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.sources.base import Source


class Synthetic(Source):
    """As many examples as said, all of them noise."""

    is_synthetic = True

    def constant_batch(self, batch_size: int, image_size: int) -> dict[str, tf.Tensor]:
        """{"image": uint8[b, image_size, image_size, 3], "label": int32[b]}, ever the same.

        With `multi_label` "label" is float32[b, classes], one of them 1.
        """
        rng = np.random.default_rng(0)
        shape = (batch_size, image_size, image_size, 3)
        labels: Any = (np.arange(batch_size) % len(self.class_names)).astype(np.int32)
        if self.multi_label:
            labels = np.eye(len(self.class_names), dtype=np.float32)[labels]
        with tf.device("CPU:0"):
            return {
                "image": tf.constant(rng.integers(0, 256, shape, np.uint8)),
                "label": tf.constant(labels),
            }

    def training_order(self, **options: Any) -> tf.data.Dataset:
        raise DataError("Synthetic data has no order; take train_batches or constant_batch.")

    def evaluation_order(self, **options: Any) -> tf.data.Dataset:
        return self.training_order(**options)

    def labels(self) -> np.ndarray:
        """Each class in turn, as in the one batch that there is."""
        return np.arange(self.num_examples, dtype=np.int32) % len(self.class_names)

    def fetch(self, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise DataError("Synthetic data has no encoded images; take train_batches.")

    def records(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        return iter(())

    def example_name(self, example_id: Any) -> str:
        return self.title
