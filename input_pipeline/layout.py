"""How labelled images lie, as `layout_finder` found it: their splits, classes, files and labels."""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from keras_resnet.input_pipeline import label_sets, label_tables, shared_files
from keras_resnet.input_pipeline.errors import DataError, did_you_mean
from keras_resnet.input_pipeline.exclusion import is_excluded
from keras_resnet.input_pipeline.image_listing import (
    IMAGE_SUFFIXES,
    is_image_name,
    list_folder,
    walk,
)
from keras_resnet.input_pipeline.split_names import role_of

# (path of the image, number of its class; of a layout with label sets the numbers of its classes)
Example = tuple[str, int | tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Split:
    """A part of the data with a name of its own.

    Attributes:
        name: of its folder, or what the table says; "train" where there is only one.
        role: "train", "validation" or "test", or None of a name that says nothing.
        folder: that holds its class folders; "" in a table.
    """

    name: str
    role: str | None
    folder: str = ""


class Layout:
    """How the labelled images of a folder or a table lie; made by `layout_finder.find_layout`.

    Attributes:
        path: of the folder or table.
        kind: "classes" (one folder of classes), "splits" or "table".
        splits: those with labels, in the order of their folders.
        unlabelled: names of folders that look like splits and hold images without class folders.
        left_out: names of folders beside the splits that are none.
        multi_label: whether an image may have several labels or none; else each has one.
        passed_over: litter that was met up to now, by kind.
        excluded: normalized paths of files (see `exclusion`) that need be no images.
    """

    def __init__(
        self,
        path: str,
        kind: str,
        splits: Iterable[Split],
        *,
        unlabelled: Iterable[str] = (),
        left_out: Iterable[str] = (),
        passed_over: Counter[str] | None = None,
        table: label_tables.Table | None = None,
        multi_label: bool = False,
    ):
        self.path, self.kind, self.splits = path, kind, tuple(splits)
        self.multi_label = multi_label
        self.unlabelled, self.left_out = tuple(unlabelled), tuple(left_out)
        self.passed_over = Counter() if passed_over is None else passed_over
        self.excluded: Collection[str] = ()
        self._table = table or label_tables.Table({}, multi_label, (), "")
        self._names: dict[str, list[str]] = {}
        self._examples: dict[str, list[Example]] = {}

    def find(self, name: str) -> Split:
        """The split that is called `name`, or has its role: of "val" the folder Validation.

        Raises:
            DataError: there is no such split, it has no labels, or two are meant.
        """
        same = [split for split in self.splits if split.name == name]
        if same:
            return same[0]
        if name in self.unlabelled:
            raise self._no_labels(name)
        role = role_of(name)
        alike = [split for split in self.splits if role is not None and split.role == role]
        held_out = [split for split in self.splits if split.role in ("validation", "test")]
        # One held-out split is the held-out split, whatever it is called.
        if not alike and role in ("validation", "test") and len(held_out) == 1:
            unlabelled = [other for other in self.unlabelled if role_of(other) == role]
            if unlabelled:
                raise self._no_labels(unlabelled[0])
            alike = held_out
        if len(alike) == 1:
            return alike[0]
        raise self._no_split(name, alike)

    def evaluation_split(self) -> Split:
        """The split to evaluate on: the test images, else the validation images, else all.

        Raises:
            DataError: two splits could be meant, or there are training images only, beside test
                images without labels.
        """
        for role in ("test", "validation"):
            found = [split for split in self.splits if split.role == role]
            if len(found) > 1:
                raise self._no_split(role, found)
            if found:
                return found[0]
        if len(self.splits) == 1 and not self.unlabelled:
            return self.splits[0]
        if self.unlabelled:
            raise self._no_labels(self.unlabelled[0])
        raise self._no_split("test", [])

    def class_names(self) -> tuple[str, ...]:
        """The names of the classes in the order of their numbers: sorted.

        They are those of the training images, or where there are none of the first split.

        Raises:
            DataError: there are none.
        """
        trained = [split for split in self.splits if split.role == "train"]
        return tuple(self._names_in((trained or self.splits)[0]))

    def examples(self, split: Split) -> list[Example]:
        """(file, label) of every image of a split, in its fixed stratified order.

        Within a class the images are mixed by a hash of their names, and the classes are dealt out
        in proportion, so that any slice has every class in its share (to within one image). Of
        label sets `stratification.spread` says how near slices come to that.

        Raises:
            DataError: it holds a class that the training images do not have, a class folder holds
                no images or something that is no image, or a file of a table is not there.
        """
        if split.name not in self._examples:
            self._check_classes(split)
            listed = self._list_sets(split) if self.multi_label else self._list(split)
            self._examples[split.name] = listed
        return self._examples[split.name]

    def every_file(self, split: Split) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """What lies in a split, whether `examples` takes or refuses it.

        Returns:
            (file, class name) of every image, missing ones of a table included, and (file, class
            name) of what lies among them and is no image by its name. Of several labels the name is
            what `label_sets.join` makes of them.
        """
        if self.kind == "table":
            return [
                (label_tables.resolve(self.path, file), self._label_text(labels))
                for file, labels in self._table.rows[split.name]
            ], []
        images: list[tuple[str, str]] = []
        others: list[tuple[str, str]] = []
        for name in self._names_in(split):
            folder = os.path.join(split.folder, name)
            for parent, _, files in walk(folder, self.passed_over):
                for file in files:
                    kept = images if is_image_name(file) else others
                    kept.append((os.path.join(parent, file), name))
        return images, others

    def missing_classes(self, split: Split) -> list[str]:
        """The classes of the data of which a split has no images."""
        present = set(self._names_in(split))
        return [name for name in self.class_names() if name not in present]

    def describe(self) -> str:
        """What was found, in one line, as in "photos: splits Training, Testing; 4 classes"."""
        return "; ".join([f"{self.path}: {self._what()}", *self.notes()])

    def notes(self) -> list[str]:
        """What a person should know of it: folders that do not count, litter passed over."""
        notes = []
        if self.unlabelled:
            notes.append(f"{listed(self.unlabelled)}: images without labels, left out")
        if self.left_out:
            notes.append(f"{listed(self.left_out)}: no splits, left out")
        notes += [] if self.multi_label else self._same_folders()
        if self.passed_over:
            counts = sorted(self.passed_over.items(), key=lambda kind: (-kind[1], kind[0].lower()))
            notes.append("passed over: " + ", ".join(f"{count:,} {kind}" for kind, count in counts))
        return notes

    def _same_folders(self) -> list[str]:
        """Classes that are a link to another class: each of their images has two labels."""
        found = []
        for split in () if self.kind == "table" else self.splits:
            if "://" in split.folder:
                continue
            places = {name: os.path.join(split.folder, name) for name in self._names_in(split)}
            links = [name for name in places if os.path.islink(places[name])]
            owners: dict[str, str] = {}
            for name in (*(name for name in places if name not in links), *links):
                owner = owners.setdefault(os.path.realpath(places[name]), name)
                if owner != name:
                    found.append(
                        f"{places[name]} is a link to {owner}: the same images in two classes"
                    )
        return found

    def _label_text(self, labels: tuple[str, ...]) -> str:
        return label_sets.join(labels) if self.multi_label else labels[0]

    def _what(self) -> str:
        what = self._what_lies_there()
        if not self.multi_label:
            return what
        if self.kind != "table":
            return f"{what}; several labels for a file in several class folders"
        how = self._table.written
        return f"{what}; several labels an image, {how}" if how else f"{what}; one label an image"

    def _what_lies_there(self) -> str:
        number = len(self.class_names())
        classes = f"{number:,} class{'' if number == 1 else 'es'}"
        if self.kind == "classes":
            return f"{classes}, one folder each, no splits"
        names = [split.name for split in self.splits]
        if self.kind == "table" and len(names) == 1:
            return f"a table of images with {classes}"
        plural = "" if len(names) == 1 else "s"
        what = "split" if self.kind == "splits" else "a table with the split"
        return f"{what}{plural} {listed(names)}; {classes}"

    def _names_in(self, split: Split) -> list[str]:
        if split.name not in self._names:
            if self.kind == "table":
                rows = self._table.rows[split.name]
                known = self._table.class_names or (name for _, labels in rows for name in labels)
                names = sorted(set(known))
            else:
                # Of one folder of classes the litter was counted when it was found.
                counter = self.passed_over if self.kind == "splits" else Counter()
                names, _ = list_folder(split.folder, counter)
            self._names[split.name] = names
        return self._names[split.name]

    def _check_classes(self, split: Split) -> None:
        """Raises DataError if a split has classes that the training images do not have."""
        names, theirs = self.class_names(), self._names_in(split)
        unknown = sorted(set(theirs) - set(names))
        if unknown:
            lacking = self.missing_classes(split)
            where = split.folder or f"{self.path}, split {split.name}"
            only_there = f"; only in the training images: {', '.join(lacking)}" if lacking else ""
            raise DataError(
                f"The classes of {where} and of the training images differ: only in {where}: "
                f"{', '.join(unknown)}{only_there}. Every split must have the same classes."
            )

    def _list(self, split: Split) -> list[Example]:
        files = self._files_by_class(split)
        ordered = []
        for label, name in enumerate(self.class_names()):
            mixed = sorted(files.get(name, ()), key=lambda file: _hash(file[0]))
            for rank, (_, path) in enumerate(mixed):
                ordered.append(((rank + 0.5) / len(mixed), label, path))
        return [(path, label) for _, label, path in sorted(ordered)]

    def _list_sets(self, split: Split) -> list[Example]:
        numbers = {name: number for number, name in enumerate(self.class_names())}
        if self.kind == "table":
            self._check_files(split)
            images = [
                (_hash(file), label_tables.resolve(self.path, file), labels)
                for file, labels in self._table.rows[split.name]
            ]
        else:
            images = [
                # Two classes may have different images of one name.
                (_hash(f"{one.classes[0]}/{one.name}"), self._path_of(one), tuple(one.classes))
                for one in shared_files.merge(self._files_by_class(split))
            ]
        from keras_resnet.input_pipeline.stratification import spread  # loads NumPy

        sets = [tuple(sorted(numbers[name] for name in labels)) for _, _, labels in images]
        order = spread(sets, [key for key, _, _ in images])
        return [(images[place][1], sets[place]) for place in order]

    def _path_of(self, image: shared_files.Image) -> str:
        """One of its files; one that is left out, if any is."""
        left_out = (path for path in image.paths if is_excluded(path, self.excluded))
        return next(left_out, image.paths[0])

    def _check_files(self, split: Split) -> None:
        """Raises DataError if files of a table are not there, other than those left out."""
        needed = [
            path
            for path, _ in self._table.rows[split.name]
            if not is_excluded(label_tables.resolve(self.path, path), self.excluded)
        ]
        label_tables.check_files(self.path, needed)

    def _files_by_class(self, split: Split) -> dict[str, list[tuple[str, str]]]:
        """Class -> (name within the class or table, path) of each image that has one label."""
        names = self._names_in(split)
        if self.kind != "table":
            found = {}
            for name in names:
                folder = os.path.join(split.folder, name)
                below = _image_files(folder, self.passed_over, self.excluded)
                found[name] = [(file, os.path.join(folder, file)) for file in below]
            return found
        self._check_files(split)
        tabled: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
        for path, labels in self._table.rows[split.name]:
            tabled[labels[0]].append((path, label_tables.resolve(self.path, path)))
        return tabled

    def _no_labels(self, name: str) -> DataError:
        return DataError(
            f"{os.path.join(self.path, name)} holds images and no class folders, so they have no "
            f"labels. The splits with labels: {listed(split.name for split in self.splits)}; a run "
            f"is told by config.data.eval_split={self.splits[-1].name}, `keras-resnet evaluate` by "
            f"--split={self.splits[-1].name}. `keras-resnet predict` says what a network takes the "
            "others for."
        )

    def _no_split(self, name: str, alike: list[Split]) -> DataError:
        names = [split.name for split in self.splits]
        if alike:
            return DataError(
                f"{self.path} has {len(alike)} splits that {name!r} may mean: "
                f"{listed(split.name for split in alike)}. Name the one to take."
            )
        if self.kind == "classes" or (self.kind == "table" and len(names) == 1):
            kind = "folder of classes" if self.kind == "classes" else "table"
            return DataError(
                f"{self.path} is one {kind}, so it has no split {name!r}. State two slices of "
                "'train', for instance --config.data.train_split='train[:80%]' "
                "--config.data.eval_split='train[80%:]'; `keras-resnet train --data=FOLDER` does "
                "so by itself."
            )
        return DataError(
            f"{self.path} has no split {name!r}.{did_you_mean(name, names)} "
            f"Its splits: {', '.join(names)}."
        )


def _image_files(
    folder: str, passed_over: Counter[str], excluded: Collection[str] = ()
) -> list[str]:
    """Paths relative to a class folder, with forward slashes; folders below it count as well."""
    files = []
    for parent, _, names in walk(folder, passed_over):
        below = os.path.relpath(parent, folder)
        for name in names:
            if not is_image_name(name):
                if is_excluded(os.path.join(parent, name), excluded):
                    continue
                raise DataError(
                    f"{os.path.join(parent, name)} is no image of a supported format "
                    f"({', '.join(IMAGE_SUFFIXES)}); convert or remove it."
                )
            files.append(name if below == "." else f"{Path(below).as_posix()}/{name}")
    if not files:
        raise DataError(f"The class folder {folder} holds no images.")
    return files


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    return ", ".join(names)
