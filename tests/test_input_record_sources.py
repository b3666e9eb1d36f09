"""The sources `tfrecord` and `synthetic`."""

import gzip
import json

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import PREPROCESSING, encode, labels_of

from keras_resnet.input_pipeline import DataError, evaluation_batches, open_source, train_batches
from keras_resnet.input_pipeline.sources.compression import compression
from keras_resnet.input_pipeline.sources.record_files import RecordFileSource

COUNTS = [3, 0, 7, 1, 12]


def example(number: int, **changes) -> bytes:
    values = {
        "image/encoded": encode(np.full((8, 8, 3), number, np.uint8)),
        "image/class/label": 1 + number % 4,
        "image/filename": b"unused",
        **changes,
    }
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        if isinstance(value, bytes)
        else tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for key, value in values.items()
        if value is not None
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path, records: list[bytes]) -> None:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture
def folder(tmp_path):
    """Images of the colors 0..22 with the labels 1..4 in turn; a part of them to evaluate on."""
    numbers = iter(range(100))
    for index, count in enumerate(COUNTS):
        records = [example(next(numbers)) for _ in range(count)]
        write_records(tmp_path / f"train-{index:05d}-of-00005", records)
    write_records(tmp_path / "validation-00000-of-00001", [example(n) for n in range(5)])
    (tmp_path / "README.md").write_text("not a record file")
    return tmp_path


def open_records(folder, split="train", **options):
    return open_source("tfrecord", path=str(folder), split=split, label_offset=1, **options)


def test_a_bucket_is_read_as_a_folder(folder):
    """On TensorFlow's file system in memory, which stands in for one."""
    for file in folder.glob("*-of-*"):
        tf.io.write_file(f"ram://records/{file.name}", file.read_bytes())
    for _ in range(2):  # counting the records, then with the counts beside them
        source = open_records("ram://records", "train[3:-1]", cache="none")
        assert tf.io.gfile.exists("ram://records/train.index.json")
    assert read(source) == read(open_records(folder, "train[3:-1]", cache="none"))


def read(source):
    """(color, label) of every example."""
    pairs = []
    batches = evaluation_batches(source, batch_size=6, preprocessing=PREPROCESSING)
    for batch in batches.as_numpy_iterator():
        for image, label, mask in zip(batch["image"], batch["label"], batch["mask"], strict=True):
            if mask:
                pairs.append((int(image[0, 0, 0]), int(label)))
    return pairs


@pytest.mark.parametrize("cache", ["auto", "none"])
@pytest.mark.parametrize(
    ("split", "first", "last"),
    [("train", 0, 23), ("train[:50%]", 0, 12), ("train[50%:]", 12, 23), ("train[3:-1]", 3, 22)],
)
def test_every_record_of_a_slice_comes_once_with_its_label(folder, cache, split, first, last):
    source = open_records(folder, split, cache=cache)
    assert isinstance(source, RecordFileSource) == (cache == "none")
    assert sorted(read(source)) == [(n, n % 4) for n in range(first, last)]
    assert source.class_names == ("0", "1", "2", "3")
    batches = train_batches(
        source, batch_size=4, seed=0, num_steps=6, image_size=8, augment={}
    )  # fmt: skip
    pairs = {
        (int(image[0, 0, 0]), int(label))
        for batch in batches.as_numpy_iterator()
        for image, label in zip(batch["image"], batch["label"], strict=True)
    }
    assert pairs == {(n, n % 4) for n in range(first, last)}


def test_the_class_names_of_a_file(folder):
    names = folder / "names.txt"
    names.write_text("ant\nbee\ncow\ndog\n\n")
    source = open_records(folder, "validation", class_names=str(names))
    assert source.class_names == ("ant", "bee", "cow", "dog")
    names.write_text("ant\nbee\ncow\n")
    with pytest.raises(DataError, match="names 3 classes, but the stored labels go up to 4"):
        open_records(folder, class_names=str(names))
    with pytest.raises(DataError, match="class_names=/no/such: cannot be read"):
        open_records(folder, class_names="/no/such")


def test_records_are_counted_once_and_again_when_a_file_changes(folder, caplog):
    open_records(folder)
    index = json.loads((folder / "train.index.json").read_text())
    assert [row["records"] for row in index["files"].values()] == COUNTS
    assert "to count their records" in caplog.text
    caplog.clear()
    open_records(folder)
    assert caplog.text == ""
    write_records(folder / "train-00001-of-00005", [example(30), example(31)])
    assert open_records(folder).num_examples == sum(COUNTS) + 2


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 0}', '{"version": 1}'])
def test_an_index_that_cannot_be_used_is_written_anew(folder, content):
    (folder / "train.index.json").write_text(content)
    assert open_records(folder).num_examples == sum(COUNTS)
    assert json.loads((folder / "train.index.json").read_text())["version"] == 1


def test_names_say_file_and_record(folder):
    source = open_records(folder, cache="none")
    names = [name for name, _ in source.records()]
    assert names[3] == f"record 0 of {folder}/train-00002-of-00005"
    assert names[-1] == f"record 11 of {folder}/train-00004-of-00005"


def remove(folder):
    (folder / "train-00002-of-00005").unlink()
    (folder / "train-00004-of-00005").unlink()


def mix_sets(folder):
    write_records(folder / "train-00000-of-00009", [])


def damage(folder):
    file = folder / "train-00004-of-00005"
    content = bytearray(file.read_bytes())
    content[500] ^= 1
    file.write_bytes(content)


def truncate(folder):
    file = folder / "train-00004-of-00005"
    file.write_bytes(file.read_bytes()[:-7])


def drop_label(folder):
    write_records(folder / "train-00001-of-00005",
                  [example(1), example(2, **{"image/class/label": None})])  # fmt: skip


def other_content(folder):
    write_records(folder / "train-00001-of-00005", [b"no example"])


@pytest.mark.parametrize(
    ("change", "split", "message"),
    [
        (remove, "train", r"2 of the 5 files .*'train' are missing: train-00002-of-00005, train-0"),
        (mix_sets, "train", r"'train' of several sets: of 0000\d, of 0000\d files"),
        (damage, "train", "train-00004-of-00005 cannot be read after about 0 records: corrupted"),
        (truncate, "train", "train-00004-of-00005 cannot be read after about .*: truncated record"),
        (
            drop_label,
            "train",
            "Record 1 of .*train-00001-of-00005 lacks image/encoded or image/cla",
        ),
        (other_content, "train", "train-00001-of-00005 cannot be read after about 0 records"),
        (None, "trian", "has no split 'trian'. Did you mean 'train'. Its splits: train, validat"),
        (None, "train[:99]", "lies beyond its 23 images"),
        (None, "train[3:3]", "selects no images"),
    ],
)
def test_errors(folder, change, split, message):
    if change:
        change(folder)
    with pytest.raises(DataError, match=message) as error:
        open_records(folder, split)
    assert "\n" not in str(error.value)


def test_folders_that_hold_no_records(tmp_path):
    with pytest.raises(DataError, match="needs a path"):
        open_source("tfrecord", split="train")
    with pytest.raises(DataError, match="gone cannot be listed"):
        open_source("tfrecord", path=str(tmp_path / "gone"), split="train")
    with pytest.raises(DataError, match="no files named like train-00000-of-01024; it holds noth"):
        open_source("tfrecord", path=str(tmp_path), split="train")


def test_label_offset_that_is_too_large(folder):
    with pytest.raises(DataError, match="lowest stored label is 1, below label_offset=2"):
        open_source("tfrecord", path=str(folder), split="train", label_offset=2)


def test_options_of_another_source(folder):
    with pytest.raises(DataError, match="label_offset is 1, which the source tfds does not take"):
        open_source("tfds", name="digits", split="train", label_offset=1)


# --- synthetic


def test_synthetic_batches_are_the_same_and_are_counted_exactly():
    source = open_source("synthetic", name="digits", split="test")
    assert source.description == "synthetic digits test: 360 images, 10 classes"
    batches = list(
        train_batches(source, batch_size=8, seed=0, num_steps=5, start_step=2, image_size=4,
                      augment={}).as_numpy_iterator()
    )  # fmt: skip
    assert len(batches) == 3
    np.testing.assert_array_equal(batches[0]["image"], batches[2]["image"])
    assert batches[0]["image"].std() > 60  # noise, not a constant that caches well
    for hosts in (1, 3):
        options = {"batch_size": 48, "preprocessing": PREPROCESSING, "num_shards": hosts}
        parts = [evaluation_batches(source, shard_index=host, **options) for host in range(hosts)]
        assert sum(batch["mask"].numpy().sum() for part in parts for batch in part) == 360
    assert labels_of(train_batches(source, batch_size=12, seed=0, num_steps=1, image_size=4,
                                   augment={})).tolist() == [*range(10), 0, 1]  # fmt: skip


def test_synthetic_errors():
    with pytest.raises(DataError, match=r"'cifar11'\. Did you mean 'cifar10'"):
        open_source("synthetic", name="cifar11", split="train")
    with pytest.raises(DataError, match="split of synthetic cifar10 'val'"):
        open_source("synthetic", name="cifar10", split="val")


def test_gzipped_files_are_read_whatever_their_names(folder, caplog):
    expected = [record for _, record in open_records(folder).records()]
    files = sorted(folder.glob("train-0000*"))
    for number, file in enumerate(files[1:3] + files[4:]):  # among plain ones, one of them empty
        packed = gzip.compress(file.read_bytes(), mtime=number)
        file.unlink()
        (file.with_name(f"{file.name}.gz") if number == 2 else file).write_bytes(packed)
    (folder / "train.index.json").unlink()
    (folder / "train.tar").write_text("something else")
    for _ in range(2):  # counting the records, then with the counts beside them
        source = open_records(folder, cache="none")
        assert [read() for _, read in source.records()] == [read() for read in expected]
        labels = labels_of(evaluation_batches(source, batch_size=23, preprocessing=PREPROCESSING))
        assert sorted(labels) == sorted(number % 4 for number in range(23))
    index = json.loads((folder / "train.index.json").read_text())["files"]
    assert [row.get("gzip") for _, row in sorted(index.items())] == [None, 1, 1, None, 1]
    said = [line for line in caplog.messages if "passed over" in line]
    assert said[1:] == [f"{folder}: passed over what is no record file by its name: 1 .md, 1 .tar"]
    (folder / files[4].name).write_bytes(b"")
    with pytest.raises(DataError, match=r"train-00004-of-00005 and train-00004-of-00005.gz, which"):
        open_records(folder)


def test_a_record_whose_length_looks_like_gzip_is_none(tmp_path):
    file = tmp_path / "plain"
    write_records(file, [bytes(0x088B1F)])
    assert file.read_bytes()[:3] == b"\x1f\x8b\x08"
    assert compression(str(file)) == ""
    file.write_bytes(gzip.compress(file.read_bytes()))
    assert compression(str(file)) == "GZIP"
