"""The file of a checkpoint: the safetensors package reads it, and damage of it is noticed."""

import json
import os
import struct
import tracemalloc
import zlib

import ml_dtypes
import numpy as np
import pytest
import safetensors

from keras_resnet.training import checkpoint_file
from keras_resnet.training.checkpoint_file import Damaged

ARRAYS = {
    "model/kernel": np.arange(6, dtype="float32").reshape(2, 3),
    "model/half": np.array([1.5, -2.0, np.finfo("float16").max], "float16"),
    "model/bfloat": np.array([1.5, -2.0, 3e38], ml_dtypes.bfloat16),
    "model/transposed": np.arange(6.0).reshape(2, 3).T,
    "model/nothing": np.zeros((0, 3), "float32"),
    "seeds/dropout/0": np.array([2**32 - 1, 0], "uint32"),
    "optimizer/iteration": np.array(2**40, "int64"),
    "optimizer/ü": np.array([True, False]),
}
TEXTS = {"kind": "test", "progress": '{"step": 7}'}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint_file.write(path, ARRAYS, TEXTS)
    return path


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_everything_comes_back(path):
    texts, arrays = checkpoint_file.read(path)
    assert texts.items() >= TEXTS.items()
    assert_same(arrays, ARRAYS)
    _, some = checkpoint_file.read(path, lambda name: name.startswith("seeds/"))
    assert_same(some, {"seeds/dropout/0": ARRAYS["seeds/dropout/0"]})


def test_the_safetensors_package_reads_it(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata().items() >= TEXTS.items()
        assert_same({name: file.get_tensor(name) for name in ARRAYS}, ARRAYS)


def test_a_flipped_bit_and_a_truncation_are_noticed(path):
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):  # 3 and 8 have no divisor in common: each bit in turn
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(Damaged) as caught:
            checkpoint_file.read(path)
        assert "\n" not in str(caught.value)
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            checkpoint_file.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(Damaged, match="bytes in place of"):
        checkpoint_file.read(path)


def lying(entries, data=b"", **texts):
    """Returns a file whose header says what it likes, with the checksum that it needs."""
    texts = {"crc32": ",".join("00000000" for _ in entries), **texts}
    header = {**entries, "__metadata__": texts}
    texts["header_crc32"] = "00000000"
    text = json.dumps(header, separators=(",", ":")).encode()
    text = text.replace(b'32":"00000000"}}', b'32":"%08x"}}' % zlib.crc32(text))
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, end, dtype="F32", begin=0):
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}}


FOREIGN = {
    "nothing": b"",
    "a text": b"no checkpoint of anything",
    "a header as long as 2**63": struct.pack("<Q", 2**63) + b"{}",
    "a header longer than the file": struct.pack("<Q", 100) + b"{}",
    "a list": struct.pack("<Q", 2) + b"[]",
    "an empty object": struct.pack("<Q", 2) + b"{}",
    "a thousand levels": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "digits without end": struct.pack("<Q", 100_000) + b"9" * 100_000,
    "metadata that is a number": struct.pack("<Q", 18) + b'{"__metadata__":5}',
    "terabytes": lying(entry([2**40], 2**42)),
    "more than any number": lying(entry([2**62] * 30, 2**100)),
    "thousands of digits": lying(entry([10**4200], 4 * 10**4200)),
    "a negative shape": lying(entry([-1], -4)),
    "a shape of numbers with points": lying(entry([1.0], 4), bytes(4)),
    "a shape that is true": lying(entry([True], 4), bytes(4)),
    "a hundred axes": lying(entry([1] * 100, 4), bytes(4)),
    "no shape": lying(entry(None, 4), bytes(4)),
    "an unknown dtype": lying(entry([1], 4, "F4"), bytes(4)),
    "a dtype that is a list": lying(entry([1], 4, ["F32"]), bytes(4)),
    "a gap": lying(entry([1], 8, begin=4), bytes(8)),
    "an entry that is a list": lying({"x": []}),
    "no checksums": lying(entry([1], 4), bytes(4), crc32=""),
    "a checksum that is none": lying(entry([1], 4), bytes(4), crc32="a\nb"),
    "a name of two lines": lying({"x\ny": entry([1], 4)["x"]}, bytes(4)),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_lies_is_one_line_and_costs_no_memory(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(Damaged) as caught:
            checkpoint_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 10 * len(content) + 200_000
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_another_file_of_the_safetensors_package_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3, "float32")}, tmp_path / "x", metadata={"format": "pt"})
    with pytest.raises(Damaged, match="no checkpoint of a run"):
        checkpoint_file.read(tmp_path / "x")


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # to read it would take for ever
    for name, reason in (("none", "missing"), (".", "no file"), ("pipe", "no file")):
        with pytest.raises(Damaged, match=reason):
            checkpoint_file.read(tmp_path / name)


def test_writing_and_reading_take_no_second_copy(tmp_path):
    arrays = {str(number): np.full(2**20, number, "float32") for number in range(8)}
    size, path = 8 * 2**22, tmp_path / "x"
    tracemalloc.start()
    try:
        checkpoint_file.write(path, arrays, {})
        checkpoint_file.verify(path)
        assert tracemalloc.get_traced_memory()[1] < size / 2  # a part at a time
        tracemalloc.reset_peak()
        _, found = checkpoint_file.read(path)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
    finally:
        tracemalloc.stop()
    assert_same(found, arrays)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_named(dtype, value):
    array = np.zeros(200_000, dtype)
    assert checkpoint_file.find_non_finite({"x": array, "n": np.array(3)}) is None
    array[150_000] = value
    assert checkpoint_file.find_non_finite({"n": np.array(3), "x": array}) == "x"


def test_a_dtype_that_no_checkpoint_has_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="x is complex64"):
        checkpoint_file.write(tmp_path / "x", {"x": np.zeros(1, "complex64")}, {})
