"""Names from elsewhere: bytes inside, escaped outside, never lost."""

import csv
import io
import json
import logging
import os
import warnings

import numpy as np
import pytest
import tensorflow as tf
from input_helpers import encode, smooth_image

from keras_resnet import input_pipeline
from keras_resnet.commands import main
from keras_resnet.commands.show import contact_sheet
from keras_resnet.export import export_saved_model, load_predictor
from keras_resnet.export.labels import read_labels, write_labels
from keras_resnet.models import create_model
from keras_resnet.models.loading import load_model
from keras_resnet.printing import csv_cell, from_bytes, printable, printable_lines, to_bytes
from keras_resnet.training import confusion
from keras_resnet.training.say import Say

# Whole runs, most of them: `.ci/run` runs them, the README's command has its ten minutes.
pytestmark = pytest.mark.ci

# The bytes of a name, what a terminal gets, and the cell of a spreadsheet.
NAMES = {
    b"\x1b[31mred": (r"\x1b[31mred", r"\x1b[31mred"),
    b"new\nline": (r"new\nline", r"new\nline"),
    b"caf\xe9": (r"caf\xe9", r"caf\xe9"),
    b"=cmd|' C calc'!A0": ("=cmd|' C calc'!A0", "'=cmd|' C calc'!A0"),
    b"-minus": ("-minus", "'-minus"),
    b"'=quoted": ("'=quoted", "''=quoted"),
    b"'s Gravenhage": ("'s Gravenhage", "'s Gravenhage"),
    b"\xc2\x9b31m": (r"\x9b31m", r"\x9b31m"),  # the control sequence introducer in one byte
    b"\xe2\x80\xaetxt.exe": (r"\u202etxt.exe", r"\u202etxt.exe"),  # right to left
    b"\xef\xbc\x9d1+1": ("\uff1d1+1", "'\uff1d1+1"),  # a wide =
    "Köln 東京\u3000e\u0301".encode(): ("Köln 東京\u3000e\u0301", "Köln 東京\u3000e\u0301"),
    b"$\\frac{$": ("$\\frac{$", "$\\frac{$"),
}
CLASSES = [os.fsdecode(name) for name in NAMES]


@pytest.mark.parametrize(("name", "shown", "cell"), [(k, *v) for k, v in NAMES.items()])
def test_a_name_is_exact_inside_and_escaped_outside(name, shown, cell):
    text = from_bytes(name)
    assert to_bytes(text) == name
    assert json.loads(json.dumps(text)) == text
    assert printable(text) == shown
    assert csv_cell(text) == cell
    written = io.StringIO()
    csv.writer(written).writerow([cell, 1])
    ((back, _),) = csv.reader(io.StringIO(written.getvalue()))
    assert back == cell
    printable(text).encode()  # in whatever a terminal takes


def test_halves_of_pairs_and_lines():
    assert printable("a\ud800b") == r"a\ud800b"
    assert to_bytes("a\ud800b") == b"a\xed\xa0\x80b"
    assert printable_lines("a\x1b\nb") == "a\\x1b\nb"
    for start in "\t\r\n":
        assert not csv_cell(f"{start}=1").startswith(start)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of images for each name, in a folder whose name is no UTF-8 either."""
    root = os.fsencode(tmp_path_factory.mktemp("data")) + b"/d\xfe"
    for name in NAMES:
        os.makedirs(root + b"/" + name)
        for number, file in enumerate((b"\xff.png", b"=\x1b[2J.png")):
            with open(root + b"/" + name + b"/" + file, "wb") as opened:
                opened.write(encode(smooth_image(20, 30, seed=number)))
    return os.fsdecode(root)


def test_folders_and_files_are_read_whatever_they_are_called(folder):
    source = input_pipeline.open_source(source="image_folder", path=folder, split="train")
    assert source.class_names == tuple(sorted(CLASSES))
    assert source.num_examples == 2 * len(NAMES)
    encoded, labels = source.fetch(tf.constant(range(source.num_examples), tf.int64))
    for place, (content, label) in enumerate(zip(encoded.numpy(), labels.numpy(), strict=True)):
        name = source.example_name(place)
        with open(os.fsencode(name), "rb") as file:
            assert file.read() == content
        assert os.path.basename(os.path.dirname(name)) == source.class_names[label]
    assert source.encoded_bytes() == sum(map(len, encoded.numpy()))
    assert len(source.fingerprint()) == 64


def _model():
    shape = {"depths": (1, 1, 1), "widths": (16, 16, 16), "input_shape": (32, 32, 3)}
    model = create_model("CifarResNet20", classes=len(CLASSES), **shape)
    model.class_names = CLASSES
    return model


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "x.keras"
    model = _model()
    model.save(path)
    return path


def test_a_model_file_holds_names_exactly(model_file):
    assert load_model(model_file).class_names == CLASSES


@pytest.mark.parametrize("kind", ["text", "jsonl", "csv"])
@pytest.mark.parametrize("to_file", [False, True])
def test_predict_prints_them(folder, model_file, tmp_path, capfd, kind, to_file):
    output = os.fsdecode(os.fsencode(tmp_path) + b"/o\xff")
    arguments = [f"--model={model_file}", f"--top={len(CLASSES)}", f"--format={kind}", folder]
    assert main(["predict", *arguments, *([f"--output={output}"] if to_file else [])]) == 0
    printed = capfd.readouterr().out.encode()
    if to_file:
        with open(os.fsencode(output), "rb") as file:
            printed = file.read()
    text = printed.decode()  # it is UTF-8
    assert not [c for c in text if not c.isprintable() and c not in "\r\n\u3000"]
    if kind == "jsonl":
        rows = list(map(json.loads, text.splitlines()))
        assert {row["image"] for row in rows} == {
            os.path.join(folder, name, file)
            for name in CLASSES
            for file in ("\udcff.png", "=\x1b[2J.png")
        }
        assert {p["class"] for row in rows for p in row["predictions"]} == set(CLASSES)
    elif kind == "csv":
        header, *rows = csv.reader(io.StringIO(text, newline=""))
        cells = {cell for row in rows for cell in row[1:-1:3]}
        assert cells == {cell for _, cell in NAMES.values()}
        assert len(rows) == 2 * len(NAMES)
        assert all(len(row) == len(header) for row in rows)
    else:
        assert all(f"  {shown}" in text for shown, _ in NAMES.values())


def test_labels_have_a_line_each(tmp_path):
    write_labels(tmp_path / "labels.txt", CLASSES)
    assert (tmp_path / "labels.txt").read_bytes() == b"".join(
        name.replace(b"\n", b"\\n") + b"\n" for name in NAMES
    )
    expected = [name.replace("\n", "\\n") for name in CLASSES]
    assert read_labels(tmp_path / "labels.txt") == expected


def test_an_export_answers_with_the_bytes(tmp_path, folder):
    model = _model()
    path = export_saved_model(model, tmp_path / "x", top=len(CLASSES)).path
    loaded = tf.saved_model.load(str(path))
    image = encode(smooth_image(20, 30, seed=1))
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant([image]))
    assert set(answer["classes"].numpy()[0]) == set(NAMES)
    assert list(load_predictor(path).class_names) == CLASSES


def test_tables_pictures_and_lines_of_a_run(tmp_path, capsys):
    matrix = np.ones([len(CLASSES)] * 2, int)
    confusion.write_table(matrix, CLASSES, tmp_path / "classes.csv")
    _, *rows = csv.reader(io.StringIO((tmp_path / "classes.csv").read_text(encoding="utf-8")))
    assert [row[0] for row in rows] == [cell for _, cell in NAMES.values()]
    pytest.importorskip("matplotlib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of letters that no font here has
        confusion.draw(matrix, CLASSES, tmp_path / "confusion.png", "title")
    lines = confusion.worst_classes(matrix, CLASSES)
    lines += contact_sheet.label_histogram(np.arange(len(CLASSES)), tuple(CLASSES), 20)
    assert "\x1b" not in "".join(lines)
    Say()("\x1b[2J\udcff")
    assert capsys.readouterr().out == "\\x1b[2J\\xff\n"


def test_messages_and_the_log_escape_names(tmp_path, caplog, capsys):
    missing = os.fsdecode(os.fsencode(tmp_path) + b"/\x1b[31m\xff.png")
    assert main(["predict", "--model=x.keras", missing]) == 1
    message = capsys.readouterr().err
    assert "\\x1b[31m\\xff.png" in message
    assert "\x1b" not in message
    skipped = input_pipeline.corrupt_images.SkippedImages(1000, 0.1)
    with caplog.at_level(logging.WARNING):
        skipped.add("a", "\x1b[31m.png is empty")
    assert "\\x1b[31m.png is empty" in caplog.text
    assert skipped.problems == ["\x1b[31m.png is empty"]
