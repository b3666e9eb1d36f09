"""What a model of several labels an image says of every image of a set, labelled or not."""

import csv
import dataclasses
import functools
from typing import IO

import numpy as np

from keras_resnet.input_pipeline.label_sets import join
from keras_resnet.printing import csv_cell
from keras_resnet.training import label_sets


@dataclasses.dataclass(frozen=True)
class LabelSetPredictions:
    """The probabilities of all classes for some images, each of which a yes or no is made of.

    Attributes:
        source: what the images are, as in "photos test: 360 images, 10 classes".
        class_names: in the model's order; of labelled images those that the data has.
        numbers: of those classes in the model.
        paths: of the images: files, or what their data set calls them.
        labels: bool [images, classes]; None of photos without labels.
        probabilities: float32 [images, classes].
        thresholds: of the model, above which it predicts each class.
        problems: path -> why an image cannot be read; such have no row above.
    """

    source: str
    class_names: tuple[str, ...]
    numbers: tuple[int, ...]
    paths: tuple[str, ...]
    labels: np.ndarray | None
    probabilities: np.ndarray
    thresholds: tuple[float, ...]
    problems: dict[str, str]

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """bool [images, classes], what is above its threshold."""
        return label_sets.exceeds(self.probabilities, self.thresholds)

    @functools.cached_property
    def sureness(self) -> np.ndarray:
        """float32 [images, classes], the probability that the answer, yes or no, is right."""
        return np.where(self.predicted, self.probabilities, 1 - self.probabilities)

    @functools.cached_property
    def doubt(self) -> np.ndarray:
        """float32 [images, classes], how near a probability is to its threshold, up to 0."""
        return -abs(self.probabilities - np.array(self.thresholds, "float32"))

    def figures(self) -> dict[str, float]:
        """map, and f1 and macro_f1 at the thresholds; {} without labels."""
        if self.labels is None:
            return {}
        return label_sets.figures(self.labels, self.probabilities, self.thresholds)

    def labels_of(self, place: int) -> tuple[str, ...]:
        """The classes that an image has; () without labels."""
        return () if self.labels is None else self._names(self.labels[place])

    def write_csv(self, file: IO[str]) -> None:
        """Writes path, label, prediction, probability, error, and one p_CLASS for each class.

        Several labels, and several predictions with their probabilities, stand in one cell, as the
        tables of labelled images have them.
        """
        writer = csv.writer(file, lineterminator="\n")
        columns = [csv_cell(f"p_{name}") for name in self.class_names]
        writer.writerow(["path", "label", "prediction", "probability", "error", *columns])
        for place, path in enumerate(self.paths):
            row, yes = self.probabilities[place], self.predicted[place]
            order = np.flatnonzero(yes)[np.argsort(-row[yes], kind="stable")]
            answer = join([self.class_names[number] for number in order])
            writer.writerow(
                [
                    csv_cell(path),
                    csv_cell(join(self.labels_of(place))),
                    csv_cell(answer),
                    "|".join(f"{value:.6g}" for value in row[order]),
                    "",
                    *(f"{value:.6g}" for value in row),
                ]
            )
        for path, problem in self.problems.items():
            writer.writerow([csv_cell(path), "", "", "", csv_cell(problem), *[""] * len(columns)])

    def _names(self, which: np.ndarray) -> tuple[str, ...]:
        return tuple(self.class_names[number] for number in np.flatnonzero(which))
