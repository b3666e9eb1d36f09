"""The data doctor: what it finds among planted faults, and against other libraries."""

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image, ImageFilter

import keras_resnet
from keras_resnet import input_pipeline, inspection
from keras_resnet.commands import main
from keras_resnet.errors import UserError
from keras_resnet.inspection import duplicates, file_headers, findings, label_errors
from keras_resnet.inspection.cross_validation import predict_from_others
from keras_resnet.inspection.measuring import measure
from keras_resnet.preprocessing import Preprocessing

rng = np.random.default_rng(0)


def photo(seed: int, size=(160, 120)) -> Image.Image:
    """Something with shapes of all sizes, as photos have them: noise whose power falls as 1/f²."""
    random = np.random.default_rng(seed)
    width, height = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1
    planes = []
    for _ in range(3):
        noise = np.fft.fft2(random.normal(size=(height, width))) / frequency**1.2
        plane = np.fft.ifft2(noise).real
        planes.append(128 + 45 * (plane - plane.mean()) / plane.std())
    return Image.fromarray(np.stack(planes, -1).clip(0, 255).astype(np.uint8))


def save(image: Image.Image, *path, **options) -> str:
    place = os.path.join(*map(str, path))
    os.makedirs(os.path.dirname(place), exist_ok=True)
    image.save(place, **options)
    return place


@pytest.fixture
def folder(tmp_path):
    """Two classes in two splits, twelve images without a fault."""
    for number in range(12):
        split = "train" if number < 8 else "test"
        save(photo(number), tmp_path, split, "ab"[number % 2], f"{number:02}.jpg", quality=92)
    return tmp_path


def paths(finding) -> list[str]:
    return [os.path.basename(item.path) for item in finding.items]


@pytest.mark.ci
def test_nothing_is_found_where_nothing_is_wrong(folder):
    found = keras_resnet.inspect_images(folder)
    assert found.findings == ()
    assert found.images == 12
    assert found.classes == {"train": {"a": 4, "b": 4}, "test": {"a": 2, "b": 2}}
    assert found.files_to_leave_out() == []


def test_same_images_in_a_class_a_split_and_under_labels(folder):
    train, test = folder / "train", folder / "test"
    shutil.copy(train / "a/00.jpg", train / "a/copy.jpg")
    shutil.copy(train / "a/02.jpg", train / "b/other.jpg")
    shutil.copy(test / "b/09.jpg", train / "b/leaked.jpg")
    # The same pixels in another file.
    Image.open(train / "b/01.jpg").save(train / "b/same.png")
    near = Image.open(test / "a/08.jpg").crop((8, 0, 160, 120)).resize((91, 72))
    near.save(train / "a/near.jpg", quality=60)
    found = keras_resnet.inspect_images(folder)
    assert [one.kind for one in found.findings] == ["leak", "conflict", "duplicate"]
    assert sorted(paths(found["leak"])) == ["08.jpg", "09.jpg", "leaked.jpg", "near.jpg"]
    assert paths(found["conflict"]) == ["02.jpg", "other.jpg"]
    assert paths(found["duplicate"]) == ["00.jpg", "copy.jpg", "01.jpg", "same.png"]
    # Of a leak the evaluation's copy stays, of a duplicate the first, of a conflict none.
    left_out = [os.path.basename(path) for path in found.files_to_leave_out()]
    assert sorted(left_out) == [
        *("02.jpg", "copy.jpg", "leaked.jpg", "near.jpg", "other.jpg", "same.png")
    ]


@pytest.mark.ci
def test_near_duplicates_among_images_that_are_not(tmp_path):
    """Each of 40 images once more, recompressed, resized or cropped by 5 %: all found, no other."""
    changes = [
        lambda image: (image, 30),
        lambda image: (image.resize((96, 72)), 90),
        lambda image: (image.crop((4, 3, 156, 117)), 90),
        lambda image: (image.crop((8, 0, 160, 120)).resize((120, 95)), 60),
    ]
    for number in range(40):
        image = photo(number)
        save(image, tmp_path, "a", f"{number:02}.jpg", quality=92)
        changed, quality = changes[number % 4](image)
        save(changed, tmp_path, "a", f"{number:02}_near.jpg", quality=quality)
    found = keras_resnet.inspect_images(tmp_path)["near_duplicate"]
    groups = [{os.path.basename(item.path)[:2] for item in group} for group in found.groups]
    assert len(groups) == 40
    assert all(len(group) == 1 for group in groups)
    # The larger one stays.
    assert sum(item.left_out for item in found.items) == 40
    exact_only = keras_resnet.inspect_images(tmp_path, near_duplicates=False)
    assert exact_only.findings == ()


def test_hash_is_that_of_a_plain_cosine_transform():
    copies = rng.integers(0, 256, (20, 32, 32)).astype(np.uint8)
    steps = (np.arange(32) + 0.5) / 32
    waves = np.cos(np.pi * np.arange(8)[:, None] * steps)  # sampled, not integrated: up to a factor
    waves *= np.sinc(np.arange(8)[:, None] / 64)
    for copy, value in zip(copies, duplicates.hashes(copies), strict=True):
        frequencies = (waves @ copy.astype(float) @ waves.T).ravel()[1:]
        bits = [False, *(frequencies > np.median(frequencies))]
        assert np.packbits(bits).view(np.uint64)[0] == value


def test_bits_are_counted_alike_without_numpy_2(monkeypatch):
    values = rng.integers(0, 2**63, (5, 7)).astype(np.uint64)
    expected = [[int(value).bit_count() for value in row] for row in values]
    np.testing.assert_array_equal(duplicates._differing(values), expected)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(duplicates._differing(values), expected)


@pytest.mark.ci
def test_single_images(folder):
    a = folder / "train/a"
    save(Image.new("RGB", (90, 60), (10, 200, 30)), a, "green.png")
    save(photo(20).point(lambda level: level * 0.1), a, "night.jpg")
    save(photo(21).filter(ImageFilter.GaussianBlur(4)), a, "soft.png")
    save(photo(22, (24, 26)), a, "thumb.jpg")
    save(photo(23, (480, 120)), a, "banner.jpg")
    save(photo(24), a, "jpeg.png", format="JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photo(25), a, "lying.jpg", exif=exif)
    save(Image.new("L", (8000, 7000), 255), a, "huge.jpg")
    found = keras_resnet.inspect_images(folder)
    assert {one.kind: paths(one) for one in found.findings} == {
        "single_color": ["green.png", "huge.jpg"],
        "dark": ["night.jpg"],
        "blurry": ["soft.png"],
        "tiny": ["thumb.jpg"],
        "huge": ["huge.jpg"],
        "odd_shape": ["banner.jpg"],
        "rotated": ["lying.jpg"],
        "extension": ["jpeg.png"],
    }
    assert found.files_to_leave_out() == []
    assert len(found.files_to_leave_out(["dark", "blurry"])) == 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_as_pillow_does(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo(3, (64, 64))
    for suffix in ("jpg", "png", "webp"):
        path = save(image, tmp_path, f"x.{suffix}", exif=exif)
        with open(path, "rb") as file:
            assert file_headers.read(file.read()).orientation == orientation
    from PIL import ImageOps

    tagged = Image.open(tmp_path / "x.png")
    expected = np.asarray(ImageOps.exif_transpose(tagged).convert("L"))
    turned = file_headers.upright(np.asarray(tagged.convert("L")), orientation)
    np.testing.assert_array_equal(turned, expected)


def test_headers_of_anything_are_read():
    for start in (b"\xff\xd8\xff\xe1", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBPEXIF", b""):
        for length in range(40):
            file_headers.read(start + rng.bytes(length))
        file_headers.read(start + b"\xff" * 60)


def test_broken_files_are_findings(folder):
    a = folder / "train/a"
    whole = (a / "00.jpg").read_bytes()
    (a / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (a / "empty.png").write_bytes(b"")
    (a / "notes.txt").write_text("x")
    (a / "gone.jpg").symlink_to(folder / "nowhere")
    os.mkfifo(a / "pipe.jpg")  # passed over
    size = b"\0\1\0\0\0\1\0\0"
    (a / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + b"\x08\2\0\0\0" * 20)
    save(photo(40), folder, "test/unheard", "x.jpg")
    names = [b"line\nbreak \x1b[31m.jpg", b"\xff.jpg"]
    for seed, name in enumerate(names, start=41):
        with open(os.path.join(os.fsencode(a), name), "wb") as file:
            photo(seed).save(file, "JPEG")
    found = keras_resnet.inspect_images(folder)
    broken = ["bomb.png", "cut.jpg", "empty.png", "gone.jpg"]
    assert paths(found["unreadable"]) == broken
    assert paths(found["no_image"]) == ["notes.txt"]
    assert paths(found["unknown_class"]) == ["x.jpg"]
    assert found.images == 12 + 4 + 1 + 2
    assert len(measure([str(a / "pipe.jpg")]).files) == 0


@pytest.mark.ci
def test_a_list_goes_back_into_training(folder, tmp_path_factory, capsys):
    a = folder / "train/a"
    (a / "notes.txt").write_text("x")
    (a / "empty.png").write_bytes(b"")
    shutil.copy(a / "00.jpg", a / "two\nlines #1.jpg")
    shutil.copy(folder / "test/a/08.jpg", a / " leak.jpg")
    output = tmp_path_factory.mktemp("out") / "inspection"
    assert main(["inspect", str(folder), f"--output={output}"]) == 0
    printed = capsys.readouterr().out
    assert "two\\nlines" in printed
    for name in ("inspection.json", "exclude.txt", "leak.png", "duplicate.png", "unreadable.png"):
        assert (output / name).stat().st_size > 20, name
    source = input_pipeline.open_source(
        "image_folder", path=str(folder), split="train", exclude=str(output / "exclude.txt")
    )
    assert source.num_examples == 8
    assert source.layout.endswith("; left out by data.exclude: 3")
    assert inspection.inspect_images(folder)["leak"].groups
    test = input_pipeline.open_source(
        "image_folder", path=str(folder), split="test", exclude=str(output / "exclude.txt")
    )
    assert test.num_examples == 4


def test_leaving_out_moves_no_image_to_another_slice(folder, tmp_path_factory):
    def names(split, exclude=""):
        source = input_pipeline.open_source(
            "image_folder", path=str(folder), split=split, exclude=exclude
        )
        return [name for name, _ in source.records()]

    head, tail = names("train[:50%]"), names("train[50%:]")
    file = tmp_path_factory.mktemp("list") / "exclude.txt"
    file.write_text(f"\ufeff# mine\r\n{os.path.relpath(head[0], folder)}\r\n{tail[1]}\r\n")
    assert names("train[:50%]", str(file)) == head[1:]
    assert names("train[50%:]", str(file)) == [tail[0], *tail[2:]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("nowhere.jpg\n", "none of its 1 files is there"),
        ('"half\n', "is no name in JSON"),
        (b"\xff\xfe", "is no text in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_lists_that_cannot_be_used(folder, tmp_path_factory, content, said):
    file = tmp_path_factory.mktemp("list") / "exclude.txt"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(input_pipeline.DataError, match=said):
        input_pipeline.open_source(
            "image_folder", path=str(folder), split="train", exclude=str(file)
        )


def test_tables(folder):
    shutil.copy(folder / "train/a/00.jpg", folder / "again.jpg")
    rows = ["path,label", "train/a/00.jpg,x", "again.jpg,x", "train/b/01.jpg,y", "gone.jpg,y"]
    table = folder / "labels.csv"
    table.write_text("\n".join(rows))
    found = keras_resnet.inspect_images(table)
    assert paths(found["duplicate"]) == ["00.jpg", "again.jpg"] or paths(found["duplicate"]) == [
        *("again.jpg", "00.jpg")
    ]
    assert paths(found["unreadable"]) == ["gone.jpg"]
    (folder / "exclude.txt").write_text(found.exclude_list())
    source = input_pipeline.open_source(
        "image_folder", path=str(table), split="train", exclude=str(folder / "exclude.txt")
    )
    assert source.num_examples == 2


def test_imbalance():
    classes = {"train": {"a": 100, "b": 9, "c": 10}, "test": {"a": 2, "b": 1, "c": 0}}
    found = findings.imbalance(classes)
    assert [(item.split, item.label) for item in found.items] == [
        *(("train", "b"), ("test", "c"), ("test", "b"))
    ]


def noisy(seed: int, classes: int, examples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels with 5 % flipped, probabilities that mostly know better, and which were flipped."""
    state = np.random.RandomState(seed)  # whose numbers do not change between versions of NumPy
    truth = state.randint(classes, size=examples)
    scores = state.normal(size=(examples, classes))
    scores[np.arange(examples), truth] += 3.5
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    flipped = np.zeros(examples, bool)
    flipped[state.permutation(examples)[: examples // 20]] = True
    labels = np.where(flipped, (truth + state.randint(1, classes, size=examples)) % classes, truth)
    return labels, probabilities, flipped


REFERENCE = json.loads((Path(__file__).parent / "references/cleanlab.json").read_text())


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: f"{case['classes']} classes")
def test_wrong_labels_are_those_that_cleanlab_finds(case):
    labels, probabilities, flipped = noisy(case["seed"], case["classes"], case["examples"])
    joint = label_errors.confident_joint(labels, probabilities)
    np.testing.assert_array_equal(joint, case["joint"])
    found = inspection.find_label_errors(labels, probabilities)
    assert sorted(found.places) == case["issues"]
    precision, recall = flipped[found.places].mean(), flipped[found.places].sum() / flipped.sum()
    assert precision > 0.88
    assert recall > 0.67
    assert (np.diff(found.margins) <= 0).all()
    np.testing.assert_array_equal(found.suggestions, probabilities[found.places].argmax(1))
    assert found.noise == pytest.approx(0.05, abs=0.03)


def test_labels_and_probabilities_that_do_not_belong_together():
    with pytest.raises(ValueError, match=r"received \(3,\) and \(2, 2\)"):
        inspection.find_label_errors(np.zeros(3, int), np.ones((2, 2)) / 2)
    with pytest.raises(ValueError, match="numbers of 2 classes; received 0 to 2"):
        inspection.find_label_errors(np.array([0, 2]), np.ones((2, 2)) / 2)
    assert len(inspection.find_label_errors(np.zeros(0, int), np.ones((0, 2))).places) == 0


def color_model() -> keras.Model:
    """Takes what is rather red for "a", what is rather green for "b"."""
    inputs = keras.Input((32, 32, 3))
    mean = keras.layers.GlobalAveragePooling2D()(inputs)
    outputs = keras.layers.Dense(2, activation="softmax")(mean)
    model = keras.Model(inputs, outputs)
    model.layers[-1].set_weights([np.array([[3.0, -3], [-3, 3], [0, 0]]), np.zeros(2)])
    model.preprocessing = Preprocessing(
        image_size=32,
        crop_ratio=1.0,
        interpolation="bilinear",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        channel_order="rgb",
    )
    model.class_names = ["a", "b"]
    return model


@pytest.mark.ci
def test_a_model_names_wrong_labels(tmp_path):
    wrong = {"test/a/03.png", "test/b/06.png"}
    for number in range(16):
        pixels = np.asarray(photo(number, (40, 40)), float) / 2
        pixels[..., number % 2] += 60 + number
        label = "ab"[number % 2]
        name = f"{number:02}.png"
        label = {"03.png": "a", "06.png": "b"}.get(name, label)
        save(Image.fromarray(pixels.astype(np.uint8)), tmp_path, "test", label, name)
        save(photo(50 + number), tmp_path, "train", label, f"t{number}.png")
    (tmp_path / "test/a/cut.png").write_bytes(b"\x89PNG")
    (tmp_path / "test/a/notes.txt").write_text("x")
    found = keras_resnet.inspect_images(tmp_path, model=color_model())
    doubted = {os.path.relpath(item.path, tmp_path) for item in found["label_error"].items}
    assert doubted == wrong
    assert "rather b, with" in next(
        item.note for item in found["label_error"].items if item.label == "a"
    )
    assert found.judged.startswith(f"{tmp_path.name} test: ")
    assert not set(found.files_to_leave_out()) & {str(tmp_path / name) for name in wrong}
    assert paths(found["unreadable"]) == ["cut.png"]
    # By cross-validation, of which so few images are enough for one.
    found = keras_resnet.inspect_images(tmp_path, model=color_model(), model_split="test", folds=4)
    doubted = {os.path.relpath(item.path, tmp_path) for item in found["label_error"].items}
    assert doubted
    assert doubted <= wrong
    assert found.judged.startswith("16 images in 4 folds; top1 0.")
    with pytest.raises(UserError, match="one of the splits that were found: test, train"):
        keras_resnet.inspect_images(tmp_path, model=color_model(), model_split="tests", folds=4)


def test_folds_predict_as_scikit_learn_does_and_keep_copies_together():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 120)
    vectors = random.normal(size=(120, 8)) + 3 * np.eye(3, 8)[labels]
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    expected = cross_val_predict(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)),
        vectors, labels, groups=np.arange(120), cv=folds, method="predict_proba",
    )  # fmt: skip
    found = predict_from_others(vectors, labels, 5)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    # Twins far from all others, both with the wrong label: apart they would confirm each other.
    vectors[:2], labels[:2] = 60 * np.eye(3, 8)[1], 0
    assert predict_from_others(vectors, labels, 5, [(0, 1)])[:2].argmax(axis=1).tolist() == [1, 1]
    with pytest.raises(UserError, match="the largest class has 2 images"):
        predict_from_others(vectors[:3], np.array([0, 0, 1]), 5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "DATA is missing"),
        (["a", "b"], "it takes one DATA, not 2"),
        (["a", "--leave_out=darkness"], "Did you mean 'dark'?"),
        (["a", "--split=test"], "--split goes with --model"),
        (["a", "--folds=5"], "--folds goes with --model"),
        (["a", "--folds=1", "--model=x"], "--folds=1: must be 2 or more"),
        (["a", "--model=x", "--workdir=y"], "it takes --model or --workdir"),
        (["nowhere"], "The image folder nowhere does not exist"),
    ],
)
def test_slips_are_answered(arguments, said, capsys):
    assert main(["inspect", *arguments]) in (1, 2)
    assert said in capsys.readouterr().err


def test_json_holds_names_exactly(folder, capsys):
    shutil.copy(
        folder / "train/a/00.jpg", os.path.join(os.fsencode(folder / "train/a"), b"\xff.jpg")
    )
    assert main(["inspect", str(folder), "--json"]) == 0
    read = json.loads(capsys.readouterr().out)
    (duplicate,) = read["findings"]
    named = [item["path"] for item in duplicate["groups"][0]]
    assert os.fsencode(named[1]).endswith(b"/train/a/\xff.jpg")
