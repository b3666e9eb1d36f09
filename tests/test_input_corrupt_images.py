"""data.on_error=skip: what stands in, what is counted, when it stops; and the caches."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import PREPROCESSING, encode, smooth_image, write_images

from keras_resnet.input_pipeline import (
    DataError,
    SkippedImages,
    evaluation_batches,
    find_corrupt_image,
    open_source,
    train_batches,
)
from keras_resnet.input_pipeline.sources import caching
from keras_resnet.input_pipeline.sources.memory import available_bytes

BROKEN = {
    "train/dog/3.png": b"hello",
    "train/dog/7.png": encode(smooth_image(30, 30))[:300],
    "train/cat/2.png": encode(smooth_image(30, 30), "JPEG")[:300],
}


@pytest.fixture
def folder(tmp_path):
    """20 images of which 3 are broken: red holds the label and green the number of the file."""
    write_images(tmp_path / "train", {"cat": 8, "dog": 12})
    for name, content in BROKEN.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def open_folder(folder, **options):
    options = {"on_error": "skip", "max_broken_share": 0.2, **options}
    return open_source("image_folder", path=str(folder), split="train", **options)


def batches(source, **changes):
    arguments = {"batch_size": 10, "seed": 1, "num_steps": 6, "image_size": 8, "augment": {}}
    return list(train_batches(source, **{**arguments, **changes}).as_numpy_iterator())


@pytest.mark.ci
def test_training_puts_the_next_good_row_in_place(folder):
    source = open_folder(folder)
    found = batches(source)
    write_images(folder / "train", {"cat": 8, "dog": 12})
    whole = batches(open_folder(folder, on_error="stop"))
    replaced = 0
    for batch, expected in zip(found, whole, strict=True):
        broken = [
            f"train/{'dog' if image[0, 0, 0] else 'cat'}/{image[0, 0, 1]}.png" in BROKEN
            for image in expected["image"]
        ]
        replaced += sum(broken)
        for row in range(10):
            good = next(r % 10 for r in range(row, row + 10) if not broken[r % 10])
            for key in ("image", "label"):
                np.testing.assert_array_equal(batch[key][row], expected[key][good])
    assert replaced == 3 * 3  # in three epochs
    assert len(source.skipped) == 3


@pytest.mark.ci
def test_batches_stay_a_function_of_seed_and_step(folder):
    augment = {"flip": True, "mixup": 0.5}
    whole = batches(open_folder(folder), augment=augment)
    resumed = batches(open_folder(folder), augment=augment, start_step=4)
    for batch, expected in zip(resumed, whole[4:], strict=True):
        for key in expected:
            np.testing.assert_array_equal(batch[key], expected[key])


@pytest.mark.parametrize("hosts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_evaluation_leaves_broken_images_out_and_counts_the_others(folder, hosts):
    counted, skipped = [], 0
    for host in range(hosts):
        source = open_folder(folder)
        elements = evaluation_batches(
            source, batch_size=8, preprocessing=PREPROCESSING, shard_index=host, num_shards=hosts
        )
        for batch in elements.as_numpy_iterator():
            for image, label, mask in zip(*(batch[key] for key in ("image", "label", "mask")),
                                          strict=True):  # fmt: skip
                if mask:
                    assert image[0, 0, 0] == label
                    counted.append((int(label), int(image[0, 0, 1])))
        skipped += len(source.skipped)
    assert skipped == 3
    expected = [(0, n) for n in range(8) if n != 2] + [(1, n) for n in range(12) if n not in (3, 7)]
    assert sorted(counted) == expected


@pytest.mark.ci
def test_a_record_stream_skips_and_names_the_record(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "train-00000-of-00001")) as writer:
        for number in range(12):
            image = b"text" if number == 5 else encode(np.full((8, 8, 3), number, np.uint8))
            features = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "image/class/label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[number])
                ),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    for cache in ("none", "memory"):
        source = open_source("tfrecord", path=str(tmp_path), split="train", on_error="skip",
                             max_broken_share=0.1, cache=cache)  # fmt: skip
        labels = np.concatenate(
            [batch["label"] for batch in batches(source, batch_size=4, num_steps=3)]
        )
        assert len(set(labels)) == 11
        assert 5 not in labels
        [problem] = source.skipped.problems
        assert problem.startswith(f"record 5 of {tmp_path}/train-00000-of-00001 is no image")


@pytest.mark.ci
def test_more_than_the_share_stops_with_the_names(folder):
    source = open_folder(folder, max_broken_share=0.1)
    with pytest.raises(tf.errors.OpError):
        batches(source)
    error = str(find_corrupt_image(source))
    assert error.startswith("3 of 20 images are corrupt, more than max_broken_share=0.1 allows")
    for name in BROKEN:
        assert str(folder / name) in error


def test_a_batch_without_a_good_image_stops(tmp_path):
    write_images(tmp_path / "train", {"cat": 2})
    for file in (tmp_path / "train" / "cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(tf.errors.OpError, match="No image of a batch can be read"):
        batches(open_folder(tmp_path, max_broken_share=1.0), batch_size=2)


def test_ten_are_named_and_each_counts_once(caplog):
    skipped = SkippedImages(100, 0.5)
    with caplog.at_level(logging.WARNING, "input_pipeline"):
        for _ in range(2):
            for number in range(14):
                skipped.add(str(number), f"file {number} is bad")
    assert len(skipped) == 14
    assert "file 9 is bad" in caplog.text
    assert "file 10 is bad" not in caplog.text
    assert caplog.text.count("only ten are named") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_error": "skipp"}, "Unknown on_error 'skipp'. Did you mean 'skip'"),
        ({"max_broken_share": 2}, r"max_broken_share is 2; it must be in 0\.\.1"),
        ({"cache": "ram"}, "Unknown cache 'ram'"),
        ({"cache": "file"}, "needs a folder on a local disk"),
        ({"cache": "file", "cache_path": "gs://b/c"}, "it is 'gs://b/c'"),
        ({"cache": "none", "cache_path": "/tmp"}, "cache_path is '/tmp', but cache is 'none'"),
    ],
)
def test_options_that_cannot_work(folder, options, message):
    with pytest.raises(DataError, match=message):
        open_folder(folder, **options)


# --- caches


@pytest.mark.ci
def test_caches_change_no_batch(folder):
    expected = batches(open_folder(folder))
    for options in ({"cache": "memory"}, {"cache": "file", "cache_path": str(folder / "cache")}):
        source = open_folder(folder, **options)
        for batch, other in zip(batches(source), expected, strict=True):
            for key in batch:
                np.testing.assert_array_equal(batch[key], other[key])
        assert {problem.split()[0] for problem in source.skipped.problems} == {
            str(folder / name) for name in BROKEN
        }


@pytest.mark.ci
def test_a_prepared_file_is_used_again_until_the_data_changes(folder):
    cache = folder / "cache"
    options = {"cache": "file", "cache_path": str(cache)}
    open_folder(folder, **options)
    [first] = cache.iterdir()
    written = (first / "images").stat().st_mtime_ns
    open_folder(folder, **options)
    assert (first / "images").stat().st_mtime_ns == written
    total = sum(file.stat().st_size for file in (folder / "train").rglob("*.png"))
    assert (first / "images").stat().st_size == total
    (folder / "train" / "dog" / "3.png").write_bytes(encode(smooth_image(8, 8)))
    source = open_folder(folder, **options)
    assert len(list(cache.iterdir())) == 2
    batches(source)
    assert len(source.skipped) == 2


@pytest.mark.ci
def test_a_prepared_file_that_is_killed_half_way_is_not_taken(folder, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*args, **arrays):
        raise Killed

    options = {"cache": "file", "cache_path": str(folder / "cache")}
    monkeypatch.setattr(caching.np, "savez", killed)
    with pytest.raises(Killed):
        open_folder(folder, **options)
    monkeypatch.undo()
    assert len(batches(open_folder(folder, **options))) == 6


def test_what_does_not_fit_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(caching, "available_bytes", lambda: 2**10)
    with pytest.raises(DataError, match=r"would take .* KiB of memory, and 1.0 KiB are left"):
        open_folder(folder, cache="memory")
    monkeypatch.setattr(caching.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(DataError, match=r"takes .* KiB, and .*cache has 10 bytes left"):
        open_folder(folder, cache="file", cache_path=str(folder / "cache"))


def test_available_memory_is_the_least_of_machine_and_container(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 100 kB\nMemAvailable:   50 kB\n")
    assert available_bytes(meminfo, tmp_path / "none") == 50 * 1024
    (tmp_path / "memory.max").write_text("30000\n")
    (tmp_path / "memory.current").write_text("20000\n")
    assert available_bytes(meminfo, tmp_path) == 10_000
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 7000\n")
    assert available_bytes(meminfo, tmp_path) == 17_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(meminfo, tmp_path) == 50 * 1024
    assert available_bytes(tmp_path / "gone", tmp_path / "none") is None
    assert 2**20 < available_bytes() < 2**50
