"""`inspect_images`: a look at every image of a labelled set, and what it found."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from keras_resnet.backend import require_tensorflow_installed
from keras_resnet.errors import UserError
from keras_resnet.input_pipeline import exclusion, label_sets
from keras_resnet.input_pipeline.layout_finder import explain_listing, find_layout
from keras_resnet.inspection import findings
from keras_resnet.inspection.duplicates import SIMILARITY, find_duplicates
from keras_resnet.inspection.findings import KINDS, LEFT_OUT, Finding, Listed
from keras_resnet.inspection.judging import judge, judge_by_folds
from keras_resnet.inspection.measuring import measure, require_images

if TYPE_CHECKING:
    import keras

    from keras_resnet.export.predictor import Predictor
    from keras_resnet.input_pipeline.layout import Layout

_RANKS = {"train": 0, "validation": 1, "test": 2}


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What was found in a set of labelled images.

    Attributes:
        path: of the data.
        layout: one line on how the images were found to lie.
        images: how many there are.
        classes: split -> class -> number of images.
        findings: one for each kind of which there is something, in the order of KINDS.
        judged: one line on the model that labels were compared with, or "".
    """

    path: str
    layout: str
    images: int
    classes: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    judged: str = ""

    def __getitem__(self, kind: str) -> Finding:
        """The finding of a kind; without groups where there is nothing of it."""
        return next((one for one in self.findings if one.kind == kind), Finding(kind, ()))

    def files_to_leave_out(self, kinds: Iterable[str] = LEFT_OUT) -> list[str]:
        """Paths of the files that findings of these kinds say to leave out, sorted.

        Of copies one is kept: of an exact duplicate the first, of a near one the largest, of a leak
        those of the evaluation; of the same pixels under several labels none is.

        Raises:
            UserError: there is no such kind.
        """
        kinds = list(kinds)
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f"{kind!r} is no kind of finding; there are {', '.join(KINDS)}")
        items = (item for kind in kinds for item in self[kind].items)
        return sorted({item.path for item in items if item.left_out and item.path})

    def exclude_list(self, kinds: Iterable[str] = LEFT_OUT) -> str:
        """The same as the text of a file for `data.exclude`, with the kind above the names."""
        lines = [f"# {len(self.files_to_leave_out(kinds)):,} files to leave out: data.exclude"]
        written: set[str] = set()
        for kind in kinds:
            new = {item.path for item in self[kind].items if item.left_out and item.path}
            names = sorted(new - written)
            written |= new
            lines += [f"# {kind}"] * bool(names) + exclusion.lines(names, self.path)
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {
            "data": self.path,
            "layout": self.layout,
            "images": self.images,
            "classes": self.classes,
            "judged": self.judged,
            "findings": [
                {
                    "kind": one.kind,
                    "meaning": one.meaning,
                    "groups": [
                        [dataclasses.asdict(item) for item in group] for group in one.groups
                    ],
                }
                for one in self.findings
            ],
        }


def inspect_images(
    data: str | os.PathLike,
    *,
    model: "keras.Model | Predictor | str | os.PathLike | None" = None,
    model_split: str | None = None,
    folds: int = 0,
    near_duplicates: bool = True,
    similarity: float = SIMILARITY,
    progress: Callable[[int], Any] = lambda count: None,
) -> Inspection:
    """Looks at every image of a labelled set for what spoils training or its evaluation.

        found = keras_resnet.inspect_images("photos")
        found["duplicate"].groups, found.files_to_leave_out()

    Duplicates, leaks between splits, conflicts of labels, files that cannot be read, dark, blurred,
    single-colored, tiny, huge and narrow images, EXIF rotation, wrong extensions, few images of a
    class; with a model also labels that are probably wrong. A broken file is a finding and never
    an error.

    Args:
        data: a folder of labelled images or a table of paths and labels, laid out in any usual way
            (see `input_pipeline.layout_finder`).
        model: what `evaluate` takes. It must not have been trained on the images that it judges:
            a model remembers the wrong labels that it was trained with.
        model_split: of `data`, the images whose labels are compared with the model; by default the
            test images, else the validation images, else all.
        folds: with 2 or more, all images (or those of `model_split`) are judged by
            cross-validation: a linear classifier on the model's vectors of the other parts
            predicts each part, copies of an image in one part with it. Needs scikit-learn, and a
            model with layers. It may know the images, if not these labels.
        near_duplicates: whether copies that are not exact are looked for. The search takes 25 s of
            a processor for 50,000 images, and four times that for twice as many.
        similarity: the correlation, up to 1, from which on two images are nearly the same.
        progress: told how many files are done since the last call.

    Raises:
        UserError: there is no such model, or it does not fit the data; `folds` without
            scikit-learn, or more than there are images.
        input_pipeline.DataError: there are no labelled images.
    """
    require_tensorflow_installed()
    path = os.fspath(data)
    with explain_listing(path):
        layout = find_layout(path, multi_label=None)
        images, others = _list(layout)
        described = layout.describe()
    require_images(len(images), path)
    measured = measure([file.path for file in images], progress)
    duplicates = find_duplicates(measured, near_duplicates, similarity)
    classes = findings.count_classes(images)
    found = [
        findings.no_images(others),
        findings.unknown_classes(images, layout.class_names()),
        findings.imbalance(classes),
        *findings.of_files(images, measured),
        *findings.of_duplicates(images, measured, duplicates),
    ]
    judged = ""
    if model is not None and folds:
        copies = [[measured.files[place] for place in group] for group in duplicates.alike]
        labels, judged = judge_by_folds(
            model, images, model_split, folds, copies, layout.multi_label
        )
        found.append(labels)
    elif model is not None:
        labels, judged = judge(model, path, layout, images, model_split, found)
        found.append(labels)
    order = list(KINDS)
    kept = sorted((one for one in found if one.groups), key=lambda one: order.index(one.kind))
    return Inspection(path, described, len(images), classes, tuple(kept), judged)


def _list(layout: "Layout") -> tuple[list[Listed], list[Listed]]:
    """The images of all splits, sorted within each, and the files that are none."""
    images: list[Listed] = []
    others: list[Listed] = []
    for split in layout.splits:
        rank = _RANKS.get(split.role or "", 0)
        for kept, files in zip((images, others), layout.every_file(split), strict=True):
            kept += [
                Listed(file, split.name, label, rank, _classes(layout, label))
                for file, label in sorted(files)
            ]
    return images, others


def _classes(layout: "Layout", label: str) -> tuple[str, ...]:
    """The classes of an image whose label `Layout.every_file` gives."""
    separator = label_sets.SEPARATORS[0]
    return label_sets.labels_of(label, separator) if layout.multi_label else (label,)
