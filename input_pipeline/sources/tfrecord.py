"""TFRecord files in the layout that the ImageNet scripts for TPUs write.

    PATH/train-00000-of-01024 …        PATH/validation-00000-of-00128 …

Each record is a tf.train.Example with `image/encoded` (the file) and `image/class/label`. PATH is
a local folder or on a bucket (`gs://…`). Such files do not say how many records they hold, so
they are read through once, and what was found is written beside them as SPLIT.index.json.
"""

import json
import logging
import os
import re
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf

from keras_resnet.input_pipeline.errors import DataError, did_you_mean, reason
from keras_resnet.input_pipeline.sources import splits
from keras_resnet.input_pipeline.sources.record_files import FileSlice, RecordFileSource, cut

IMAGE_KEY = "image/encoded"
LABEL_KEY = "image/class/label"
_FILE = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<total>\d{5})")
_VERSION = 1

_log = logging.getLogger("input_pipeline")


def open_split(
    *, name: str, path: str, split: str, label_offset: int, class_names: str
) -> RecordFileSource:
    """Opens `split` of the record files in the folder `path`; `name` is not used.

    Args:
        label_offset: the stored label of class 0: 1 where the scripts kept 0 for "background".
        class_names: a text file with one name a line; "" numbers the classes that occur in the
            parts of the splits asked for.

    Raises:
        DataError: no such folder or split, files of a split are missing or damaged, records of
            another layout, or labels that do not fit the class names.
    """
    files = find_files(path)
    indices = {}

    def size(part: str) -> int:
        if part not in files:
            raise DataError(
                f"{path} has no split {part!r}.{did_you_mean(part, files)} "
                f"Its splits: {', '.join(sorted(files))}."
            )
        if part not in indices:
            indices[part] = read_index(path, part, files[part])
        return sum(row["records"] for row in indices[part].values())

    slices = [piece for part, chosen in splits.select(split, size)
              for piece in _slices(indices[part], chosen)]  # fmt: skip
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
        image_key=IMAGE_KEY,
        label_key=LABEL_KEY,
        label_offset=label_offset,
    )


def find_files(path: str) -> dict[str, list[str]]:
    """Split name -> its files in order.

    Raises:
        DataError: no path, no such folder, no such files in it, or some of a split are missing.
    """
    if not path:
        raise DataError("The source tfrecord needs a path: a folder of record files (data.path).")
    folder = os.path.expanduser(path)
    try:
        listed = sorted(tf.io.gfile.listdir(folder))
    except tf.errors.OpError as error:
        raise DataError(f"The folder {path} cannot be listed: {reason(error)}") from error
    totals: dict[str, set[str]] = {}
    found: dict[str, dict[int, str]] = {}
    for name in listed:
        if match := _FILE.fullmatch(name):
            split = match["split"]
            totals.setdefault(split, set()).add(match["total"])
            found.setdefault(split, {})[int(match["index"])] = os.path.join(folder, name)
    if not found:
        raise DataError(
            f"The folder {path} holds no files named like train-00000-of-01024; "
            f"it holds {', '.join(listed[:5]) or 'nothing'}{' …' if len(listed) > 5 else ''}."
        )
    return {split: _complete(path, split, found[split], totals[split]) for split in found}


def _complete(path: str, split: str, found: dict[int, str], totals: set[str]) -> list[str]:
    if len(totals) > 1:
        raise DataError(
            f"{path} holds files of the split {split!r} of several sets: of {', of '.join(totals)} "
            "files each. Keep one set in a folder."
        )
    [total] = totals
    missing = sorted(set(range(int(total))) - set(found))
    if missing or len(found) > int(total):
        names = ", ".join(f"{split}-{index:05d}-of-{total}" for index in missing[:5])
        raise DataError(
            f"{path}: {len(missing):,} of the {int(total):,} files of the split {split!r} are "
            f"missing: {names}{' …' if len(missing) > 5 else ''}. Copy them again."
        )
    return [found[index] for index in sorted(found)]


def read_index(path: str, split: str, files: list[str]) -> dict[str, dict[str, int]]:
    """File -> its bytes, records, lowest and highest stored label; remembered beside the files.

    Raises:
        DataError: a file cannot be read, is damaged, or holds records of another layout.
    """
    place = os.path.join(os.path.expanduser(path), f"{split}.index.json")
    with ThreadPoolExecutor(16) as pool:
        sizes = list(pool.map(lambda file: tf.io.gfile.stat(file).length, files))
        known = _remembered(place)
        names = [os.path.basename(file) for file in files]
        if known is not None and {name: row["bytes"] for name, row in known.items()} == dict(
            zip(names, sizes, strict=True)
        ):
            return {file: known[os.path.basename(file)] for file in files}
        _log.warning("reading %d files of %s once, to count their records", len(files), path)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = [{"bytes": size, **row}
                for size, row in zip(sizes, pool.map(_scan, files), strict=True)]  # fmt: skip
    _remember(place, dict(zip(names, rows, strict=True)))
    return dict(zip(files, rows, strict=True))


def _scan(file: str) -> dict[str, int]:
    features = {
        IMAGE_KEY: tf.io.FixedLenFeature([], tf.string, default_value=""),
        LABEL_KEY: tf.io.FixedLenFeature([], tf.int64, default_value=-(2**62)),
    }
    count, lowest, highest = 0, 2**62, -(2**62)

    def summary(records):
        parsed = tf.io.parse_example(records, features)
        labels = parsed[LABEL_KEY]
        absent = (tf.strings.length(parsed[IMAGE_KEY]) == 0) | (labels == -(2**62))
        return records[:1], tf.size(labels), tf.reduce_min(labels), tf.reduce_max(labels), absent

    try:
        with tf.device("CPU:0"):
            batches = tf.data.TFRecordDataset(file, buffer_size=8 * 2**20).batch(256).map(summary)
            for _, size, low, high, absent in batches.as_numpy_iterator():
                if absent.any():
                    raise DataError(_other_layout(file, count + int(absent.argmax())))
                count += int(size)
                lowest, highest = min(lowest, int(low)), max(highest, int(high))
    except tf.errors.OpError as error:
        raise DataError(
            f"{file} cannot be read after about {count:,} records: {reason(error)}. Copy it again."
        ) from error
    return {"records": count, "lowest": lowest, "highest": highest}


def _other_layout(file: str, position: int) -> str:
    record = next(iter(tf.data.TFRecordDataset(file).skip(position))).numpy()
    features = sorted(tf.train.Example.FromString(record).features.feature)
    return (
        f"Record {position} of {file} lacks {IMAGE_KEY} or {LABEL_KEY}, or holds an empty one; "
        f"it has {', '.join(features) or 'nothing'}. Write the records anew, or remove the file."
    )


def _remembered(place: str) -> dict[str, dict[str, int]] | None:
    try:
        with tf.io.gfile.GFile(place) as file:
            content = json.load(file)
        return content["files"] if content["version"] == _VERSION else None
    except (tf.errors.OpError, ValueError, KeyError, TypeError):
        return None


def _remember(place: str, rows: dict[str, dict[str, int]]) -> None:
    temporary = f"{place}.{os.getpid()}"
    try:
        with tf.io.gfile.GFile(temporary, "w") as file:
            json.dump({"version": _VERSION, "files": rows}, file)
        tf.io.gfile.rename(temporary, place, overwrite=True)
    except tf.errors.OpError as error:
        _log.warning("%s cannot be written, so the files will be counted again next time: %s",
                     place, reason(error))  # fmt: skip


def _slices(index: dict[str, dict[str, int]], chosen: range) -> list[FileSlice]:
    row = [(file, 0, entry["records"]) for file, entry in index.items() if entry["records"]]
    return cut(row, chosen.start, chosen.stop)


def _class_names(file: str, rows: list[dict[str, int]], offset: int) -> tuple[str, ...]:
    lowest, highest = (min(row["lowest"] for row in rows), max(row["highest"] for row in rows))
    if lowest < offset:
        raise DataError(
            f"The lowest stored label is {lowest}, below label_offset={offset}; "
            f"set data.label_offset={max(0, lowest)}."
        )
    if not file:
        return tuple(str(label) for label in range(highest - offset + 1))
    try:
        with tf.io.gfile.GFile(os.path.expanduser(file)) as lines:
            names = tuple(line.strip() for line in lines.read().splitlines() if line.strip())
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        raise DataError(f"class_names={file}: cannot be read: {reason(error)}") from error
    if highest - offset >= len(names):
        raise DataError(
            f"{file} names {len(names):,} classes, but the stored labels go up to {highest} with "
            f"label_offset={offset}: one name a line, in the order of the labels, and an offset of "
            "1 where the labels start at 1."
        )
    return names
