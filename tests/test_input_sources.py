"""The sources: digits through TFDS, image folders, and the naming of broken images."""

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from bucket_helpers import buckets_in_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from input_helpers import PREPROCESSING, NumberedSource, encode, smooth_image, write_images
from sklearn.datasets import load_digits

from keras_resnet.input_pipeline import (
    DataError,
    digits,
    evaluation_batches,
    find_corrupt_image,
    open_source,
    train_batches,
)
from keras_resnet.input_pipeline.sources import caching, record_files, splits


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    open_source("tfds", name="digits", path=folder, split="train")
    return folder


def read_all(source):
    """Images and labels of every example, through the evaluation pipeline."""
    dataset = evaluation_batches(source, batch_size=100, preprocessing=PREPROCESSING)
    images, labels = [], []
    for batch in dataset.as_numpy_iterator():
        real = batch["mask"] == 1
        images.append(batch["image"][real])
        labels.append(batch["label"][real])
    return np.concatenate(images), np.concatenate(labels)


def test_digits_are_scikit_learns_split_by_the_stated_rule(data_dir):
    bunch = load_digits()
    pixels = np.round(bunch.images * 255 / 16).astype(np.uint8)
    rows = [row for label in range(10) for row in np.flatnonzero(bunch.target == label)]
    for split, chosen in (
        ("train", [row for place, row in enumerate(rows) if place % 5]),
        ("test", rows[::5]),
    ):
        source = open_source("tfds", name="digits", path=data_dir, split=split)
        images, labels = read_all(source)
        assert source.num_examples == len(chosen) == {"train": 1437, "test": 360}[split]
        np.testing.assert_array_equal(images, np.repeat(images[..., :1], 3, axis=-1))
        found = sorted(
            (int(label), image.tobytes())
            for label, image in zip(labels, images[..., 0], strict=True)
        )
        expected = sorted((int(bunch.target[row]), pixels[row].tobytes()) for row in chosen)
        assert found == expected
        fifth = np.bincount(bunch.target) / 5
        share = np.bincount(labels) - (fifth if split == "test" else 4 * fifth)
        assert np.abs(share).max() < 1


def test_a_prepared_set_on_a_bucket_is_the_local_one(data_dir):
    copy_to_bucket(Path(data_dir), "ram://tfds")
    with buckets_in_memory():
        ours, theirs = (
            open_source("tfds", name="digits", path=path, split="train[:20]", cache="none")
            for path in ("ram://tfds", data_dir)
        )
        for (_, mine), (_, other) in zip(ours.records(), theirs.records(), strict=True):
            assert mine() == other()


def test_digits_description_and_slices(data_dir):
    source = open_source("tfds", name="digits", path=data_dir, split="train[:10%]+test[350:]")
    assert source.num_examples == 144 + 10
    source = open_source("tfds", name="digits", path=data_dir, split="train")
    assert source.description == "digits train: 1,437 images, 10 classes"
    assert source.class_names == tuple("0123456789")
    name, read = next(source.records())
    assert name.startswith("record 0 of ")
    assert name.endswith("digits-train.tfrecord-00000-of-00001")
    assert read().startswith(b"\x89PNG")


def test_digits_prepared_by_another_process_at_the_same_time(tmp_path, monkeypatch):
    generate = digits.Digits._split_generators

    def overtaken(self, dl_manager):
        monkeypatch.setattr(digits.Digits, "_split_generators", generate)
        digits.prepare(str(tmp_path))
        return generate(self, dl_manager)

    monkeypatch.setattr(digits.Digits, "_split_generators", overtaken)
    assert open_source("tfds", name="digits", path=str(tmp_path), split="test").num_examples == 360
    assert [item.name for item in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_digits_prepared_again_after_a_kill(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*args):
        raise Killed

    generate = digits.Digits._generate_examples
    monkeypatch.setattr(digits.Digits, "_generate_examples", killed)
    with pytest.raises(Killed):
        open_source("tfds", name="digits", path=str(tmp_path), split="test")
    # What a kill without any clean-up leaves.
    (tmp_path / "digits" / "1.0.0.incomplete1A2B_1.0.0").mkdir(parents=True)
    monkeypatch.setattr(digits.Digits, "_generate_examples", generate)
    assert open_source("tfds", name="digits", path=str(tmp_path), split="test").num_examples == 360


def test_digits_prepare_in_silence(tmp_path, capfd):
    open_source("tfds", name="digits", path=str(tmp_path), split="train")
    printed = capfd.readouterr()
    assert printed.out == ""
    assert "%" not in printed.err


def test_digits_without_scikit_learn(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def without_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    with pytest.raises(DataError, match=r"pip install 'keras-resnet-tpu\[digits\]'"):
        open_source("tfds", name="digits", path=str(tmp_path), split="train")


def test_large_sets_are_streamed(data_dir, monkeypatch):
    monkeypatch.setattr(caching, "AUTO_LIMIT_BYTES", 1000)
    streamed = open_source("tfds", name="digits", path=data_dir, split="train[20%:]")
    assert isinstance(streamed, record_files.RecordFileSource)
    monkeypatch.undo()
    held = open_source("tfds", name="digits", path=data_dir, split="train[20%:]")
    assert streamed.description == held.description
    for one, other in zip(read_all(streamed), read_all(held), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("", "train", "needs the name of a data set"),
        ("digit", "train", "TFDS knows no data set 'digit'. Did you mean 'digits'"),
        ("cifar10", "train", "'cifar10' is not prepared in .* 'tfds build cifar10 --data_dir="),
        ("digits", "trian", "digits has no split 'trian' .* Its splits: .*train .1,437"),
        ("digits", "train[:0%]", r"The split 'train\[:0%\]' of digits selects no images"),
        ("digits", "train[", r"digits has no split 'train\['"),
        ("digits/large", "train", "Cannot open the TFDS data set 'digits/large'"),
    ],
)
def test_tfds_errors(data_dir, name, split, message):
    with pytest.raises(DataError, match=message):
        open_source("tfds", name=name, path=data_dir, split=split)


def test_tfds_set_that_is_no_classification(tmp_path):
    class PairsOfImages(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(2, 2, 3))
            features = tfds.features.FeaturesDict({"left": image, "right": image})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            image = np.zeros((2, 2, 3), np.uint8)
            yield 0, {"left": image, "right": image}

    PairsOfImages(data_dir=str(tmp_path)).download_and_prepare()
    with pytest.raises(DataError, match="one Image and one ClassLabel and has left: Image, right"):
        open_source("tfds", name="pairs_of_images", path=str(tmp_path), split="train")


def test_unknown_source():
    with pytest.raises(DataError, match=r"Unknown data source 'image_foldr'. Did you mean 'image"):
        open_source("image_foldr", split="train")


# --- image folders ---


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "train", {"cat": 5, "dog": 12})
    write_images(tmp_path / "val", {"dog": 3, "cat": 2})
    return tmp_path


def open_folder(path, split):
    return open_source("image_folder", path=str(path), split=split)


def test_image_folder_with_split_folders(folder):
    (folder / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "cat" / "more").mkdir()
    (folder / "train" / "cat" / "more" / "A.JPG").write_bytes(encode(smooth_image(9, 8), "JPEG"))
    train = open_folder(folder, "train")
    assert train.description == f"{folder.name} train: 18 images, 2 classes"
    assert train.class_names == ("cat", "dog")
    _, labels = read_all(train)
    assert np.bincount(labels).tolist() == [6, 12]
    images, labels = read_all(open_folder(folder, "val"))
    # Red holds the label and green the number of the file.
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    assert sorted(zip(labels, images[:, 0, 0, 1], strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (1, 2),
    ]  # fmt: skip
    for name in ("test", "validation"):
        assert list(open_folder(folder, name).records()) != []
        assert [file for file, _ in open_folder(folder, name).records()] == [
            file for file, _ in open_folder(folder, "val").records()
        ]


@pytest.mark.parametrize("cut", ["80%", "50%", "20%", "7"])
def test_slices_of_one_folder_are_stratified_and_disjoint(tmp_path, cut):
    counts = {"a": 10, "b": 30, "c": 61}
    write_images(tmp_path, counts)
    head = {file for file, _ in open_folder(tmp_path, f"train[:{cut}]").records()}
    tail = {file for file, _ in open_folder(tmp_path, f"train[{cut}:]").records()}
    assert not head & tail
    assert len(head | tail) == 101
    for name, count in counts.items():
        share = sum(f"/{name}/" in file for file in head)
        assert share > 0
        assert abs(share - count * len(head) / 101) <= 1


bounds = st.sampled_from(["", "0", "1", "17", "-3", "0%", "33%", "50%", "-20%", "100%"])


@settings(max_examples=60, deadline=None)
@given(size=st.integers(17, 300), start=bounds, stop=bounds, whole=st.booleans())
def test_split_syntax_selects_what_tfds_selects(size, start, stop, whole):
    split = "train" if whole or not start + stop else f"train[{start}:{stop}]"
    info = tfds.core.SplitInfo(name="train", shard_lengths=[size], num_bytes=0)
    [expected] = tfds.core.ReadInstruction.from_spec(split).to_absolute({"train": info})
    [(name, positions)] = splits.select(split, {"train": size}.__getitem__)
    first, last = expected.from_ or 0, size if expected.to is None else expected.to
    assert (name, list(positions)) == ("train", list(range(first, last)))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("tain", "has no split 'tain'. Did you mean 'train'? Its splits: train, val."),
        ("train[:80", "Cannot read the split 'train[:80'; write it as in 'train', 'train[:80%]'"),
        ("train[:18]", "The bound 18 of a split lies beyond its 17 images"),
        ("train[5:5]", "selects no images"),
    ],
)
def test_image_folder_split_errors(folder, split, message):
    with pytest.raises(DataError) as error:
        open_folder(folder, split)
    assert message in str(error.value)


def test_one_folder_of_classes_has_only_train(tmp_path):
    write_images(tmp_path, {"a": 2, "b": 2})
    with pytest.raises(DataError, match=r"has no split 'test'. State two slices of 'train'.*80%"):
        open_folder(tmp_path, "test")


def copy_to_bucket(folder, bucket):
    """To TensorFlow's file system in memory, which stands in for a bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            target = f"{bucket}/{file.relative_to(folder).as_posix()}"
            tf.io.gfile.makedirs(target.rpartition("/")[0])
            tf.io.write_file(target, file.read_bytes())


def test_image_folder_on_a_bucket_is_the_local_one(folder, monkeypatch):
    (folder / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "cat" / "more").mkdir()
    (folder / "train" / "cat" / "more" / "A.JPG").write_bytes(encode(smooth_image(9, 8), "JPEG"))
    copy_to_bucket(folder, bucket := f"ram://photos/{folder.name}")
    for split in ("train", "test", "train[:50%]"):
        ours, theirs = (open_folder(path, split) for path in (f"{bucket}/", folder))
        assert ours.description == theirs.description
        assert ours.class_names == theirs.class_names
        assert ours.encoded_bytes() == theirs.encoded_bytes()
        for (mine, read), (other, read_other) in zip(ours.records(), theirs.records(), strict=True):
            assert mine.removeprefix(bucket) == other.removeprefix(str(folder))
            assert read() == read_other()
    for mine, other in zip(read_all(ours), read_all(theirs), strict=True):
        np.testing.assert_array_equal(mine, other)
    tf.io.write_file(f"{bucket}/train/cat/broken.png", b"no image")
    assert "train/cat/broken.png is no image" in str(
        find_corrupt_image(open_folder(bucket, "train"))
    )
    with pytest.raises(DataError, match=r"The image folder ram://photos/gone does not exist"):
        open_folder("ram://photos/gone", "train")

    def refuse(*_):
        raise tf.errors.PermissionDeniedError(None, None, "HTTP 403\nwhen listing")

    monkeypatch.setattr(tf.io.gfile, "listdir", refuse)
    with pytest.raises(DataError, match=rf"folder {bucket} cannot be listed: HTTP 403\.$"):
        open_folder(bucket, "train")


def test_image_folder_errors(tmp_path, folder):
    with pytest.raises(DataError, match=r"needs a path: a folder of images \(data.path\)"):
        open_folder("", "train")
    with pytest.raises(DataError, match=r"The image folder .*/gone does not exist"):
        open_folder(tmp_path / "gone", "train")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="file is a file; give a folder of class folders"):
        open_folder(tmp_path / "file", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty holds no class folders; put the images of each"):
        open_folder(tmp_path / "empty", "train")
    (tmp_path / "bare" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=r"The class folder .*cat holds no images"):
        open_folder(tmp_path / "bare", "train")
    (folder / "train" / "dog" / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"dog/notes.txt is no image of a supported format \(.bmp"):
        open_folder(folder, "train")
    (folder / "train" / "dog" / "notes.txt").unlink()
    write_images(folder / "val", {"bird": 1, "cow": 1})
    write_images(folder / "train", {"ant": 1})
    with pytest.raises(DataError, match=r"differ: only in .*val: bird, cow; only in .*: ant\. "):
        open_folder(folder, "val")
    # Only the split that is asked for is looked into.
    assert open_folder(folder, "train").class_names == ("ant", "cat", "dog")


# --- broken images ---

PNG = encode(smooth_image(30, 40))
JPEG = encode(smooth_image(30, 40), "JPEG")
GIF = encode(smooth_image(30, 40).quantize(16), "GIF")
BMP = encode(smooth_image(30, 40), "BMP")
# Its only chunk ends beyond the file, and no byte above 127 is valid UTF-8.
WEBP = b"RIFF\xc8\xc8\xc8\x00WEBPVP8X\x0a\0\0\0" + bytes(10) + b"ANIM\xc8\xc8\0\0\xff\xff"


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "is empty (0 bytes)."),
        (b"hello, I am a text\n", "its 19 bytes start with b'hello, I am a te'"),
        (JPEG[: len(JPEG) // 2], f"is a truncated JPEG: its {len(JPEG) // 2:,} bytes stop before"),
        (JPEG[:-2], "is a truncated JPEG"),
        (PNG[: len(PNG) // 2], "is a truncated PNG"),
        (
            PNG[:200] + bytes(9) + PNG[209:],
            f"is a damaged PNG ({len(PNG):,} bytes): Invalid PNG data",
        ),
        (GIF[: len(GIF) // 2], "is a truncated GIF"),
        (BMP[:-100], "is a truncated BMP: its 3,554 bytes stop before"),
        (JPEG[:2], "is no image that can be read"),
        (WEBP, "is a truncated WebP"),
        (BMP[:28] + bytes(2) + BMP[30:], "is an unsupported kind of BMP: compression, bits 0 0."),
        (PNG[:16] + b"\x7f\xff" * 4 + PNG[24:], "claims 2,147,450,879 × 2,147,450,879 pixels"),
    ],
)
def test_broken_image_is_named_and_described(folder, encoded, message):
    file = folder / "train" / "dog" / "broken.jpg"
    file.write_bytes(encoded)
    source = open_folder(folder, "train")
    with pytest.raises(tf.errors.InvalidArgumentError):
        read_all(source)
    error = find_corrupt_image(source)
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{file} ")
    assert message in str(error)
    assert "{{" not in str(error)


def test_file_that_has_gone(folder):
    source = open_folder(folder, "train")
    (folder / "train" / "dog" / "3.png").unlink()
    with pytest.raises(tf.errors.NotFoundError):
        read_all(source)
    assert str(find_corrupt_image(source)) == (
        f"{folder}/train/dog/3.png cannot be read: No such file or directory."
    )


def test_no_image_is_broken():
    assert find_corrupt_image(NumberedSource(7)) is None


def test_training_reads_an_image_folder(folder):
    dataset = train_batches(
        open_folder(folder, "train"),
        batch_size=17,
        seed=0,
        num_steps=2,
        image_size=8,
        augment={},
    )
    for batch in dataset.as_numpy_iterator():
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
        assert np.bincount(batch["label"]).tolist() == [5, 12]
