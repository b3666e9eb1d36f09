"""From a folder to a config: which images are for what, what fits the machine, what is refused."""

import numpy as np
import pytest
from PIL import Image

from keras_resnet import input_pipeline, training
from keras_resnet.config import flatten
from keras_resnet.errors import UsageError, UserError
from keras_resnet.input_pipeline.layout_finder import find_layout
from keras_resnet.models import create_model
from keras_resnet.models.costs import profile
from keras_resnet.training.planning import recipe
from keras_resnet.training.planning.device import Device
from keras_resnet.training.planning.recipe import Photos, Pretrained
from keras_resnet.training.planning.splits import choose_splits

TWO_CORES = Device("CPU", 1, 2, 38e9)
GPU = Device("GPU", 1, 16, 4e12)
CLASSES = ("cat", "dog", "owl")


def _fill(folder, count=20, classes=CLASSES, size=(12, 10)):
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (*size, 3), "uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def _table(folder, text, name="labels.csv", files=30):
    for number in range(files):
        Image.fromarray(np.full((9, 9, 3), number, "uint8")).save(folder / f"{number}.png")
    (folder / name).write_bytes(text)
    return folder / name


def _rows(separator=",", end="\n", count=30):
    return "".join(f"{i}.png{separator}{'ab'[i % 2]}{end}" for i in range(count)).encode()


@pytest.mark.parametrize(
    ("folders", "names", "counts"),
    [
        # One folder: 20 % held out, half to choose by and half to report.
        ([""], ["train[:80%]", "train[80%:90%]", "train[90%:]"], [48, 6, 6]),
        (["Bilder von Tieren ✓"], ["train[:80%]", "train[80%:90%]", "train[90%:]"], [48, 6, 6]),
        # What is reported is not what is chosen by, whatever the one held-out split is called.
        (["Training", "Testing"], ["train[:80%]", "train[80%:]", "test"], [48, 12, 60]),
        (["train", "valid"], ["train[:80%]", "train[80%:]", "test"], [48, 12, 60]),
        (["a/train_set", "a/test_set"], ["train[:80%]", "train[80%:]", "test"], [48, 12, 60]),
        (["train", "val", "test"], ["train", "validation", "test"], [60, 60, 60]),
    ],
)
def test_three_kinds_of_images_apart(folders, names, counts, tmp_path):
    for folder in folders:
        _fill(tmp_path / folder)
    config = training.plan(tmp_path).config
    data = config.data
    assert [data.train_split, data.eval_split, data.test_split] == names
    files, shares = [], []
    for split in names:
        source = input_pipeline.open_source("image_folder", path=data.path, split=split)
        files.append({name for name, _ in source.records()})
        shares.append(set(source.class_counts()))
    assert [len(split) for split in files] == counts
    assert len(set.union(*files)) == sum(counts)
    # Every class has its share of every split.
    assert all(len(share) == 1 for share in shares)


def test_the_share_that_is_held_out(tmp_path):
    layout = find_layout(str(_fill(tmp_path / "photos")))
    splits = choose_splits(layout, 0.35, {})
    assert splits.names["validation"] == "train[65%:83%]"
    assert splits.names["test"] == "train[83%:]"
    for share in (0.0, 0.9, float("nan")):
        with pytest.raises(UsageError, match=f"--split={share:g} must be at least 0.02"):
            choose_splits(layout, share, {})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"path,label\n" + _rows(), "labels.csv"),
        (_rows("\t"), "labels.tsv"),
        (b"\xef\xbb\xbfpath;label\r\n" + _rows(";", "\r\n"), "labels.csv"),
        (
            b"".join(b'{"path": "%d.png", "label": "%d"}\n' % (i, i % 2) for i in range(30)),
            "l.jsonl",
        ),
    ],
)
def test_tables(text, name, tmp_path):
    plan = training.plan(_table(tmp_path, text, name))
    assert plan.lines[0].startswith("images     24 images to train on, 3 to choose by, 3 to report")
    assert len(plan.lines) == 5


def test_a_table_that_names_missing_files(tmp_path):
    table = _table(tmp_path, _rows(), files=28)
    with pytest.raises(UserError, match=r"names 2 of 30 images that are not there: .*28\.png"):
        training.plan(table)


def test_one_class_only(tmp_path):
    with pytest.raises(UserError, match="has one class only, 'cat': there is nothing to tell"):
        training.plan(_fill(tmp_path / "photos", classes=["cat"]))


def test_a_class_with_one_image_is_trained_on_and_said(tmp_path):
    _fill(tmp_path)
    _fill(tmp_path, count=1, classes=["yak"])
    plan = training.plan(tmp_path)
    counts = input_pipeline.open_source(
        "image_folder", path=str(tmp_path), split=plan.config.data.train_split
    ).class_counts()
    assert counts.tolist()[3] == 1
    held_out = [line for line in plan.warnings if "no image of 'yak'" in line]
    assert len(held_out) == len(plan.warnings) == 2


def test_too_few_images_to_hold_some_out(tmp_path):
    with pytest.raises(
        UserError, match=r"has 3 images, of which train\[.*\] holds none; add images$"
    ):
        training.plan(_fill(tmp_path / "photos", count=1))
    # What it says works.
    few = _fill(tmp_path / "few", count=2)
    with pytest.raises(UserError, match=r"or hold out \d+% of them with --split=0\.\d$") as caught:
        training.plan(few, split=0.05)
    share = float(str(caught.value).rpartition("=")[2])
    assert not any(
        "which is trained on" in line for line in training.plan(few, split=share).warnings
    )


def test_a_class_that_is_not_trained_on_is_said(tmp_path):
    _fill(tmp_path)
    _fill(tmp_path, count=1, classes=["yak"])
    [first, *_] = training.plan(tmp_path, split=0.8).warnings
    assert first.startswith("warning: no image of 'yak' in train[:20%], which is trained on: the ")


def test_no_training_images(tmp_path):
    _fill(tmp_path / "val")
    _fill(tmp_path / "test")
    with pytest.raises(UserError, match=r"has no training images: its splits are val, test"):
        training.plan(tmp_path)


def test_splits_that_share_images_are_said(tmp_path):
    plan = training.plan(_fill(tmp_path / "photos"), overrides={"data.train_split": "train"})
    assert "warning: 12 images are trained on and held out as well" in plan.warnings[0]


def test_what_is_given_wins_over_every_choice(tmp_path):
    overrides = {
        "model.name": "ResNet34",
        "data.image_size": 48,
        "batch_size": 4,
        "epochs": 7,
        "optimizer.learning_rate": 0.5,
        "data.augment.flip": False,
        "checkpoint.model": "best",
    }
    plan = training.plan(_fill(tmp_path / "photos"), overrides=overrides)
    values = dict(flatten(plan.config))
    assert {key: values[key] for key in overrides} == overrides
    assert "ResNet34 at 48 px" in plan.lines[1]
    assert "7 epochs of 12 steps of 4 images" in plan.lines[2]
    with pytest.raises(UsageError, match=r"config\.epochs=0 must be at least 1"):
        training.plan(tmp_path / "photos", overrides={"epochs": 0})


def _chosen(photos, device=TWO_CORES, minutes=60.0, pretrained=None, **given):
    values = recipe.choose(photos, device, minutes, pretrained, given)
    return values.values, values.minutes


def test_few_large_photos_are_kept_decoded():
    photos = Photos(500, 50, 3000, 4000)
    given = {"data.image_size": 224, "model.name": "ResNet18", "epochs": 20}
    found = recipe.choose(photos, TWO_CORES, 60.0, None, given)
    assert found.values["data.cache"] == "decoded"
    assert found.kept_bytes == 550 * 750 * 1000 * 3  # at a quarter: an eighth leaves less than 448
    without, minutes = _chosen(photos, **given, **{"data.cache": "none"})
    assert without["data.cache"] == "none"
    # 25.4 ms of a core to decode a photo at a quarter, 1.5 ms to copy one.
    saved = 500 * 20 * (0.02535 * (1 - 1 / found.wanted_epochs) - 0.0015) / 2 / 60
    assert minutes - found.minutes == pytest.approx(saved, rel=0.01)
    for other in (
        Photos(500, 50, 375, 500),  # small
        Photos(3000, 50, 3000, 4000),  # many
        Photos(500, 50, 3000, 4000, jpegs=0.4),
    ):
        assert "data.cache" not in _chosen(other, GPU, **{"data.image_size": 224})[0]
    for given in ({"data.scaled_decoding": "never"}, {"epochs": 2}):
        assert "data.cache" not in _chosen(photos, GPU, **{"data.image_size": 224, **given})[0]


def test_more_minutes_more_pixels():
    photos = Photos(1_600, 200, 375, 500)
    sizes = []
    for minutes in (1, 5, 15, 60, 300):
        values, takes = _chosen(photos, minutes=minutes)
        sizes.append((values["model.name"], values["data.image_size"]))
        assert takes <= minutes or values["epochs"] == 3
    assert sizes == sorted(sizes, key=lambda size: size[1])
    assert sizes[0] == ("CifarResNet20", 32)
    assert sizes[-1] == ("ResNet18", 224)
    assert _chosen(photos, GPU, minutes=15)[0]["data.image_size"] == 224
    assert _chosen(Photos(100_000, 9_000, 375, 500), GPU, 600.0)[0]["model.name"] == "ResNet50"


def test_small_images_are_not_enlarged():
    for side, size in ((8, 16), (28, 32), (32, 32), (48, 48), (70, 64), (100, 96)):
        values, _ = _chosen(Photos(2_000, 500, side, 2 * side), GPU)
        assert values["data.image_size"] == size
        assert (values["model.name"] == "CifarResNet20") == (size <= 48)


def test_fine_tuning_trains_the_classifier_first():
    pretrained = Pretrained("ResNet50", 224)
    values, _ = _chosen(Photos(1_000, 100, 375, 500), GPU, pretrained=pretrained)
    assert (values["model.name"], values["data.image_size"]) == ("ResNet50", 224)
    assert (values["model.freeze"], values["epochs"], values["model.unfreeze_epoch"]) == (
        "body",
        20,
        4,
    )
    assert values["optimizer.layer_decay"] == 0.5
    small, _ = _chosen(Photos(200, 50, 32, 32), pretrained=Pretrained("CifarResNet20", 32))
    assert (small["epochs"], small["optimizer.layer_decay"]) == (150, 0.8)
    assert small["optimizer.learning_rate"] == pytest.approx(0.025 / 4)  # 8 images a step, not 32
    # Whoever freezes something else, or trains for one epoch, has no stages.
    for given in ({"model.freeze": "norm"}, {"model.freeze": ""}, {"epochs": 1}):
        values, _ = _chosen(Photos(1_000, 100, 375, 500), GPU, pretrained=pretrained, **given)
        assert "model.unfreeze_epoch" not in values
    values, _ = _chosen(Photos(30_000, 300, 375, 500), pretrained=pretrained)
    assert values["data.image_size"] < 224


def test_few_judges_choose_nothing():
    assert _chosen(Photos(80, 10, 300, 300))[0]["checkpoint.model"] == "newest"
    assert _chosen(Photos(800, 100, 300, 300))[0]["checkpoint.model"] == "best"


def test_batches_are_whole_on_every_replica():
    for count in (30, 300, 3_000, 30_000):
        for replicas in (1, 2, 4, 8):
            device = Device("GPU", replicas, 16, replicas * 4e12)
            size = _chosen(Photos(count, 50, 300, 300), device)[0]["batch_size"]
            assert size % replicas == 0
            assert size // replicas >= 8


def test_the_cost_of_a_network_goes_with_the_area():
    model = create_model("ResNet18", input_shape=(128, 128, 3))
    expected = profile(model).multiply_adds
    assert recipe.multiply_adds("ResNet18", 128) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan")])
def test_minutes_that_cannot_be(minutes, tmp_path):
    with pytest.raises(UsageError, match="must be above 0"):
        training.plan(tmp_path, minutes=minutes)
