"""The source `tfds`: any TFDS set with an image and a label per example, decoded by us."""

from typing import TYPE_CHECKING, Any

from keras_resnet.input_pipeline.sources.kind import SourceKind

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.sources.base import Source


def open_split(*, name: str, path: str, split: str) -> "Source":
    """Opens `split` of the prepared data set `name` in the data_dir `path` ("" for the default).

    Raises:
        DataError: no such data set or split, not prepared, or no image classification.
    """
    import tensorflow as tf

    from keras_resnet.input_pipeline.sources import prepared_sets
    from keras_resnet.input_pipeline.sources.record_files import RecordFileSource

    builder = prepared_sets.prepared_builder(name, path)
    image_key, label_key = prepared_sets.find_features(builder)
    parts = prepared_sets.file_slices(builder, name, split)
    num_examples = sum(part.take for part in parts)
    size = sum(
        tf.io.gfile.stat(part.filename).length * part.take // part.examples_in_shard
        for part in parts
    )
    common: dict[str, Any] = {
        "title": f"{name} {split}",
        "class_names": tuple(builder.info.features[label_key].names),
        "slices": [(part.filename, part.skip, part.take) for part in parts],
        "record_bytes": size // num_examples,
        "image_key": image_key,
        "label_key": label_key,
    }
    if builder.info.file_format.value == "tfrecord":
        return RecordFileSource(**common)
    return prepared_sets.OtherFileFormat(builder, split, **common)


SOURCE = SourceKind("tfds", "TensorFlow Datasets, those of images with a class", open_split)
