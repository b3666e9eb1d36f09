"""Labels that a model doubts: of one label an image, and of several."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.flips import with_flips
from keras_resnet.input_pipeline import exclusion
from keras_resnet.inspection.cross_validation import (
    predict_from_others,
    predict_sets_from_others,
)
from keras_resnet.inspection.findings import Finding, Item, Listed
from keras_resnet.inspection.label_errors import find_label_errors, find_label_set_errors
from keras_resnet.training.label_sets import figures as label_set_figures

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.layout import Layout

# Kinds of files at which the listing of images stops.
_NOT_OPENED = ("unreadable", "no_image", "unknown_class")


def judge(
    model: Any,
    path: str,
    layout: "Layout",
    images: list[Listed],
    split: str | None,
    found: list[Finding],
) -> tuple[Finding, str]:
    """Labels that a model doubts, and a line on how it was asked."""
    from keras_resnet import input_pipeline
    from keras_resnet.evaluation import DataEvaluation, evaluate

    name = split or layout.evaluation_split().name
    # What is known to be no image would stop the listing.
    broken = {
        item.path for one in found if one.kind in _NOT_OPENED for item in one.items if item.path
    }
    with tempfile.TemporaryDirectory() as folder:
        exclude = Path(folder, "exclude.txt")
        exclude.write_text("\n".join(exclusion.lines(sorted(broken), path)), encoding="utf-8")
        source = input_pipeline.open_source(
            "image_folder",
            path=path,
            split=name,
            exclude=str(exclude) if broken else "",
            multi_label=layout.multi_label,
            on_error="skip",
            max_broken_share=1.0,
        )
    result = evaluate(model, source)
    by_path = {file.path: file for file in images}
    listed = [by_path[file] for file in result.files]
    asked = with_flips(result.source, result.tta)
    if not isinstance(result, DataEvaluation):
        finding, said = _doubted_sets(
            listed, result.labels, result.class_names, result.probabilities
        )
        return finding, f"{asked}; mAP {result.map:.4f}; {said}"
    finding, said = _doubted(listed, result.labels, result.class_names, result.all_probabilities())
    return finding, f"{asked}; top1 {result.top1:.4f}; {said}"


def judge_by_folds(
    model: Any,
    images: list[Listed],
    split: str | None,
    folds: int,
    copies: list[list[int]],
    multi_label: bool,
) -> tuple[Finding, str]:
    """The same by cross-validation; `copies` are places in `images`."""
    from keras_resnet.explain.embedding import embed
    from keras_resnet.explain.networks import load_embedder

    splits = sorted({file.split for file in images})
    if split is not None and split not in splits:
        raise UserError(
            f"--split={split}: with --folds it is one of the splits that were found: "
            f"{', '.join(splits)}"
        )
    asked = [place for place, file in enumerate(images) if split in (None, file.split)]
    paths = [Path(images[place].path) for place in asked]
    by_path = isinstance(model, str | os.PathLike)
    found = load_embedder(model)(paths) if by_path else embed(model, paths)
    rows = {name: row for row, name in enumerate(found.names)}
    places = [place for place in asked if str(Path(images[place].path)) in rows]
    listed = [images[place] for place in places]
    vectors = found.vectors[[rows[str(Path(file.path))] for file in listed]]
    names = sorted({name for file in listed for name in file.classes})
    where = {place: row for row, place in enumerate(places)}
    groups = [[where[place] for place in group if place in where] for group in copies]
    together = [group for group in groups if group]
    if multi_label:
        there = np.array([[name in file.classes for name in names] for file in listed])
        probabilities = predict_sets_from_others(vectors, there, folds, together)
        finding, said = _doubted_sets(listed, there, names, probabilities)
        found_map = label_set_figures(there, probabilities)["map"]
        return finding, f"{len(listed):,} images in {folds} folds; mAP {found_map:.4f}; {said}"
    labels = np.array([names.index(file.label) for file in listed])
    probabilities = predict_from_others(vectors, labels, folds, together)
    finding, said = _doubted(listed, labels, names, probabilities)
    right = np.mean(probabilities.argmax(axis=1) == labels)
    return finding, f"{len(listed):,} images in {folds} folds; top1 {right:.4f}; {said}"


def _doubted(
    listed: Sequence[Listed],
    labels: np.ndarray,
    class_names: Sequence[str],
    probabilities: np.ndarray,
) -> tuple[Finding, str]:
    """The labels that probabilities speak against, and how many that are in words."""
    errors = find_label_errors(labels, probabilities)
    items = []
    for place, suggestion in zip(errors.places, errors.suggestions, strict=True):
        file, chance = listed[place], probabilities[place, suggestion]
        note = f"rather {class_names[suggestion]}, with {chance:.0%}"
        items.append((Item(file.path, file.split, file.label, note),))
    line = f"{len(items):,} labels doubted, about {errors.noise:.1%} of all wrong"
    return Finding("label_error", tuple(items)), line


def _doubted_sets(
    listed: Sequence[Listed],
    labels: np.ndarray,
    class_names: Sequence[str],
    probabilities: np.ndarray,
) -> tuple[Finding, str]:
    """The same of images with several labels or none, all that is doubted of one in one item."""
    found = find_label_set_errors(labels, probabilities)
    notes: dict[int, list[tuple[float, str]]] = {}
    for number, errors in enumerate(found):
        for place, suggestion, margin in zip(
            errors.places.tolist(), errors.suggestions, errors.margins, strict=True
        ):
            what = "rather" if suggestion else "rather not"
            note = f"{what} {class_names[number]}, with {probabilities[place, number]:.0%}"
            notes.setdefault(place, []).append((float(margin), note))
    items = []
    for place in sorted(notes, key=lambda place: (-max(notes[place])[0], place)):
        file, told = listed[place], sorted(notes[place], reverse=True)
        note = "; ".join(text for _, text in told)
        items.append((Item(file.path, file.split, file.label, note),))
    noise = float(np.mean([errors.noise for errors in found])) if found else 0.0
    count = sum(len(errors.places) for errors in found)
    line = (
        f"{count:,} answers of {len(items):,} images doubted, about {noise:.1%} of all yes and no "
        "wrong"
    )
    return Finding("label_error", tuple(items)), line
