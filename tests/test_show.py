"""`keras-resnet show`: the picture holds the very pixels, the figures are those of the batches."""

import sys

import numpy as np
import pytest
from input_helpers import write_images
from PIL import Image

from keras_resnet import commands, input_pipeline
from keras_resnet.commands.show import contact_sheet

CLASSES = {"ant": 6, "bee": 6, "cow": 6}


@pytest.fixture
def arguments(tmp_path):
    write_images(tmp_path / "data" / "train", CLASSES)
    write_images(tmp_path / "data" / "test", {"ant": 1, "bee": 2, "cow": 1})
    data = {"source": "image_folder", "path": tmp_path / "data", "image_size": 8}
    overrides = [f"--config.data.{key}={value}" for key, value in data.items()]
    output = tmp_path / "sheet.png"
    return ["show", "--config=smoke", f"--output={output}", "--config.batch_size=6", *overrides]


@pytest.mark.ci
def test_sheet_shows_the_batches_of_training_and_evaluation(arguments, tmp_path, capsys):
    mixup = ["--config.data.augment.mixup=0.5", "--config.data.augment.crop_padding=2"]
    assert commands.main([*arguments, "--images=8", *mixup]) == 0
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    source = input_pipeline.open_source("image_folder", path=str(tmp_path / "data"), split="train")
    batches = input_pipeline.train_batches(
        source, batch_size=6, seed=0, num_steps=2, image_size=8,
        augment={"crop_padding": 2, "mixup": 0.5},
    )  # fmt: skip
    images, shares = [], []
    for batch in batches.as_numpy_iterator():
        share = batch["mix"][0, 0]
        partners = batch["image"].reshape(3, 2, 8, 8, 3)[:, ::-1].reshape(6, 8, 8, 3)
        images.extend(np.round(share * batch["image"] + (1 - share) * partners))
        shares.append(share)
    factor, gap, line = 14, 6, 15
    for place, image in enumerate(images[:8]):
        top, left = 2 * line, gap + place * (8 * factor + gap)
        shown = sheet[top : top + 8 * factor : factor, left : left + 8 * factor : factor]
        assert np.abs(shown.astype(int) - image).max() <= 1
    printed = capsys.readouterr().out
    assert "training, as augmented: data train: 18 images, 3 classes" in printed
    assert "evaluation: data test: 4 images, 3 classes" in printed
    assert "4 images read: 3 of 3 classes, 1–2 images each" in printed
    assert f"{tmp_path / 'sheet.png'}: {sheet.shape[1]} × {sheet.shape[0]} pixels" in printed


def test_histogram_and_ranges():
    rows = contact_sheet.label_histogram(np.array([2, 2, 2, 0]), ("ant", "bee", "elephant"))
    assert rows[0] == "  4 images read: 2 of 3 classes, 0–3 images each"
    assert rows[1].split() == ["elephant", "3", "█" * 30]
    assert rows[2].split() == ["ant", "1", "█" * 10]
    many = contact_sheet.label_histogram(np.arange(12), tuple("abcdefghijkl"), lines=4)
    assert many[-1] == "  … and 8 more classes"
    pixels = np.zeros((2, 3, 3, 3))
    pixels[..., 1] = 255
    rows = contact_sheet.value_ranges(pixels, pixels / 255 - 0.5)
    assert rows[2].split() == ["pixels", "G", "255.00", "255.00", "255.00", "0.00"]
    assert rows[4].split() == ["normalized", "R", "-0.50", "-0.50", "-0.50", "0.00"]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, "ant"), (0.7, "ant 70% + bee"), (0.2, "ant 20% + bee"), (0.0, "bee")],
)
def test_captions(share, expected):
    assert contact_sheet.caption(("ant", "bee"), 0, 1, share) == expected
    assert contact_sheet.caption(("ant", "bee"), 0, 0, share) == "ant"


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (["--output=sheet.txt"], 2, "--output=sheet.txt: the name should end with .png"),
        (["--output=no/such/sheet.png"], 1, "there is no folder no/such"),
        (["--config.data.augment.policy=trivail"], 2, "'trivail'. Did you mean 'trivial'"),
        (["--config.data.augment.repeats=4"], 1, "multiple of 4, such as 8"),
        (["file"], 2, "unexpected argument 'file'"),
    ],
)
def test_errors(arguments, changes, code, message, capsys):
    assert commands.main([*arguments, *changes]) == code
    assert message in capsys.readouterr().err


def test_missing_pillow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    section = contact_sheet.Section("title", np.zeros((1, 8, 8, 3), np.uint8), ["a"])
    with pytest.raises(contact_sheet.UserError, match=r"pip install 'keras-resnet-tpu\[plot\]'"):
        contact_sheet.write_sheet("x.png", [section])
