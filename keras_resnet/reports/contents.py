"""What a report holds, before it is a page."""

import dataclasses
import functools
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from keras_resnet.config.schema import default_config, flatten
from keras_resnet.explain.gallery import Shot
from keras_resnet.explain.label_set_gallery import Answer
from keras_resnet.explain.predictions import Predictions
from keras_resnet.models.costs import Profile
from keras_resnet.training import confusion
from keras_resnet.training.curves import Best, find_best
from keras_resnet.training.label_sets import LabelSetEvaluation, figures

# Numbers of a label and of what it was taken for.
Cell = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Thumbnail:
    """A small picture of an evaluated image.

    Attributes:
        place: of the image among the predictions.
        path: of it.
        probability: of the class that it was taken for.
        jpeg: the picture as a file, what the network sees.
    """

    place: int
    path: str
    probability: float
    jpeg: bytes


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A label that is probably wrong.

    Attributes:
        path: of the image.
        label: number of the class that it is said to have.
        suggestion: number of the class that it should probably have.
        probability: of that class.
        thumbnail: None where there was no room for it.
    """

    path: str
    label: int
    suggestion: int
    probability: float
    thumbnail: Thumbnail | None


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the predictions and the files say of the data.

    Attributes:
        suspects: the most doubtful labels first, at most as many as are shown.
        suspected: how many labels are suspected in all.
        noise: estimated share of wrong labels.
        copies: (name in evaluation, name in training) of files with the same bytes, the first few.
        copied: how many images of the evaluation are in the training images too; None where that
            was not looked at.
        notes: sentences on what was not looked at, and why.
    """

    suspects: tuple[Suspect, ...]
    suspected: int
    noise: float
    copies: tuple[tuple[str, str], ...]
    copied: int | None
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Report:
    """What there is to say of a run.

    Attributes:
        name: of the run, its folder.
        config: of the run.
        history: what was changed when it was resumed, as config.json has it.
        dataset: the content of dataset.json.
        result: the content of result.json; {} of a run that is not finished.
        rows: of metrics.jsonl.
        step: of the network that was evaluated.
        split: name of the images that it was evaluated on.
        source: the same in words, as in "digits test: 360 images, 10 classes".
        class_names: by number.
        matrix: int64 [classes, classes], row the label, column the prediction; None where nothing
            was evaluated, or images have several labels.
        label_sets: what was made of images with several labels; None of one label an image.
        thresholds: of those, above which each class is predicted; None for a half.
        predictions: of the images behind it, or of a part of them; None where there are no images.
        mistakes: the surest first, with heat maps.
        cells: pictures of images behind cells of the matrix, those of mistakes the surest first,
            those of right answers the most doubtful first.
        findings: None where there are no images.
        calibration: the content of calibration.json; None without one.
        costs: None of a network that cannot be counted.
        versions: name -> version, of what wrote the report.
        notes: sentences on what is left out.
        answers: of images with several labels the wrong ones, the surest first, with heat maps;
            None where no images were looked at.
    """

    name: str
    config: ConfigDict
    history: tuple[dict[str, Any], ...]
    dataset: dict[str, Any]
    result: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    step: int
    split: str
    source: str
    class_names: tuple[str, ...]
    matrix: np.ndarray | None
    label_sets: LabelSetEvaluation | None
    thresholds: tuple[float, ...] | None
    predictions: Predictions | None
    mistakes: tuple[Shot, ...]
    cells: dict[Cell, tuple[Thumbnail, ...]]
    findings: Findings | None
    calibration: dict[str, Any] | None
    costs: Profile | None
    versions: dict[str, str]
    notes: tuple[str, ...]
    answers: tuple[Answer, ...] | None = None

    @functools.cached_property
    def classes(self) -> list[dict[str, Any]]:
        """A dict for each class: `confusion.class_rows`, of several labels `per_class` of those."""
        if self.label_sets is not None:
            rows = self.label_sets.per_class(self.thresholds)
            return [{**row, "support": row["examples"]} for row in rows]
        return [] if self.matrix is None else confusion.class_rows(self.matrix, self.class_names)

    @property
    def top1(self) -> float | None:
        """The share of the images that the network is right on."""
        if self.matrix is None or not self.matrix.sum():
            return None
        return float(self.matrix.trace() / self.matrix.sum())

    @property
    def best(self) -> Best | None:
        """The best evaluation of the run."""
        return find_best(self.rows)

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end."""
        return bool(self.result)

    @property
    def label_set_figures(self) -> dict[str, float]:
        """map, f1 and macro_f1 of images with several labels; {} of one label an image."""
        if self.label_sets is None:
            return {}
        return figures(self.label_sets.labels, self.label_sets.probabilities, self.thresholds)

    def average(self, key: str) -> float | None:
        """Mean of "precision", "recall", "f1" or another over the classes that have images.

        What cannot be told of a class, the precision of one that was never predicted, counts as 0.
        """
        values = [row[key] or 0.0 for row in self.classes if row["support"]]
        return sum(values) / len(values) if values else None

    def settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Key -> value: those that are not at their default, and the rest."""
        defaults = dict(flatten(default_config()))
        values = dict(flatten(self.config))
        changed = {key: value for key, value in values.items() if value != defaults[key]}
        return changed, {key: value for key, value in values.items() if key not in changed}

    def gradient_norms(self) -> list[tuple[float, dict[str, float]]]:
        """(epoch, block -> norm of its gradient) where the run has recorded them."""
        found = []
        for row in self.rows:
            norms, epoch = row.get("gradient_norms"), row.get("epoch")
            if isinstance(norms, dict) and norms and epoch is not None:
                numbers = {k: v for k, v in norms.items() if isinstance(v, int | float)}
                found.append((epoch, numbers))
        return found
