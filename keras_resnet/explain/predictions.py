"""What a model says of every image of a set, labelled or not."""

import csv
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.explain.label_set_predictions import LabelSetPredictions
from keras_resnet.flips import with_flips
from keras_resnet.printing import csv_cell

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source

_ALL = 2**31 - 1  # classes: as many as there are


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The probabilities of all classes for some images, of which each is of one.

    Attributes:
        source: what the images are, as in "digits test: 360 images, 10 classes".
        class_names: by number.
        paths: of the images: files, or what their data set calls them.
        labels: int32 [images]; None of photos without labels.
        probabilities: float32 [images, classes].
        problems: path -> why an image cannot be read; such have no row above.
    """

    source: str
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray | None
    probabilities: np.ndarray
    problems: dict[str, str]

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """int64 [images], the most probable class of each."""
        return self.probabilities.argmax(axis=1)

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """float32 [images], the probability of that class."""
        return self.probabilities.max(axis=1)

    @functools.cached_property
    def margin(self) -> np.ndarray:
        """float32 [images], how far the most probable class is ahead of the next."""
        if self.probabilities.shape[1] < 2:
            return self.confidence
        ordered = np.partition(self.probabilities, -2, axis=1)
        return ordered[:, -1] - ordered[:, -2]

    @property
    def top1(self) -> float | None:
        """The share of the images of which the label is the most probable class."""
        return None if self.labels is None else float((self.classes == self.labels).mean())

    def write_csv(self, file: IO[str]) -> None:
        """Writes path, label, prediction, probability, error, and one p_CLASS for each class."""
        writer = csv.writer(file, lineterminator="\n")
        names = [csv_cell(name) for name in self.class_names]
        columns = [csv_cell(f"p_{name}") for name in self.class_names]
        writer.writerow(["path", "label", "prediction", "probability", "error", *columns])
        chosen, sure = self.classes, self.confidence
        for place, path in enumerate(self.paths):
            label = "" if self.labels is None else names[self.labels[place]]
            values = [f"{value:.6g}" for value in self.probabilities[place]]
            name = names[chosen[place]]
            writer.writerow([csv_cell(path), label, name, f"{sure[place]:.6g}", "", *values])
        for path, problem in self.problems.items():
            writer.writerow([csv_cell(path), "", "", "", csv_cell(problem), *[""] * len(columns)])


def predict_source(
    model: keras.Model, source: "Source", progress: Callable[[int], Any] = lambda count: None
) -> Predictions | LabelSetPredictions:
    """The predictions of a labelled split, by `keras_resnet.evaluate`.

    Of images with several labels they are of the classes that the data has.

    Raises:
        UserError, input_pipeline.DataError: as `keras_resnet.evaluate`.
    """
    from keras_resnet.evaluation import DataEvaluation, evaluate

    result = evaluate(model, source, progress=progress)
    skipped = source.skipped.by_name if source.skipped else {}
    problems = {name: text.removeprefix(name).strip() for name, text in skipped.items()}
    if isinstance(result, DataEvaluation):
        return Predictions(
            source=with_flips(result.source, result.tta),
            class_names=result.class_names,
            paths=result.files,
            labels=result.labels,
            probabilities=result.all_probabilities(),
            problems=problems,
        )
    of_model = list(getattr(model, "class_names", None) or result.class_names)
    return LabelSetPredictions(
        source=with_flips(result.source, result.tta),
        class_names=result.class_names,
        numbers=tuple(map(of_model.index, result.class_names)),
        paths=result.files,
        labels=result.labels,
        probabilities=result.probabilities,
        thresholds=result.thresholds,
        problems=problems,
    )


def predict_photos(
    model: keras.Model,
    paths: Iterable[str | os.PathLike],
    progress: Callable[[int], Any] = lambda count: None,
) -> Predictions | LabelSetPredictions:
    """The predictions of photos without labels, by the predictor of `keras-resnet predict`.

    Args:
        model: a classifier of photos.
        paths: image files, and folders of which every image file is taken.
        progress: told the number of images that are done.

    Raises:
        UserError: a path does not exist, there are no images, or none of them can be read.
    """
    from keras_resnet.export.predictor import Predictor

    predictor = Predictor.of_model(model, _ALL)
    several, thresholds = predictor.is_multilabel, predictor.thresholds
    if several:
        predictor = predictor.with_threshold(-1.0)  # every class has its probability here
    names, rows, problems = [], [], {}
    for path, answer in predictor.predict(paths):
        progress(1)
        if isinstance(answer, str):
            problems[path] = answer
            continue
        row = np.zeros(len(predictor.class_names), "float32")
        for one in answer:
            row[one["class_id"]] = one["probability"]
        names.append(path)
        rows.append(row)
    if not rows:
        first = next(iter(problems.items()), None)
        reason = f"none can be read: {' '.join(first)}" if first else "no image files there"
        raise UserError(f"of the photos {reason}")
    known: dict[str, Any] = {
        "source": with_flips(f"{len(rows):,} photos without labels", predictor.tta),
        "class_names": predictor.class_names,
        "paths": tuple(names),
        "labels": None,
        "probabilities": np.stack(rows),
        "problems": problems,
    }
    if not several:
        return Predictions(**known)
    numbers = tuple(range(len(predictor.class_names)))
    return LabelSetPredictions(**known, numbers=numbers, thresholds=thresholds)
