"""What TFDS has prepared: builder, features, files, and formats that are no TFRecord."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_resnet.input_pipeline import digits
from keras_resnet.input_pipeline.errors import DataError, did_you_mean
from keras_resnet.input_pipeline.sources.record_files import RecordFileSource


class OtherFileFormat(RecordFileSource):
    """A set prepared as array_record, riegeli and so on: read in order, so only to fill a cache."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str, **description: Any):
        super().__init__(**description)
        self._builder, self._split = builder, split

    def training_order(self, **options: Any) -> tf.data.Dataset:
        raise DataError(
            f"{self.title} is prepared as {self._builder.info.file_format.value}, which cannot be "
            "streamed: set data.cache to memory or file, or prepare it as tfrecord "
            "(tfds build --file_format=tfrecord)."
        )

    def evaluation_order(self, **options: Any) -> tf.data.Dataset:
        return self.training_order(**options)

    def records(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        names = (
            f"record {skip + index} of {file}"
            for file, skip, take in self._slices
            for index in range(take)
        )
        for name, (encoded, _) in zip(names, self._pairs().as_numpy_iterator(), strict=True):
            yield name, functools.partial(bytes, encoded)

    def chunks(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        for encoded, labels in self._pairs().batch(256):
            yield encoded, tf.cast(labels, tf.int32)

    def _pairs(self) -> tf.data.Dataset:
        examples = self._builder.as_dataset(
            split=self._split,
            shuffle_files=False,
            decoders={self._image_key: tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1),
        )
        return examples.map(lambda example: (example[self._image_key], example[self._label_key]))


def prepared_builder(name: str, path: str) -> tfds.core.DatasetBuilder:
    """The builder of a set that is prepared; `digits` is prepared here.

    Raises:
        DataError: no name, no such set, or it is not prepared.
    """
    if not name:
        raise DataError("The source tfds needs the name of a data set (data.name), e.g. 'digits'.")
    data_dir = os.path.expanduser(path) or None
    builder = _builder(name, data_dir)
    if digits.is_prepared(builder):
        return builder
    if builder.name == digits.Digits.name:
        digits.prepare(data_dir)
        return _builder(name, data_dir)
    place = data_dir or tfds.core.constants.DATA_DIR
    raise DataError(
        f"The TFDS data set {name!r} is not prepared in {place}. Prepare it once with "
        f"'tfds build {name} --data_dir={place}', or name the folder that holds it (data.path)."
    )


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        near = did_you_mean(name, tfds.list_builders(with_community_datasets=False))
        raise DataError(f"TFDS knows no data set {name!r}.{near}") from error
    except (AssertionError, ValueError, OSError, RuntimeError) as error:
        raise DataError(f"Cannot open the TFDS data set {name!r}: {_first_line(error)}") from error


def find_features(builder: tfds.core.DatasetBuilder) -> tuple[str, str]:
    """The keys of the image and the label.

    Raises:
        DataError: there is not one of each that counts, or the images have another dtype.
    """
    features = builder.info.features
    images = [key for key, value in features.items() if type(value) is tfds.features.Image]
    labels = [key for key, value in features.items() if type(value) is tfds.features.ClassLabel]
    # A set with several of a kind says which ones count.
    supervised = builder.info.supervised_keys or ()
    image = [key for key in images if key in supervised] or images
    label = [key for key in labels if key in supervised] or labels
    if len(image) != 1 or len(label) != 1:
        kinds = ", ".join(f"{key}: {type(value).__name__}" for key, value in features.items())
        raise DataError(
            f"{builder.name} is no image classification set: it needs one Image and one "
            f"ClassLabel and has {kinds}."
        )
    dtype = np.dtype(features[image[0]].np_dtype).name
    if dtype not in ("uint8", "uint16"):
        raise DataError(f"The images of {builder.name} are {dtype}; uint8 and uint16 can be read.")
    return image[0], label[0]


def file_slices(builder: tfds.core.DatasetBuilder, name: str, split: str) -> list:
    """TFDS' file instructions of a split, those that take records.

    Raises:
        DataError: there is no such split, or it selects no images.
    """
    known = ", ".join(
        f"{key} ({value.num_examples:,})" for key, value in builder.info.splits.items()
    )
    try:
        parts = [part for part in builder.info.splits[split].file_instructions if part.take]
    except (AssertionError, KeyError, ValueError) as error:
        raise DataError(
            f"{name} has no split {split!r} ({_first_line(error)}). Its splits: {known}; "
            "slices are written as in 'train[:80%]'."
        ) from error
    if not parts:
        raise DataError(f"The split {split!r} of {name} selects no images. Its splits: {known}.")
    return parts


def _first_line(error: Exception) -> str:
    return (str(error).strip("'\"") or type(error).__name__).splitlines()[0]
