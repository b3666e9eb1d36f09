"""What is wrong with images: the kinds of findings, and the rules that make them."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from keras_resnet.inspection.duplicates import Duplicates
from keras_resnet.inspection.file_headers import SUFFIXES
from keras_resnet.inspection.measuring import SIDE, Measurements

# Kind -> what its findings are, in the order of reports.
KINDS: dict[str, str] = {
    "unreadable": "files that cannot be read or decoded, at which training stops",
    "no_image": "files among the images that are none by their name, at which training stops",
    "unknown_class": "images of classes that the training images do not have",
    "leak": "the same image in several splits, so that the evaluation knows the answer",
    "conflict": "the same image under several labels",
    "duplicate": "images of the same pixels in one class",
    "near_duplicate": "nearly the same image several times in one class",
    "label_error": "labels that are probably wrong",
    "single_color": "images of a single color",
    "dark": "very dark images",
    "blurry": "blurred images",
    "tiny": "images that are far smaller than the others",
    "huge": "images or files that take long to read",
    "odd_shape": "long and narrow images, of which a square crop shows little",
    "rotated": "images that are stored lying and turned by EXIF",
    "extension": "names that say another format than the content",
    "imbalance": "classes with few images",
}
# What is left out unless something else is asked for: what stops training, and what makes its
# evaluation say too much. The rest a person should look at.
LEFT_OUT = (
    *("unreadable", "no_image", "unknown_class", "leak", "conflict", "duplicate"),
    "near_duplicate",
)
# Gray levels. Of 125 ImageNet photos the darkest has 109; at 0.15 of their brightness all are
# below.
DARK = 40.0
# Of the same photos the least sharp has 0.0136; after a Gaussian blur of 2 pixels at 500 pixels
# three quarters are below 0.007, after 4 pixels all but one of a hundred.
BLURRY = 0.01
SINGLE_COLOR = 3.0  # gray levels that all pixels of every channel keep to, on average
ODD_SHAPE = 3.0
HUGE_PIXELS, HUGE_BYTES = 50_000_000, 50_000_000
# A quarter of the median, or what no network's stem makes anything of.
TINY_SHARE, TINY_SIDE = 0.25, 8
# The share of the commonest class from which on a class has few images.
FEW = 0.1


@dataclasses.dataclass(frozen=True)
class Item:
    """A file of a finding.

    Attributes:
        path: of the file; "" where a whole class is meant.
        split: its part of the data.
        label: its class.
        note: what is the matter with it, such as "12 × 3,000 pixels".
        left_out: whether it should be left out, if this kind of finding is.
    """

    path: str
    split: str
    label: str
    note: str = ""
    left_out: bool = True


@dataclasses.dataclass(frozen=True)
class Finding:
    """All that was found of one kind.

    Attributes:
        kind: one of KINDS.
        groups: of images that belong together, such as all copies of one; of other kinds each
            group is a single image. The worst come first.
    """

    kind: str
    groups: tuple[tuple[Item, ...], ...]

    @property
    def meaning(self) -> str:
        """What is found, as a clause."""
        return KINDS[self.kind]

    @property
    def items(self) -> tuple[Item, ...]:
        """The files of all groups."""
        return tuple(item for group in self.groups for item in group)


@dataclasses.dataclass(frozen=True)
class Listed:
    """A file as it was listed: path, split, class, and the rank of the split.

    Attributes:
        rank: 0 for training images, 1 for validation, 2 for test: of an image in several splits
            the copy of the highest rank is kept.
        classes: the label, or several of which it is made.
    """

    path: str
    split: str
    label: str
    rank: int
    classes: tuple[str, ...]


def of_files(files: Sequence[Listed], measured: Measurements) -> Iterator[Finding]:
    """Findings on single images."""
    problems = sorted(measured.problems.items())
    yield _finding("unreadable", [_item(files[n], problem) for n, problem in problems])
    heights, widths = measured.sizes.T.astype(np.int64)
    short, long = np.minimum(heights, widths), np.maximum(heights, widths)
    smallest = max(TINY_SIDE, TINY_SHARE * float(np.median(short)) if len(short) else 0)
    brightest = np.percentile(measured.copies.reshape(len(short), SIDE**2), 99, axis=1)
    plain = measured.spread < SINGLE_COLOR
    pixels, size = heights * widths, measured.bytes

    def picked(
        kind: str, mask: np.ndarray, order: np.ndarray, note: Callable[[int], str]
    ) -> Finding:
        places = np.flatnonzero(mask)
        places = places[np.argsort(order[places], kind="stable")].tolist()
        return _finding(kind, [_item(files[measured.files[n]], note(n)) for n in places])

    def shape(n: int) -> str:
        return f"{widths[n]:,} × {heights[n]:,} pixels"

    yield picked("single_color", plain, measured.spread, shape)
    yield picked(
        "dark",
        ~plain & (brightest < DARK),
        brightest,
        lambda n: f"99 % of it below {brightest[n]:.0f} of 255",
    )
    yield picked(
        "blurry",
        ~plain & (measured.sharpness < BLURRY),
        measured.sharpness,
        lambda n: f"sharpness {measured.sharpness[n]:.4f}",
    )
    yield picked("tiny", short < smallest, short, shape)
    yield picked(
        "huge",
        (pixels > HUGE_PIXELS) | (size > HUGE_BYTES),
        -pixels,
        lambda n: f"{shape(n)}, {size[n] / 1e6:,.1f} MB",
    )
    yield picked("odd_shape", long >= ODD_SHAPE * short, short / np.maximum(long, 1), shape)
    yield picked(
        "rotated",
        measured.orientations != 1,
        measured.orientations,
        lambda n: f"orientation {measured.orientations[n]}",
    )
    wrong = [n for n, _ in enumerate(measured.formats) if _other_name(files, measured, n)]
    yield _finding(
        "extension", [_item(files[measured.files[n]], measured.formats[n]) for n in wrong]
    )


def _other_name(files: Sequence[Listed], measured: Measurements, place: int) -> bool:
    suffixes = SUFFIXES.get(measured.formats[place], ())
    return bool(suffixes) and not files[measured.files[place]].path.lower().endswith(suffixes)


def of_duplicates(
    files: Sequence[Listed], measured: Measurements, found: Duplicates
) -> Iterator[Finding]:
    """Leaks, conflicts of labels, exact and near duplicates."""
    pixels = measured.sizes.astype(np.int64).prod(axis=1)

    def listed(place: int) -> Listed:
        return files[measured.files[place]]

    def note(place: int) -> str:
        height, width = measured.sizes[place]
        return f"{width:,} × {height:,} pixels"

    def items(group: Iterable[int], kept: Iterable[int] = ()) -> tuple[Item, ...]:
        spared = set(kept)
        return tuple(_item(listed(n), note(n), n not in spared) for n in group)

    def within_class(groups: list[list[int]]) -> Iterator[list[int]]:
        for group in groups:
            parts: dict[tuple[str, str], list[int]] = {}
            for place in group:
                parts.setdefault((listed(place).split, listed(place).label), []).append(place)
            yield from (part for part in parts.values() if len(part) > 1)

    leaks, conflicts = [], []
    for group in found.alike:
        highest = max(listed(n).rank for n in group)
        keeper = next(listed(n).split for n in group if listed(n).rank == highest)
        if len({listed(n).split for n in group}) > 1:
            leaks.append(items(group, [n for n in group if listed(n).split == keeper]))
        if len({listed(n).label for n in group}) > 1:
            # Which label is right a person has to say; and of images that are alike and no copies,
            # whether they show the same: of CIFAR-10's three such pairs none does.
            contents = {(measured.content[n], *measured.sizes[n]) for n in group}
            conflicts.append(items(group, group if len(contents) > 1 else ()))
    yield Finding("leak", tuple(leaks))
    yield Finding("conflict", tuple(conflicts))
    same = [items(group, group[:1]) for group in within_class(found.same)]
    yield Finding("duplicate", tuple(same))
    near = []
    for group in within_class(found.alike):
        contents = {(measured.content[n], *measured.sizes[n]) for n in group}
        if len(contents) > 1:
            best = max(group, key=lambda n: (pixels[n], measured.bytes[n], -n))
            near.append(items(group, [best]))
    yield Finding("near_duplicate", tuple(near))


def imbalance(classes: dict[str, dict[str, int]]) -> Finding:
    """Classes with less than a tenth of the images of the commonest, or with one, by split."""
    found = []
    for split, counts in classes.items():
        most = max(counts.values(), default=0)
        few = {name: n for name, n in counts.items() if n < FEW * most or n <= 1}
        for name, count in sorted(few.items(), key=lambda row: (row[1], row[0])):
            note = f"{count:,} of {sum(counts.values()):,} images; the commonest has {most:,}"
            found.append(Item("", split, name, note, left_out=False))
    return Finding("imbalance", tuple((item,) for item in found))


def count_classes(files: Iterable[Listed]) -> dict[str, dict[str, int]]:
    """Split -> class -> images; a class that another split has is counted as none."""
    counts: dict[str, Counter[str]] = {}
    for file in files:
        counts.setdefault(file.split, Counter()).update(file.classes)
    names = sorted({name for counter in counts.values() for name in counter})
    return {split: {name: counter[name] for name in names} for split, counter in counts.items()}


def no_images(files: Iterable[Listed]) -> Finding:
    """Files that are no images by their names."""
    return _finding("no_image", [_item(file, os.path.splitext(file.path)[1]) for file in files])


def unknown_classes(files: Iterable[Listed], known: Iterable[str]) -> Finding:
    """Images of classes that the training images do not have."""
    names = set(known)
    return _finding(
        "unknown_class", [_item(file) for file in files if not names.issuperset(file.classes)]
    )


def _finding(kind: str, items: Iterable[Item]) -> Finding:
    return Finding(kind, tuple((item,) for item in items))


def _item(file: Listed, note: str = "", left_out: bool = True) -> Item:
    return Item(file.path, file.split, file.label, note, left_out)
