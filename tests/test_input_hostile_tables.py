"""Tables of strangers, names that no cell holds as it is, and links that lead round."""

import csv
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from input_helpers import encode, smooth_image
from ml_collections import ConfigDict

from keras_resnet import input_pipeline
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.label_tables import path_cell, path_of_cell
from keras_resnet.input_pipeline.layout_finder import find_layout
from keras_resnet.training.split_lists import remember_splits

PNG = encode(smooth_image(8, 8))
# Classes and files: formulas, bytes, line breaks, escapes, separators of labels, quotes, spaces.
NAMES = (
    *(b"=cmd|' C calc'!A0", b"caf\xe9", b"new\nline\rcr", b"\x1b[31mred", b"a|b", b"a;b,c"),
    *(b'"quoted"', b'["list"]', b"[1]", b"-1", b" space ", b"back\\slash", b"tench, Tinca tinca"),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = os.fsencode(tmp_path_factory.mktemp("photos"))
    for seed, name in enumerate(NAMES):
        os.makedirs(root + b"/" + name)
        for file in NAMES:
            with open(root + b"/" + name + b"/" + file + b".png", "wb") as opened:
                opened.write(encode(smooth_image(8, 8, seed=seed)))
    return os.fsdecode(root)


def _write_list(photos, folder, multi_label=False):
    """splits.csv as a run writes it."""
    data = {"source": "image_folder", "train_split": "train[:50%]", "eval_split": "train[50%:]"}
    config = ConfigDict({"data": data})
    sources = {
        name: input_pipeline.open_source(
            source="image_folder", path=photos, split=data[f"{name}_split"], multi_label=multi_label
        )
        for name in ("train", "eval")
    }
    workdir = SimpleNamespace(splits=folder / "splits.csv")
    assert list(remember_splits(workdir, config, sources)) == []
    again = list(remember_splits(workdir, config, {**sources, "train": sources["eval"]}))
    return workdir.splits, sources, again


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_list_of_splits_gives_every_name_back(photos, tmp_path, multi_label):
    path, sources, again = _write_list(photos, tmp_path, multi_label)
    layout = find_layout(str(path), None)
    assert not layout.multi_label  # each image lies in one class: no name is parted
    names = sorted(map(os.fsdecode, NAMES))
    assert list(layout.class_names()) == names
    for name, source in (("train", sources["train"]), ("test", sources["eval"])):
        expected = {(file, Path(file).parent.name) for file, _ in source.records()}
        found = {(file, names[label]) for file, label in layout.examples(layout.find(name))}
        assert found == expected
    assert len(again) == 1  # images that were held out are known, however they are written
    assert f"{sources['eval'].num_examples:,} images that were held out" in again[0]


def test_a_list_of_splits_holds_no_formula_and_no_escape(photos, tmp_path):
    text = _write_list(photos, tmp_path)[0].read_bytes()
    assert all(byte == 10 or 32 <= byte < 127 for byte in text)
    rows = list(csv.reader(text.decode().splitlines()))
    assert len(rows) == 1 + len(NAMES) ** 2
    assert not [cell for row in rows for cell in row if cell[:1] in "=+-@'"]


@pytest.mark.parametrize("name", [*map(os.fsdecode, NAMES), "/plain.png", "'=x.png", "\ud800.png"])
def test_a_path_comes_back_from_its_cell(name):
    assert path_of_cell(path_cell(name)) == name
    path_cell(name).encode()


def test_what_others_write_in_quotes_stays():
    for cell in ('"', '""x', '"a"b"', '"\\x"'):
        assert path_of_cell(cell) == cell


def _refused(tmp_path, name, kind="csv"):
    (tmp_path / "a.png").write_bytes(PNG)
    table = tmp_path / f"t.{kind}"
    if kind == "csv":
        table.write_text(f"path,label\na.png,x\n{name},y\n")
    else:
        rows = [{"path": "a.png", "label": "x"}, {"path": name, "label": "y"}]
        table.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError) as error:
        find_layout(str(table)).examples(find_layout(str(table)).splits[0])
    return str(error.value)


@pytest.mark.parametrize("name", ["/dev/zero", "file:///dev/zero", "zero.png", "pipe.png"])
def test_devices_and_pipes_are_no_images(tmp_path, name):
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe.png")
    assert "names 1 of 2 images that are no files: " in _refused(tmp_path, name)


@pytest.mark.parametrize("name", ["loop.png", "file:///nowhere/x.png", "b\0.png", "\ud800.png"])
def test_what_is_not_there_is_named(tmp_path, name):
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "names 1 of 2 images that are not there: " in _refused(tmp_path, name, "jsonl")


@pytest.mark.parametrize("name", ["http://127.0.0.1:9/y.png", "hdfs://h/y.png", "://y.png"])
def test_addresses_that_nothing_here_reads_are_refused_at_the_start(tmp_path, name):
    message = _refused(tmp_path, name)
    if not name.startswith(":"):
        assert f"names 1 of 1 addresses that cannot be read as files, such as {name}" in message


def test_a_file_address_is_a_file(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    table = tmp_path / "t.csv"
    table.write_text(f"path,label\nfile://{tmp_path}/a.png,x\n")
    source = input_pipeline.open_source(source="image_folder", path=str(table), split="train")
    assert source.example_name(0) == f"{tmp_path}/a.png"


@pytest.mark.parametrize("target", ["/dev/zero", None])
def test_a_table_is_a_file(tmp_path, target):
    table = tmp_path / "t.csv"
    table.symlink_to(target) if target else os.mkfifo(table)
    with pytest.raises(DataError, match="is a pipe or device, no file"):
        find_layout(str(table))


def test_links_that_lead_round_are_no_classes(tmp_path):
    photos = tmp_path / "photos"
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        (photos / name / "1.png").write_bytes(PNG)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "1.png").write_bytes(PNG)
    (photos / "bird").symlink_to(tmp_path / "bird")  # a class as good as any
    (photos / "loop").symlink_to(".")
    (photos / "up").symlink_to("..")
    (photos / "a_cat").symlink_to("cat")
    layout = find_layout(str(photos))
    assert layout.class_names() == ("a_cat", "bird", "cat", "dog")
    assert len(layout.examples(layout.splits[0])) == 4
    notes = layout.notes()
    assert f"{photos}/a_cat is a link to cat: the same images in two classes" in notes
    assert "passed over: 2 links to folders that are counted already" in notes
    assert len(notes) == 2


def test_a_folder_of_nothing_but_itself_ends(tmp_path):
    (tmp_path / "again").symlink_to(".")
    with pytest.raises(UserError, match="holds no class folders"):
        find_layout(str(tmp_path))


def test_a_message_does_not_quote_megabytes(tmp_path, capsys):
    table = tmp_path / "t.jsonl"
    table.write_text(json.dumps({"path": "a.png", "label": {"x" * 5_000_000: 1}}))
    assert main(["inspect", str(table)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 2_200
    assert line.startswith(f"keras-resnet inspect: {table}, line 1: the path 'a.png' with the ")
    assert line.endswith("an image has one path and one label, a text or a whole number.")
