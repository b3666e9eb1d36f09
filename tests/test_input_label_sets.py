"""Several labels an image: how tables and folders hold them, and how slices share them."""

import json
import os

import numpy as np
import pytest

from keras_resnet.input_pipeline import DataError, open_source, stratification
from keras_resnet.input_pipeline.label_sets import join, labels_of, separator_of
from keras_resnet.input_pipeline.layout_finder import find_layout

WANTED = {"0.jpg": {"cat", "dog"}, "1.jpg": {"cat"}, "2.jpg": set()}


def write(folder, text, name="a.csv"):
    for number in range(4):
        (folder / f"{number}.jpg").write_bytes(b"%d" % number)
    (folder / name).write_bytes(text.encode())
    return str(folder / name)


def sets_of(layout, split="train"):
    names = layout.class_names()
    examples = layout.examples(layout.find(split))
    assert len({file for file, _ in examples}) == len(examples)
    return {os.path.basename(file): {names[i] for i in labels} for file, labels in examples}


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("path,label\n0.jpg,cat|dog\n1.jpg,cat\n2.jpg,\n", "parted by '|'"),
        ("0.jpg,cat;dog\n1.jpg,cat\n2.jpg,\n", "parted by ';'"),
        ("\ufefffile;tags\r\n0.jpg;cat | dog\r\n\r\n1.jpg;cat\r\n2.jpg;\r\n", "parted by '|'"),
        ("path,label\n0.jpg,cat, dog\n1.jpg,cat\n2.jpg,\n", "as lists"),  # without quotes
        ('path,label\n0.jpg,"[""cat"", ""dog""]"\n1.jpg,cat\n2.jpg,[]\n', "as lists"),
        ("path,label\n0.jpg,\"['cat', 'dog']\"\n1.jpg,['cat']\n2.jpg,[]\n", "as lists"),
        ("path,label\n0.jpg,cat\n1.jpg,cat\n0.jpg,dog\n2.jpg,\n", "in several lines of one image"),
        ("path,cat,dog\n0.jpg,1,1\n1.jpg,1.0,0\n2.jpg,0,0\n", "in a column for each class"),
        (",Image,cat,dog\n0,0.jpg,True,True\n1,1.jpg,True,False\n2,2.jpg,False,False\n",
         "in a column for each class"),
    ],
)  # fmt: skip
def test_ways_to_write_several_labels(tmp_path, text, how):
    layout = find_layout(write(tmp_path, text), multi_label=None)
    assert layout.multi_label
    assert sets_of(layout) == WANTED
    assert layout.describe().endswith(f"2 classes; several labels an image, {how}")
    with pytest.raises(DataError, match=r"line \d.*set data\.multi_label=true") as raised:
        find_layout(layout.path).examples(layout.splits[0])
    assert str(raised.value).count("\n") == 0


def test_lists_in_json_lines(tmp_path):
    rows = [("0.jpg", ["cat", "dog", "cat"]), ("1.jpg", "cat"), ("2.jpg", None)]
    lines = [json.dumps({"file_name": file, "labels": labels}) for file, labels in rows]
    path = write(tmp_path, "\n".join(lines), "a.jsonl")
    assert sets_of(find_layout(path, None)) == WANTED


@pytest.mark.parametrize(
    "text",
    [
        'path,label\n0.jpg,"tench, Tinca tinca"\n1.jpg,"goldfish, Carassius"\n2.jpg,dog\n',
        "path,label\n0.jpg,cat\n1.jpg,dog\n",
        "path,cat,dog\n0.jpg,1,0\n1.jpg,0,1\n2.jpg,1,0\n",  # a column each, and one each
        "path,label\n0.jpg,['cat']\n1.jpg,['dog']\n",
    ],
)
def test_one_label_each_is_found(tmp_path, text):
    layout = find_layout(write(tmp_path, text), None)
    assert not layout.multi_label
    labels = [label for _, label in layout.examples(layout.splits[0])]
    assert set(labels) == set(range(len(layout.class_names())))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n0.jpg\n1.jpg,cat\n", r"line 2: has no label. An image without any label has"),
        ("path,label\n0.jpg,\n1.jpg,\n", "none of its images has a label"),
        ("path,cat,dog\n0.jpg,1,0\n1.jpg,0,7\n", r"line 3: '7' in the column 'dog'"),
        ("path,label,split\n0.jpg,cat,train,dog\n", r"line 2: has 4 cells, the first line names 3"),
        ("path,label\n0.jpg,cat|dog\n9.jpg,cat\n", "names 1 of 2 images that are not there"),
        ('{"path": "0.jpg", "label": [1.5]}', r"line 1: the labels \[1.5\]"),
    ],
)
def test_bad_tables_get_one_line(tmp_path, text, message):
    path = write(tmp_path, text, "a.jsonl" if text.startswith("{") else "a.csv")
    with pytest.raises(DataError, match=message) as raised:
        open_source("image_folder", path=path, split="train", multi_label=True)
    assert "\n" not in str(raised.value)


def test_a_class_that_never_occurs_is_known_from_its_column(tmp_path):
    layout = find_layout(write(tmp_path, "path,cat,emu,dog\n0.jpg,1,0,1\n1.jpg,1,0,0\n"), None)
    assert layout.class_names() == ("cat", "dog", "emu")


@pytest.mark.parametrize(
    "names", [("cat", "dog"), ("tench, Tinca tinca",), ("a|b", "c;d"), ("[x]",), (), ("a\nb", "c")]
)
def test_joined_names_are_read_back(names):
    cell = join(names)
    assert labels_of(cell, separator_of([cell])) == names


def test_a_file_in_several_class_folders(tmp_path):
    for name in ("cat", "dog", "emu"):
        (tmp_path / name).mkdir()
    (tmp_path / "cat" / "1.jpg").write_bytes(b"one")
    (tmp_path / "dog" / "1.jpg").write_bytes(b"one")  # the same name and bytes
    (tmp_path / "emu" / "1.jpg").write_bytes(b"two")  # another photo of that name
    (tmp_path / "cat" / "2.jpg").write_bytes(b"three")
    os.link(tmp_path / "cat" / "2.jpg", tmp_path / "dog" / "8.jpg")
    os.symlink(tmp_path / "cat" / "2.jpg", tmp_path / "emu" / "9.jpg")
    layout = find_layout(str(tmp_path), multi_label=True)
    found = sorted(labels for _, labels in layout.examples(layout.splits[0]))
    assert found == [(0, 1), (0, 1, 2), (2,)]
    assert "several labels for a file in several class folders" in layout.describe()
    # With one label each they are six.
    assert len(find_layout(str(tmp_path)).examples(layout.splits[0])) == 6
    left_out = tmp_path / "list.txt"
    left_out.write_text("dog/8.jpg\n")
    source = open_source("image_folder", path=str(tmp_path), split="train", multi_label=True,
                         exclude=str(left_out))  # fmt: skip
    assert sorted(source.labels().tolist()) == [[0, 0, 1], [1, 1, 0]]
    assert source.class_counts().tolist() == [1, 1, 1]


# ---- Splits ---------------------------------------------------------------------------------


def random_sets(images, classes, seed):
    rng = np.random.default_rng(seed)
    rates = 0.5 * rng.uniform(0.01, 1, classes) ** 2
    chosen = rng.uniform(size=(images, classes)) < rates
    # Labels that come together.
    chosen[:, 1] |= chosen[:, 0] & (rng.uniform(size=images) < 0.8)
    return chosen


def sechidis(chosen, shares, rng):
    """Algorithm 1 of Sechidis et al. 2011, literally: the fold of each image."""
    fold, left = np.full(len(chosen), -1), np.ones(len(chosen), bool)
    total = len(chosen) * np.array(shares)
    wanted = chosen.sum(axis=0) * np.array(shares)[:, None]
    while left.any():
        counts = chosen[left].sum(axis=0)
        if not counts.any():
            for image in np.flatnonzero(left):
                fold[image] = total.argmax()
                total[fold[image]] -= 1
            break
        label = np.where(counts > 0, counts, len(chosen) + 1).argmin()
        for image in np.flatnonzero(left & chosen[:, label]):
            best = np.flatnonzero(wanted[:, label] == wanted[:, label].max())
            best = best[total[best] == total[best].max()]
            fold[image] = rng.choice(best)
            wanted[fold[image]] -= chosen[image]
            total[fold[image]] -= 1
            left[image] = False
    return fold


def deviation(chosen, held_out):
    """Images of each label that a part has too many or too few, as a mean over the labels."""
    share = held_out.mean()
    return np.abs(chosen[held_out].sum(axis=0) - share * chosen.sum(axis=0)).mean()


@pytest.mark.parametrize(("images", "classes"), [(300, 8), (1000, 20), (2000, 60)])
def test_slices_are_as_even_as_folds_of_iterative_stratification(images, classes):
    ours, theirs, chance = [], [], []
    for seed in range(3):
        chosen = random_sets(images, classes, seed)
        sets = [tuple(np.flatnonzero(row)) for row in chosen]
        order = stratification.spread(sets, [b"%d" % (i * 7919 % images) for i in range(images)])
        assert sorted(order) == list(range(images))
        fold = sechidis(chosen, [0.8, 0.2], np.random.default_rng(seed))
        for start in (0, images // 2, images - images // 5):
            held_out = np.zeros(images, bool)
            held_out[order[start : start + images // 5]] = True
            ours.append(deviation(chosen, held_out))
        theirs.append(deviation(chosen, fold == 1))
        random = np.random.default_rng(seed).permutation(images) < images // 5
        chance.append(deviation(chosen, random))
    assert np.mean(ours) < np.mean(theirs) + 0.1
    assert np.mean(ours) < 0.25 * np.mean(chance)


def test_the_rarest_label_is_spread_exactly():
    chosen = random_sets(1000, 12, 5)
    counts = chosen.sum(axis=0)
    rarest = int(np.where(counts > 0, counts, 10**6).argmin())
    sets = [tuple(np.flatnonzero(row)) for row in chosen]
    order = stratification.spread(sets, [b"%d" % i for i in range(len(sets))])
    places = np.flatnonzero(chosen[order, rarest]) / len(sets)
    wanted = (np.arange(counts[rarest]) + 0.5) / counts[rarest]
    np.testing.assert_allclose(places, wanted, atol=0.05)


def test_with_one_label_each_the_order_is_that_of_single_labels(tmp_path):
    rows = [f"{n}.jpg,{'abc'[n * n % 7 % 3]}" for n in range(40)]
    for number in range(40):
        (tmp_path / f"{number}.jpg").touch()
    (tmp_path / "a.csv").write_text("path,label\n" + "\n".join(rows))
    one, sets = (find_layout(str(tmp_path / "a.csv"), flag) for flag in (False, True))
    examples = [(file, (label,)) for file, label in one.examples(one.splits[0])]
    assert sets.examples(sets.splits[0]) == examples
