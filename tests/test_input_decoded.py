"""data.cache=decoded: the same pictures with and without it, kept or not, whatever happens."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import PREPROCESSING, encode, smooth_image
from PIL import Image
from run_helpers import tiny_config

from keras_resnet.input_pipeline import (
    DataError,
    evaluation_batches,
    open_source,
    train_batches,
)
from keras_resnet.input_pipeline.formats import shrunk
from keras_resnet.input_pipeline.sources import caching, decoded
from keras_resnet.training import run

SIDE = 24
VALUES = {**PREPROCESSING, "image_size": SIDE, "exif": "apply", "scaled_decoding": "auto"}


def photo(height, width, seed=0, orientation=1, **options) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    image = smooth_image(height, width, seed)
    return encode(image, "JPEG", quality=90, exif=tags, **options)


@pytest.fixture
def folder(tmp_path):
    """Large and small photos, on their side and upright, odd sizes, other formats."""
    files = {
        "a/1.jpg": photo(301, 219, 1),
        "a/2.jpg": photo(203, 150, 2, orientation=6),
        "a/3.png": encode(smooth_image(120, 130, 3)),
        "b/1.jpg": photo(430, 409, 4, orientation=3),
        "b/2.jpg": photo(60, 70, 5),
        "b/3.jpg": photo(111, 500, 6, progressive=True),
    }
    for name, encoded in files.items():
        path = tmp_path / "photos" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    return tmp_path / "photos"


def opened(folder, cache="decoded", path="", **options):
    options = {"exif": "apply", "cache_path": str(path), "decoded_side": SIDE, **options}
    return open_source("image_folder", path=str(folder), split="train", cache=cache, **options)


def evaluated(source):
    [batch] = evaluation_batches(source, batch_size=6, preprocessing=VALUES)
    return batch["image"].numpy()


def trained(source, augment="random_resized_crop", start_step=0, steps=4):
    options = {"batch_size": 3, "seed": 1, "num_steps": steps, "start_step": start_step}
    batches = train_batches(source, image_size=SIDE, augment={augment: True}, **options)
    return np.stack([batch["image"] for batch in batches])


def images_of(source):
    source.prepare()
    return source.fetch(tf.range(6, dtype=tf.int64))[0].numpy().tolist()


def kept(path):
    return sorted(entry.name for entry in path.iterdir())


def test_what_is_written_is_read():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 3), np.uint8)
    for width in (1, 2, 3):
        encoded = shrunk.write(pixels[:, :width], np.array([20, 4 * width - 1]), 4, 6)
        assert shrunk.is_shrunk(tf.constant(encoded))
        whole, ratio, orientation, found, first = shrunk.read(tf.constant(encoded))
        assert (whole.numpy().tolist(), int(ratio), int(orientation)) == ([20, 4 * width - 1], 4, 6)
        np.testing.assert_array_equal(found[first:], pixels[:, :width])


def test_evaluation_sees_the_same_to_the_bit(folder, tmp_path):
    source = opened(folder, path=tmp_path / "cache")
    found = evaluated(source)
    np.testing.assert_array_equal(found, evaluated(opened(folder, "none")))
    # Four of the six were large enough, and are kept at a half, a quarter or an eighth.
    images = source._read(np.arange(6))
    sizes = sorted(len(image) for image in images if image.startswith(shrunk.START))
    pixels = [54 * 52, 76 * 55, 102 * 75, 56 * 250]  # sides of 1 / 8, 1 / 4, 1 / 2 and 1 / 2
    assert all(0 < size - 3 * count < 3 * 256 for size, count in zip(sizes, pixels, strict=True))
    assert source.read(0).startswith(b"\xff\xd8")


@pytest.mark.ci
def test_training_sees_the_same_wherever_it_is_kept(folder, tmp_path, caplog):
    batches = trained(opened(folder, path=tmp_path / "cache"))
    [name] = kept(tmp_path / "cache")
    assert name.startswith("photos-train-")
    assert "keeping    the 6 images of photos train decoded and shrunk, in " in caplog.text
    caplog.clear()
    again = opened(folder, path=tmp_path / "cache")
    np.testing.assert_array_equal(trained(again, start_step=2), batches[2:])
    assert not caplog.text  # found
    np.testing.assert_array_equal(trained(opened(folder)), batches)  # no folder
    assert images_of(again) == images_of(opened(folder))


@pytest.mark.ci
def test_random_crops_are_those_of_the_whole_photos(folder):
    whole = trained(opened(folder, "none"), "flip")
    np.testing.assert_array_equal(trained(opened(folder), "flip"), whole)
    # A small part of a photo has fewer pixels left; the same part it is.
    cropped = trained(opened(folder)).astype(int)
    difference = np.abs(cropped - trained(opened(folder, "none"))).mean()
    other = np.abs(cropped - np.roll(cropped, 1, axis=1)).mean()
    assert 0 < difference < other / 3


@pytest.mark.parametrize("limit", ["space", "disk", "rights"])
def test_without_room_it_goes_on_with_the_same(folder, tmp_path, monkeypatch, caplog, limit):
    cache = tmp_path / "cache"
    if limit == "space":
        monkeypatch.setattr(decoded, "MOST_BYTES", 50_000)
        said = "they take more than 48.8 KiB, the most that is used of"
    elif limit == "disk":

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(caching.np, "savez", full)
        said = "cannot be written: the disk is full"
    else:
        cache.write_text("a file")
        said = "cannot be written: File exists"
    images = images_of(opened(folder, path=cache))
    assert said in caplog.text
    assert "Photos are decoded in every epoch instead, with the same result." in caplog.text
    assert limit == "rights" or kept(cache) == []
    assert images == images_of(opened(folder))


def test_other_images_and_damage_are_noticed(folder, tmp_path):
    cache = tmp_path / "cache"
    first = images_of(opened(folder, path=cache))
    [name] = kept(cache)
    os.truncate(cache / name / "images", 1000)
    assert images_of(opened(folder, path=cache)) == first
    assert kept(cache) == [name]
    (cache / name / "index.npz").write_bytes(b"PK\x03\x04 nothing")
    assert images_of(opened(folder, path=cache)) == first
    (folder / "train" / "a" / "1.jpg").write_bytes(photo(301, 219, 9))
    changed = images_of(opened(folder, path=cache))
    assert sum(one != other for one, other in zip(changed, first, strict=True)) == 1
    assert len(kept(cache)) == 2
    images_of(opened(folder, path=cache, max_pixels=10**7))
    assert len(kept(cache)) == 3


@pytest.mark.parametrize("cache", ["decoded", "file"])
@pytest.mark.parametrize("when", ["before", "while"])
def test_bits_that_turned_are_read_from_the_source(folder, tmp_path, caplog, cache, when):
    path = tmp_path / "cache"
    first = images_of(opened(folder, cache, path=path))
    [name] = kept(path)
    source = opened(folder, cache, path=path)
    if when == "while":
        assert images_of(source) == first
    content = bytearray((path / name / "images").read_bytes())
    for place in range(0, len(content), 97):  # in headers and pixels of each image
        content[place] ^= 0x55
    (path / name / "images").write_bytes(content)
    assert images_of(source) == first
    assert caplog.text.count("is damaged. What is damaged is read from its source") == 1


@pytest.mark.parametrize("damage", ["short", "empty", "index", "no index", "no sums"])
def test_a_packed_file_that_is_not_whole_is_packed_again(folder, tmp_path, damage):
    cache = tmp_path / "cache"
    first = images_of(opened(folder, "file", path=cache))
    [name] = kept(cache)
    images, index = cache / name / "images", cache / name / "index.npz"
    if damage in ("short", "empty"):
        os.truncate(images, 1000 if damage == "short" else 0)
    elif damage == "index":
        index.write_bytes(b"PK\x03\x04 nothing")
    elif damage == "no index":
        index.unlink()
    else:
        with np.load(index) as old:
            np.savez(index, offsets=old["offsets"], labels=old["labels"])
    assert images_of(opened(folder, "file", path=cache)) == first
    assert kept(cache) == [name]


def test_several_at_once_share_one(folder, tmp_path):
    sources = [opened(folder, path=tmp_path / "cache") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(images_of, sources))
    assert len(kept(tmp_path / "cache")) == 1
    assert images == 4 * [images_of(opened(folder))]


def test_broken_files_are_named_as_ever(folder, tmp_path):
    path = folder / "train" / "a" / "1.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    forged = folder / "train" / "b" / "2.jpg"
    forged.write_bytes(shrunk.START + bytes(100))
    options = {"on_error": "skip", "max_broken_share": 0.5, "path": tmp_path / "cache"}
    source = opened(folder, **options)
    trained(source)
    problems = sorted(source.skipped.problems)
    assert [str(path) in problems[0], str(forged) in problems[1]] == [True, True]
    assert "is a truncated JPEG" in problems[0]
    assert "is no image that can be read" in problems[1]


def test_what_it_cannot_be_with(folder):
    with pytest.raises(DataError, match="which scaled_decoding='never' rules out"):
        opened(folder, scaled_decoding="never")
    with pytest.raises(DataError, match="is a stream of records"):
        open_source("tfds", name="digits", split="train", cache="decoded", decoded_side=8)


_PACKS = """
import sys
from keras_resnet.input_pipeline import open_source
from keras_resnet.input_pipeline.sources import decoded
shrink, count = decoded.shrink, []
def slowly(*arguments):
    count.append(0)
    if len(count) > 3:
        print("in the middle", flush=True)
        import time; time.sleep(60)
    return shrink(*arguments)
decoded.shrink, decoded._AT_ONCE = slowly, 1
open_source("image_folder", path=sys.argv[1], split="train", exif="apply", cache="decoded",
            cache_path=sys.argv[2], decoded_side=24).prepare()
"""


@pytest.mark.ci
def test_a_killed_one_leaves_nothing_that_counts(folder, tmp_path):
    cache = tmp_path / "cache"
    arguments = [sys.executable, "-c", _PACKS, str(folder), str(cache)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"in the middle\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    left = kept(cache)
    assert left
    assert all(name.startswith(".") for name in left)
    assert images_of(opened(folder, path=cache)) == images_of(opened(folder))
    [name] = kept(cache)
    assert not name.startswith(".")


@pytest.mark.ci
def test_a_run_keeps_them_until_it_ends(folder, tmp_path, monkeypatch):
    changes = {
        "data__source": "image_folder",
        "data__path": str(folder),
        "data__eval_split": "train",
        "data__image_size": SIDE,
        "data__scaled_decoding": "auto",
        "batch_size": 3,
        "epochs": 2,
    }
    sides = []
    written = caching.write_packed
    monkeypatch.setattr(
        caching,
        "write_packed",
        lambda *arguments: sides.append(arguments[0]) or written(*arguments),
    )
    results = {}
    for cache in ("decoded", "none"):
        workdir = tmp_path / cache
        run.train(tiny_config(**changes, data__cache=cache), workdir)
        assert not (workdir / "decoded").exists()
        results[cache] = json.loads((workdir / "result.json").read_text())
    assert {path.parent for path in sides} == {tmp_path / "decoded" / "decoded"}
    # Without random crops the pictures are the same, and with them the whole run.
    for figure in ("loss", "top1", "step"):
        assert results["decoded"][figure] == results["none"][figure]
