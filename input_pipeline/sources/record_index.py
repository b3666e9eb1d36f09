"""Which record files a folder holds, and what is in them.

TFRecord files do not say how many records they hold, so they are read through once, and what was
found is written beside them as SPLIT.index.json.
"""

import functools
import json
import logging
import os
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from keras_resnet.input_pipeline.errors import DataError, reason
from keras_resnet.input_pipeline.image_listing import in_words
from keras_resnet.input_pipeline.sources.compression import GZIP, compression
from keras_resnet.staging import staging_folder

IMAGE_KEY = "image/encoded"
LABEL_KEY = "image/class/label"
_FILE = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<total>\d{5})(\.gz)?")
_INDEX = ".index.json"
_VERSION = 1

# File -> its bytes, records, lowest and highest stored label, and 1 as `gzip` where it is gzipped.
Index = dict[str, dict[str, int]]

_log = logging.getLogger("input_pipeline")


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
            split, index = match["split"], int(match["index"])
            totals.setdefault(split, set()).add(match["total"])
            other = found.setdefault(split, {}).get(index, "")
            if os.path.basename(other).removesuffix(".gz") == name.removesuffix(".gz"):
                raise DataError(
                    f"{path} holds {os.path.basename(other)} and {name}, which are the same part "
                    "of the split. Keep one of them."
                )
            found[split][index] = os.path.join(folder, name)
    if not found:
        raise DataError(
            f"The folder {path} holds no files named like train-00000-of-01024; "
            f"it holds {', '.join(listed[:5]) or 'nothing'}{' …' if len(listed) > 5 else ''}."
        )
    _say_passed_over(path, listed)
    return {split: _complete(path, split, found[split], totals[split]) for split in found}


@functools.cache
def _log_once(text: str) -> None:
    _log.warning(text)


def _say_passed_over(path: str, names: list[str]) -> None:
    others = [
        name for name in names
        if not _FILE.fullmatch(name) and not name.startswith(".") and not name.endswith(_INDEX)
    ]  # fmt: skip
    counts = Counter(os.path.splitext(name.rstrip("/"))[1].lower() for name in others)
    if counts:
        _log_once(f"{path}: passed over what is no record file by its name: {in_words(counts)}")


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


def read_index(path: str, split: str, files: list[str]) -> Index:
    """File -> its bytes, records, lowest and highest stored label; remembered beside the files.

    Raises:
        DataError: a file cannot be read, is damaged, or holds records of another layout.
    """
    place = os.path.join(os.path.expanduser(path), f"{split}{_INDEX}")
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
            kind = compression(file)
            batches = tf.data.TFRecordDataset(file, kind, 8 * 2**20).batch(256).map(summary)
            for _, size, low, high, absent in batches.as_numpy_iterator():
                if absent.any():
                    raise DataError(_other_layout(file, count + int(absent.argmax())))
                count += int(size)
                lowest, highest = min(lowest, int(low)), max(highest, int(high))
    except tf.errors.OpError as error:
        raise DataError(
            f"{file} cannot be read after about {count:,} records: {reason(error)}. Copy it again."
        ) from error
    gzip = {"gzip": 1} if kind == GZIP else {}
    return {"records": count, "lowest": lowest, "highest": highest, **gzip}


def _other_layout(file: str, position: int) -> str:
    record = next(iter(tf.data.TFRecordDataset(file, compression(file)).skip(position))).numpy()
    features = sorted(tf.train.Example.FromString(record).features.feature)
    return (
        f"Record {position} of {file} lacks {IMAGE_KEY} or {LABEL_KEY}, or holds an empty one; "
        f"it has {', '.join(features) or 'nothing'}. Write the records anew, or remove the file."
    )


def _remembered(place: str) -> Index | None:
    try:
        with tf.io.gfile.GFile(place) as file:
            content = json.load(file)
        return content["files"] if content["version"] == _VERSION else None
    except (tf.errors.OpError, ValueError, KeyError, TypeError):
        return None


def _remember(place: str, rows: Index) -> None:
    text = json.dumps({"version": _VERSION, "files": rows})
    try:
        if "://" in place:  # where an object appears whole
            with tf.io.gfile.GFile(place, "w") as file:
                file.write(text)
        else:
            with staging_folder(Path(place).parent, f".{Path(place).name}-") as folder:
                (folder / "index").write_text(text)
                os.replace(folder / "index", place)
    except (tf.errors.OpError, OSError) as error:
        _log.warning("%s cannot be written, so the files will be counted again next time: %s",
                     place, reason(error))  # fmt: skip
