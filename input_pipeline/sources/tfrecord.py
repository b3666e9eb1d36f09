"""The source `tfrecord`: TFRecord files in the layout that the ImageNet scripts for TPUs write.

    PATH/train-00000-of-01024 …        PATH/validation-00000-of-00128 …

Each record is a tf.train.Example with `image/encoded` (the file) and `image/class/label`. The files
may be gzipped, with or without .gz behind their names. PATH is a local folder or on a bucket
(`gs://…`).
"""

import os
from typing import TYPE_CHECKING

from keras_resnet.input_pipeline.errors import DataError, did_you_mean, reason
from keras_resnet.input_pipeline.settings import Setting
from keras_resnet.input_pipeline.sources import splits
from keras_resnet.input_pipeline.sources.kind import SourceKind
from keras_resnet.printing import from_bytes

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.sources.record_files import FileSlice, RecordFileSource


def open_split(
    *, name: str, path: str, split: str, label_offset: int, class_names: str
) -> "RecordFileSource":
    """Opens `split` of the record files in the folder `path`; `name` is not used.

    Args:
        label_offset: the stored label of class 0: 1 where the scripts kept 0 for "background".
        class_names: a text file with one name a line; "" numbers the classes that occur in the
            parts of the splits asked for.

    Raises:
        DataError: no such folder or split, files of a split are missing or damaged, records of
            another layout, or labels that do not fit the class names.
    """
    from keras_resnet.input_pipeline.sources import record_index
    from keras_resnet.input_pipeline.sources.record_files import RecordFileSource, cut

    files = record_index.find_files(path)
    indices: dict[str, record_index.Index] = {}

    def size(part: str) -> int:
        if part not in files:
            raise DataError(
                f"{path} has no split {part!r}.{did_you_mean(part, files)} "
                f"Its splits: {', '.join(sorted(files))}."
            )
        if part not in indices:
            indices[part] = record_index.read_index(path, part, files[part])
        return sum(row["records"] for row in indices[part].values())

    slices: list[FileSlice] = []
    for part, chosen in splits.select(split, size):
        whole = [(file, 0, row["records"]) for file, row in indices[part].items() if row["records"]]
        slices += cut(whole, chosen.start, chosen.stop)
    if not slices:
        raise DataError(f"The split {split!r} of {path} selects no images.")
    if not class_names:  # all splits, so that training and evaluation agree on the classes
        for part in files:
            size(part)
    rows = [row for index in indices.values() for row in index.values() if row["records"]]
    return RecordFileSource(
        title=f"{os.path.basename(path.rstrip('/')) or path} {split}",
        class_names=_class_names(class_names, rows, label_offset),
        slices=slices,
        record_bytes=sum(row["bytes"] for row in rows) // sum(row["records"] for row in rows),
        image_key=record_index.IMAGE_KEY,
        label_key=record_index.LABEL_KEY,
        label_offset=label_offset,
        gzipped=[file for index in indices.values() for file in index if index[file].get("gzip")],
    )


def _class_names(file: str, rows: list[dict[str, int]], offset: int) -> tuple[str, ...]:
    import tensorflow as tf

    lowest, highest = (min(row["lowest"] for row in rows), max(row["highest"] for row in rows))
    if lowest < offset:
        raise DataError(
            f"The lowest stored label is {lowest}, below label_offset={offset}; "
            f"set data.label_offset={max(0, lowest)}."
        )
    if not file:
        return tuple(str(label) for label in range(highest - offset + 1))
    try:
        with tf.io.gfile.GFile(os.path.expanduser(file), "rb") as opened:
            lines = from_bytes(opened.read()).split("\n")
            names = tuple(line.strip() for line in lines if line.strip())
    except tf.errors.OpError as error:
        raise DataError(f"class_names={file}: cannot be read: {reason(error)}") from error
    if highest - offset >= len(names):
        raise DataError(
            f"{file} names {len(names):,} classes, but the stored labels go up to {highest} with "
            f"label_offset={offset}: one name a line, in the order of the labels, and an offset of "
            "1 where the labels start at 1."
        )
    return names


SOURCE = SourceKind(
    name="tfrecord",
    help="the record files of the ImageNet scripts for TPUs",
    open_split=open_split,
    settings=(
        Setting(
            name="label_offset",
            default=0,
            help="For tfrecord: the stored label that is class 0.",
            accepts=lambda value: type(value) is int,
            accepted="a whole number",
        ),
        Setting(
            name="class_names",
            default="",
            help="For tfrecord: a text file with one class name a line; '' numbers the classes.",
        ),
    ),
)
