"""The one finder of how labelled images lie: folders of classes, alone or below splits, or a table.

    photos/cat/1.jpg …                                   one split, "train"
    photos/Training/cat/1.jpg …  photos/valid/cat/…      splits by folder, by any usual name
    photos/labels.csv, .tsv, .jsonl                      a table of paths and labels

`find_layout` looks at the upper folders only; the images of a split are listed when it is asked
for. Loads TensorFlow for buckets only.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator

from keras_resnet.input_pipeline import label_tables
from keras_resnet.input_pipeline.errors import DataError, reason
from keras_resnet.input_pipeline.image_listing import is_image_name, list_folder
from keras_resnet.input_pipeline.layout import Layout, Split, listed
from keras_resnet.input_pipeline.places import exists, in_bucket, is_folder, root_of
from keras_resnet.input_pipeline.split_names import PLAIN, role_of


@contextlib.contextmanager
def explain_listing(path: str) -> Iterator[None]:
    """Turns what TensorFlow says of a bucket that cannot be listed into a DataError."""
    if not in_bucket(path):
        yield
        return
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise DataError(f"The image folder {path} cannot be listed: {reason(error)}.") from error


def find_layout(path: str, multi_label: bool | None = False) -> Layout:
    """Finds how labelled images lie under `path`.

    Args:
        path: a folder of this machine or of a bucket, or a table: a .csv, .tsv or .jsonl file (see
            `label_tables.read_table`).
        multi_label: whether an image may have several labels or none: in a table written as
            `label_sets` says, in folders by `shared_files`. None: if a table has such images.

    Raises:
        DataError: `path` is empty, missing, or no such folder or table, or its classes and splits
            cannot be told from each other.
    """
    if not path:
        raise DataError("The source image_folder needs a path: a folder of images (data.path).")
    root = root_of(path)
    if label_tables.is_table(root) and not is_folder(root):
        if not in_bucket(root) and os.path.exists(root) and not os.path.isfile(root):
            raise DataError(f"{path} is a pipe or device, no file; save the table as one.")
        table = label_tables.read_table(root, multi_label)
        splits = [Split(name, role_of(name)) for name in sorted(table.rows)]
        return Layout(root, "table", splits, table=table, multi_label=table.multi_label)
    if not is_folder(root):
        problem = "is a file" if exists(root) else "does not exist"
        raise DataError(
            f"The image folder {path} {problem}; give a folder of class folders, or a table of "
            f"paths and labels ({', '.join(label_tables.SUFFIXES)})."
        )
    layout = _layout_of_folder(root)
    layout.multi_label = bool(multi_label)
    return layout


def _layout_of_folder(root: str) -> Layout:
    passed_over: Counter[str] = Counter()
    folders, files = list_folder(root, passed_over)
    looks = {name: role for name in folders if (role := role_of(name))}
    if not looks:
        inner = _only_folder(root, folders, files)
        if inner is not None:
            return _layout_of_folder(inner)
        if not folders:
            _explain_no_classes(root, files)
        if len(folders) == 1:
            _check_no_table(root, folders[0], files)
        return Layout(root, "classes", [Split("train", "train", root)], passed_over=passed_over)
    labelled: list[tuple[str, str]] = []
    unlabelled: list[tuple[str, str]] = []
    for name in looks:
        folder = _without_repetition(os.path.join(root, name), name)
        (labelled if list_folder(folder, Counter())[0] else unlabelled).append((name, folder))
    others = [name for name in folders if name not in looks]
    if not labelled and list(looks) == ["train"] and others:
        # A vehicle: no other class is called like a split, and no split holds loose images only.
        return Layout(root, "classes", [Split("train", "train", root)], passed_over=passed_over)
    _check_told_apart(root, labelled, unlabelled, others)
    return Layout(
        root,
        "splits",
        _in_order(Split(name, looks[name], folder) for name, folder in labelled),
        unlabelled=[name for name, folder in unlabelled if list_folder(folder, Counter())[1]],
        left_out=others,
        passed_over=passed_over,
    )


def _in_order(splits: Iterator[Split]) -> list[Split]:
    """Training images first, as long as the folders do not say it otherwise."""
    roles = ("train", "validation", "test")
    return sorted(splits, key=lambda split: (roles.index(split.role or "test"), split.name))


def _check_told_apart(
    root: str,
    labelled: list[tuple[str, str]],
    unlabelled: list[tuple[str, str]],
    others: list[str],
) -> None:
    """Raises DataError if folders that look like splits cannot be, or may be classes as well."""
    names = [name for name, _ in labelled + unlabelled]
    if not labelled:
        beside = f" (beside {listed(others)})" if others else ""
        one = len(names) == 1
        looks = "looks like a split" if one else "look like splits"
        holds = "holds" if one else "hold"
        raise DataError(
            f"{root}: {listed(names)} {looks} by name but {holds} no class folders{beside}, so its "
            "images have no labels. Put the images of each class in a folder of their own, as in "
            f"{root}/{names[0]}/cat/1.jpg; if it is a class, give its folder another name."
        )
    several = len({role_of(name) for name in names}) > 1
    if others and not several and not any(name in PLAIN for name, _ in labelled):
        raise DataError(
            f"In {root} {listed(names)} looks like a split, {listed(others)} like classes. Give "
            "the one that is not what it looks like another name, or name the folder to take."
        )


def _only_folder(root: str, folders: list[str], files: list[str]) -> str | None:
    """What archives often put around the data: the only folder, if it holds classes or splits."""
    if len(folders) != 1 or any(map(is_image_name, files)):
        return None
    inner = os.path.join(root, folders[0])
    below, files = list_folder(inner, Counter())
    if any(map(is_image_name, files)):
        return None
    several = len(below) > 1 or any(role_of(name) for name in below)
    return inner if several or _only_folder(inner, below, files) else None


def _without_repetition(folder: str, name: str) -> str:
    """`folder`, or the one in it that is called alike, as in training_set/training_set/cats."""
    folders, files = list_folder(folder, Counter())
    if folders == [name] and not any(map(is_image_name, files)):
        return os.path.join(folder, name)
    return folder


def _explain_no_classes(root: str, files: list[str]) -> None:
    """Raises DataError for a folder without folders."""
    tables = [name for name in files if label_tables.is_table(name)]
    hint = f"; for the labels of a table give its path: {root}/{tables[0]}" if tables else ""
    raise DataError(
        f"The image folder {root} holds no class folders; put the images of each class in a folder "
        f"of their own, as in {root}/cat/1.jpg{hint}."
    )


def _check_no_table(root: str, folder: str, files: list[str]) -> None:
    """Raises DataError for the one folder of images that lies beside the table of its labels."""
    for name in files:
        if label_tables.is_table(name):
            raise DataError(
                f"{root} holds one folder of images, {folder!r}, and the table {name}. For the "
                f"labels of the table give its path: {root}/{name}; to take {folder!r} as a class, "
                "move the table elsewhere."
            )
