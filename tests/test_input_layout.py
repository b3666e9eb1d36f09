"""The finder of layouts: folders of classes, splits under any usual name, tables, and litter."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_resnet.input_pipeline import DataError, open_source
from keras_resnet.input_pipeline.image_listing import list_images
from keras_resnet.input_pipeline.layout_finder import find_layout
from keras_resnet.input_pipeline.split_names import role_of


def touch(folder, *names):
    """Empty files, with their folders: nothing here is decoded."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def files_of(layout, name, folder):
    """Relative path -> name of the class."""
    names = layout.class_names()
    examples = layout.examples(layout.find(name))
    assert len(dict(examples)) == len(examples)  # each once
    return {os.path.relpath(file, folder): names[label] for file, label in examples}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(("train", "train"), ("Training", "train"), ("TRAIN", "train"), ("train_set", "train")),
        *(("training images", "train"), ("train2017", "train"), ("trainset", "train")),
        *(("val", "validation"), ("Valid", "validation"), ("dev", "validation")),
        *(("validation", "validation"), ("val2017", "validation"), ("eval", "validation")),
        *(("Test", "test"), ("Testing", "test"), ("test-data", "test"), ("holdout", "test")),
        *(("trains", None), ("bullet_train", None), ("test_tube", None), ("devil", None)),
        *(("contest", None), ("test1", None), ("valley", None), ("", None)),
    ],
)
def test_names_of_splits(name, role):
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("train", "other", "asked"),
    [
        ("train", "test", "test"),
        ("Training", "Testing", "test"),
        ("training", "validation", "val"),
        ("TRAIN", "VAL", "test"),  # the one held-out split, whatever it is called
        ("train", "valid", "validation"),
        ("Train", "dev", "val"),
        ("training_set", "test_set", "Testing"),
    ],
)
def test_splits_by_any_usual_name(tmp_path, train, other, asked):
    touch(tmp_path, f"{train}/b/1.jpg", f"{train}/a/1.jpg", f"{train}/a/2.JPG", f"{other}/a/3.jpg")
    layout = find_layout(str(tmp_path))
    assert layout.kind == "splits"
    assert layout.class_names() == ("a", "b")
    assert files_of(layout, "train", tmp_path / train) == {
        "b/1.jpg": "b", "a/1.jpg": "a", "a/2.JPG": "a",
    }  # fmt: skip
    assert files_of(layout, asked, tmp_path / other) == {"a/3.jpg": "a"}
    held_out = layout.find(asked)
    assert (layout.evaluation_split(), held_out.name) == (held_out, other)
    assert layout.missing_classes(held_out) == ["b"]
    assert layout.describe() == f"{tmp_path}: splits {train}, {other}; 2 classes"
    with pytest.raises(DataError, match=f"no split 'tain'.*Its splits: {train}, {other}\\."):
        layout.find("tain")


def test_a_test_without_labels_beside_train_and_val(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "test/9.jpg")
    layout = find_layout(str(tmp_path))
    assert len(layout.examples(layout.find("train"))) == 2
    assert layout.evaluation_split().name == "val"
    assert layout.describe() == (
        f"{tmp_path}: splits train, val; 2 classes; test: images without labels, left out"
    )
    for name in ("test", "Testing"):
        with pytest.raises(DataError, match=r"/test holds images and no class folders, so they ha"):
            layout.find(name)
    # Its source opens, and what is asked for decides.
    assert open_source("image_folder", path=str(tmp_path), split="val").num_examples == 2


def test_only_the_splits_asked_for_are_checked(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "val/a/1.jpg", "test/a/notes.txt", "test/x/1.jpg")
    layout = find_layout(str(tmp_path))
    assert len(layout.examples(layout.find("train")) + layout.examples(layout.find("val"))) == 2
    with pytest.raises(DataError, match=r"differ: only in .*/test: x\. Every split must"):
        layout.examples(layout.find("test"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        # Trained as the classes Testing and Training once.
        (
            ["Training/1.jpg", "Testing/2.jpg"],
            "Testing, Training look like splits by name but hold no",
        ),
        (
            ["cat/1.jpg", "dog/1.jpg", "Test/3.jpg"],
            r"Test looks like a split .* \(beside cat, dog\)",
        ),
        (["train/1.jpg", "val/1.jpg", "car/1.jpg"], r"train, val look like .* \(beside car\)"),
        (["dev/x/1.jpg", "prod/1.jpg"], "dev looks like a split, prod like classes"),
    ],
)
def test_classes_that_look_like_splits_are_refused(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=message):
        find_layout(str(tmp_path))


def test_a_train_is_a_vehicle(tmp_path):
    touch(tmp_path, "car/1.jpg", "train/1.jpg", "bus/1.jpg")
    layout = find_layout(str(tmp_path))
    assert (layout.kind, layout.class_names()) == ("classes", ("bus", "car", "train"))


def test_folders_around_the_data(tmp_path):
    touch(tmp_path, "zip/set/train/train/a/1.jpg", "zip/set/test/test/a/1.jpg", "zip/read me.txt")
    layout = find_layout(str(tmp_path))
    assert [split.folder for split in layout.splits] == [
        str(tmp_path / "zip" / "set" / name / name) for name in ("train", "test")
    ]
    assert layout.path == str(tmp_path / "zip" / "set")


def test_one_class_alone_stays_one(tmp_path):
    touch(tmp_path, "cat/1.jpg", "cat/a/2.jpg", "cat/b/3.jpg")
    layout = find_layout(str(tmp_path))
    assert files_of(layout, "train", tmp_path) == dict.fromkeys(
        ["cat/1.jpg", "cat/a/2.jpg", "cat/b/3.jpg"], "cat"
    )


def test_one_folder_of_images_beside_the_table_of_their_labels(tmp_path):
    """As competitions hand out data: it would train as one class."""
    touch(tmp_path, "imgs/1.jpg", "imgs/2.jpg", "labels.csv")
    with pytest.raises(DataError, match=r"give its path: .*/labels\.csv"):
        find_layout(str(tmp_path))


def test_what_is_no_split_is_left_out_and_said(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "test/a/1.jpg", "docs/1.jpg", "raw/1.jpg")
    assert find_layout(str(tmp_path)).describe().endswith("1 class; docs, raw: no splits, left out")


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    touch(photos, *(f"cat/{n}.jpg" for n in range(8)), "dog/1.jpg")
    touch(elsewhere, *(f"more/{n}.jpg" for n in range(5)))
    (photos / "cat" / "linked").symlink_to(elsewhere)
    (photos / "cat" / "again").symlink_to(elsewhere / "more")  # the same images a second time
    (photos / "cat" / "up").symlink_to(photos)
    (elsewhere / "back").symlink_to(photos / "cat")
    (elsewhere / "more" / "self").symlink_to(".")
    (photos / "dog" / "broken").symlink_to(tmp_path / "gone.jpg")
    (photos / "cow").symlink_to(elsewhere / "more")  # a class that lies elsewhere
    (photos / "dog" / "broken").unlink()
    layout = find_layout(str(photos))
    examples = layout.examples(layout.find("train"))
    cats = [os.path.realpath(file) for file, label in examples if label == 0]
    assert len(cats) == len(set(cats)) == 13
    assert sum(label == 1 for _, label in examples) == 5
    assert "links to folders that are counted already" in layout.describe()
    assert len({os.path.realpath(file) for file in list_images([photos])}) == 14


def test_pipes_are_passed_over_and_counted(tmp_path):
    """To open one would wait for ever for who writes into it."""
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "b" / "link.jpg").symlink_to(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "b" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    layout = find_layout(str(tmp_path))
    files = files_of(layout, "train", tmp_path)
    assert sorted(files) == ["a/1.jpg", "b/1.jpg", "b/gone.jpg"]
    assert dict(layout.passed_over) == {"pipes, sockets and devices": 2}
    assert len(list(list_images([tmp_path]))) == 3


def test_litter_is_passed_over_and_counted(tmp_path):
    touch(tmp_path, "train/a/1.jpg", "test/a/1.jpg", "train/.DS_Store", ".DS_Store")
    clean = find_layout(str(tmp_path))
    expected = files_of(clean, "train", tmp_path)
    touch(
        tmp_path, "__MACOSX/train/._a", "train/__MACOSX/a/._1.jpg", "train/a/._1.jpg",
        "train/a/Thumbs.db", "train/a/desktop.ini", "train/a/.ipynb_checkpoints/1.jpg",
        "train/.ipynb_checkpoints/x.jpg", "train/a/@eaDir/1.jpg", "train/a/.hidden",
        "train/a/b/._2.jpg",
    )  # fmt: skip
    layout = find_layout(str(tmp_path))
    assert files_of(layout, "train", tmp_path) == expected
    assert dict(layout.passed_over) == {
        ".DS_Store": 2, "__MACOSX": 2, "._*": 2, "Thumbs.db": 1, "desktop.ini": 1,
        ".ipynb_checkpoints": 2, "@eaDir": 1, "hidden": 1,
    }  # fmt: skip
    assert layout.describe().endswith(
        "1 class; passed over: 2 ._*, 2 .DS_Store, 2 .ipynb_checkpoints, 2 __MACOSX, "
        "1 @eaDir, 1 desktop.ini, 1 hidden, 1 Thumbs.db"
    )
    source = open_source("image_folder", path=str(tmp_path), split="train")
    assert source.layout == layout.describe()


def test_order_of_earlier_runs(tmp_path):
    """The numbers of the images, as version 0.1.0 gave them out."""
    touch(tmp_path, *(f"train/{c}/{n}.jpg" for c in "ab" for n in range(7, 12)))
    touch(tmp_path, "train/a/x/é ü.png")
    touch(tmp_path, "test/a/1.jpg", "test/b/1.jpg")
    layout = find_layout(str(tmp_path))
    examples = layout.examples(layout.find("train"))
    assert [(os.path.relpath(file, tmp_path / "train"), label) for file, label in examples] == [
        ("a/11.jpg", 0), ("b/11.jpg", 1), ("a/7.jpg", 0), ("b/7.jpg", 1), ("a/8.jpg", 0),
        ("b/8.jpg", 1), ("a/9.jpg", 0), ("b/9.jpg", 1), ("a/10.jpg", 0), ("b/10.jpg", 1),
        ("a/x/é ü.png", 0),
    ]  # fmt: skip


# --- tables ---


def write_table(folder, text, name="labels.csv"):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder / name)


ROWS = {"x/1.jpg": "cat", "x/ü 2.jpg": "dog", "3.png": "cat"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,label\nx/1.jpg,cat\nx/ü 2.jpg,dog\n3.png,cat\n"),
        ("a.csv", "\ufeffFile Name;Class\r\nx/1.jpg;cat\r\nx/ü 2.jpg;dog\r\n\r\n3.png;cat\r\n"),
        ("a.csv", 'id,label,image_path\n7,cat,x/1.jpg\n8,dog,"x/ü 2.jpg"\n9,cat,3.png'),
        ("a.csv", "x/1.jpg, cat\nx/ü 2.jpg, dog\n3.png, cat\n"),
        ("a.tsv", "image\tcategory\nx\\1.jpg\tcat\nx\\ü 2.jpg\tdog\n3.png\tcat\n"),
        ("a.jsonl", "".join(json.dumps({"path": p, "label": c}) + "\n" for p, c in ROWS.items())),
        (
            "a.jsonl",
            "\ufeff"
            + "\n".join(f'{{"file_name": "{p}", "class": "{c}"}}' for p, c in ROWS.items()),
        ),
    ],
)
def test_tables_of_paths_and_labels(tmp_path, name, text):
    touch(tmp_path, *ROWS)
    layout = find_layout(write_table(tmp_path, text, name))
    assert (layout.kind, layout.class_names()) == ("table", ("cat", "dog"))
    assert files_of(layout, "train", tmp_path) == ROWS
    assert layout.evaluation_split().name == "train"
    assert layout.describe() == f"{tmp_path / name}: a table of images with 2 classes"


def test_a_table_with_splits(tmp_path):
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    table = write_table(
        tmp_path,
        "path,label,split\n1.jpg,5,Training\n2.jpg,7,Training\n3.jpg,7,valid\ngone.jpg,5,test\n",
    )
    layout = find_layout(table)
    assert layout.class_names() == ("5", "7")
    assert files_of(layout, "train", tmp_path) == {"1.jpg": "5", "2.jpg": "7"}
    assert files_of(layout, "val", tmp_path) == {"3.jpg": "7"}
    assert open_source("image_folder", path=table, split="valid").class_names == ("5", "7")
    with pytest.raises(DataError, match=r"names 1 of 1 images that are not there: .*/gone\.jpg\. "):
        layout.examples(layout.find("test"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no images"),
        ("path,label\n", "holds no images"),
        ("a,b\n1,2\n", r"names the columns 'a', 'b'; none of them is a path or a label"),
        ("path\n1.jpg\n", "none of them is a label"),
        ("1.jpg\n", "a line has one column"),
        ("path,label\n1.jpg,\n", "line 2: has no label"),
        ("path,label\n1.jpg\n", "line 2: has no label"),
        ("path,label\n1.jpg,a\n1.jpg,b\n", "line 3: 1.jpg is in line 2 already"),
        (b"path,label\n\xe9.jpg,a\n", r"is no text in UTF-8 \(byte 11 is 0xe9\)"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        find_layout(write_table(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 1: is no JSON"),
        ("[1]", "line 1: is no JSON object"),
        ('{"path": "1.jpg", "label": ["a", "b"]}', "one path and one label"),
        ('{"path": 1, "label": "a"}', "one path and one label"),
        ('{"path": "1.jpg"}', "line 1: has no label"),
    ],
)
def test_json_lines_that_cannot_be_read(tmp_path, line, message):
    with pytest.raises(DataError, match=message):
        find_layout(write_table(tmp_path, line, "a.jsonl"))


def test_a_folder_of_loose_images_with_a_table_names_it(tmp_path):
    touch(tmp_path, "1.jpg", "labels.csv")
    with pytest.raises(DataError, match=r"for the labels of a table give its path: .*/labels\.csv"):
        find_layout(str(tmp_path))


names = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, names, min_size=1, max_size=6))
def test_any_names_go_through_json_lines(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    lines = [json.dumps({"path": f"{path}.jpg", "label": label}) for path, label in rows.items()]
    layout = find_layout(write_table(folder, "\n".join(lines), "a.jsonl"))
    assert layout.class_names() == tuple(sorted(set(rows.values())))
