"""Classes of image files: the one predictor behind the command `predict` and Python.

Images that cannot be read get an answer that says why, whatever predicts. Probabilities are made by
the rule of `make_network`.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.calibration import Unknown
from keras_resnet.errors import UserError
from keras_resnet.export import signatures
from keras_resnet.export.signatures import TOP
from keras_resnet.input_pipeline.corrupt_images import describe, problem
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.image_listing import list_images
from keras_resnet.input_pipeline.other_formats import as_png, suffixes_read
from keras_resnet.input_pipeline.places import unfit
from keras_resnet.preprocessing import MAX_PIXELS
from keras_resnet.training.label_sets import THRESHOLD

BATCH = 32
UNDECODABLE = "it cannot be decoded"
# What is looked at of an answer.
NUMBERS = {"class_ids", "probabilities", "valid"}

# string tensor [n] -> `class_ids`, `probabilities`, [n, k] each, and perhaps `valid`, bool [n], and
# others, which are not looked at.
Answer = Callable[[tf.Tensor], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Classified:
    """The most probable classes of some images, the most probable first.

    Attributes:
        class_ids: int32 [n, k].
        probabilities: float32 [n, k].
        problems: place -> why an image cannot be read; its rows are without meaning.
    """

    class_ids: np.ndarray
    probabilities: np.ndarray
    problems: dict[int, str]


class Predictor:
    """Classifies encoded images; made by `load_predictor` or from a model.

    Args:
        answer: classifies a batch.
        class_names: of all classes, by number.
        max_pixels: how many pixels an image may claim to have (`Preprocessing.max_pixels`), where
            that is known.
        thresholds: where an image may have several labels, above which probability each class is
            predicted; () for a half everywhere. None: it has one label.
        top: where it may have several, how many at most; None: all above their thresholds.
        threshold: the probability below which the answer is unknown; None without such an answer.
        webp_as_png: whether WebP files are handed on as PNG, as HEIC files are.
        tta: whether it answers with mirror images, one of `flips.TTA`.

    Attributes:
        class_names: as given.
        is_multilabel: whether an image may have several labels or none.
        thresholds: one for each class where it may; else ().
        threshold, tta: as given.
    """

    def __init__(
        self,
        answer: Answer,
        class_names: Sequence[str],
        max_pixels: int = MAX_PIXELS,
        thresholds: Sequence[float] | None = None,
        top: int | None = None,
        threshold: float | None = None,
        webp_as_png: bool = False,
        tta: str = "none",
    ):
        self._webp_as_png = webp_as_png
        self._answer, self._max_pixels, self._top = answer, max_pixels, top
        self.class_names = tuple(class_names)
        self.is_multilabel = thresholds is not None
        halves = (THRESHOLD,) * len(self.class_names) if self.is_multilabel else ()
        self.thresholds = tuple(thresholds or halves)
        self.threshold, self.tta = threshold, tta

    @classmethod
    def of_model(
        cls,
        model: keras.Model,
        top: int | None = None,
        class_names: list[str] | None = None,
        *,
        calibrated: bool = False,
        unknown: Unknown | str | float | None = None,
        tta: str | None = None,
    ) -> "Predictor":
        """Predicts with a Keras model, through the functions that its export would have.

        The arguments are those of `load_predictor`.
        """
        network = signatures.make_network(
            model,
            fold=False,
            class_names=class_names,
            calibrated=calibrated,
            unknown=unknown,
            tta=tta,
        )
        several = network.is_multilabel
        made = signatures.make_signatures(
            network, network, top=None if several else top or TOP, on_error="flag"
        )
        return cls(
            made["serving_default"],
            network.class_names,
            network.preprocessing.max_pixels,
            network.thresholds if several else None,
            top,
            network.threshold,
            tta=network.tta,
        )

    def with_threshold(self, value: float) -> "Predictor":
        """The same with one threshold for all classes, where an image may have several labels.

        Raises:
            UserError: it has one label.
        """
        if not self.is_multilabel:
            raise UserError(
                "a threshold is for models of several labels an image (sigmoid); this one gives "
                "one class (softmax)"
            )
        limits = (value,) * len(self.class_names)
        return Predictor(
            self._answer,
            self.class_names,
            self._max_pixels,
            limits,
            self._top,
            webp_as_png=self._webp_as_png,
            tta=self.tta,
        )

    def predict(
        self,
        paths: str | os.PathLike | Iterable[str | os.PathLike],
        batch_size: int = BATCH,
    ) -> Iterator[tuple[str, list[dict] | str]]:
        """Yields (path, answer) for every image, reading a batch at a time.

        Args:
            paths: one path or several: image files, and folders of which every image file is taken.

        Yields:
            The path and a list of {"class": name, "class_id": index, "probability": 0..1}, the most
            probable first, or a string that says why the file cannot be read. Where an image may
            have several labels, the list holds those above their thresholds, perhaps none. With a
            `threshold` each also has "unknown": whether its probability is below it; where that is
            so of the first, the answer is unknown.

        Raises:
            UserError: a path does not exist.
        """
        yield from self.predict_files(list_images(paths, also=suffixes_read()), batch_size)

    def predict_files(
        self, files: Iterable[Path], batch_size: int = BATCH
    ) -> Iterator[tuple[str, list[dict] | str]]:
        """As `predict`, for files alone; one that is not there any more gets an answer, too."""
        files = iter(files)
        while chunk := list(itertools.islice(files, batch_size)):
            contents, problems = _read(chunk, self._max_pixels, self._webp_as_png)
            answers = self._answers(contents)
            for file in chunk:
                yield str(file), problems.get(file) or answers[file]

    def _answers(self, contents: dict[Path, bytes]) -> dict[Path, list[dict] | str]:
        if not contents:
            return {}
        found = self.classify(list(contents.values()))
        return {
            file: found.problems[place]
            if place in found.problems
            else self._rows(found.class_ids[place], found.probabilities[place])
            for place, file in enumerate(contents)
        }

    def _rows(self, ids: np.ndarray, probabilities: np.ndarray) -> list[dict]:
        if self.is_multilabel:
            limits = np.array(self.thresholds, probabilities.dtype)[ids]
            above = np.flatnonzero(probabilities > limits)[: self._top]
            ids, probabilities = ids[above], probabilities[above]
        rows = [
            {"class": self.class_names[index], "class_id": int(index), "probability": float(value)}
            for index, value in zip(ids, probabilities, strict=True)
        ]
        if self.threshold is None:
            return rows
        return [{**row, "unknown": row["probability"] < self.threshold} for row in rows]

    def classify(self, encoded: Sequence[bytes]) -> Classified:
        """Classifies the contents of image files, at least one, as one batch."""
        try:
            outputs = self._answer(tf.constant(encoded))
        except tf.errors.InvalidArgumentError as error:
            if len(encoded) == 1:
                nothing, said = np.zeros((1, 1)), self._problem(encoded[0], _reason(error))
                return Classified(nothing.astype("int32"), nothing.astype("float32"), {0: said})
            # The SavedModel refuses the whole batch for one image, or because it is too long.
            half = len(encoded) // 2
            return _joined(self.classify(encoded[:half]), self.classify(encoded[half:]))
        values = {key: outputs[key].numpy() for key in NUMBERS & outputs.keys()}
        valid = values.get("valid", np.ones(len(encoded), bool))
        problems = {
            place: self._problem(encoded[place], UNDECODABLE)
            for place in np.flatnonzero(~valid).tolist()
        }
        return Classified(values["class_ids"], values["probabilities"], problems)

    def _problem(self, encoded: bytes, said: str) -> str:
        # A graph that flags images does not say why: what it refuses, it refuses here as well.
        found = problem(lambda: encoded, self._max_pixels) if said == UNDECODABLE else None
        return found or describe(encoded, ValueError(said))


def _joined(first: Classified, second: Classified) -> Classified:
    """One after the other, of as many classes as the wider has."""
    width = max(first.class_ids.shape[1], second.class_ids.shape[1])

    def stack(*rows: np.ndarray) -> np.ndarray:
        return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]))) for row in rows])

    count = len(first.class_ids)
    return Classified(
        stack(first.class_ids, second.class_ids),
        stack(first.probabilities, second.probabilities),
        {**first.problems, **{count + place: why for place, why in second.problems.items()}},
    )


def _read(
    files: list[Path], max_pixels: int, webp_as_png: bool
) -> tuple[dict[Path, bytes], dict[Path, str]]:
    contents, problems = {}, {}
    for file in files:
        try:
            if found := unfit(file.stat()):  # to read a pipe may take for ever
                problems[file] = found
                continue
            contents[file] = as_png(file.read_bytes(), max_pixels, webp_as_png)
        except OSError as error:
            problems[file] = f"cannot be read: {error.strerror or error}"
        except DataError as error:
            problems[file] = str(error)
    return contents, problems


def _reason(error: tf.errors.OpError) -> str:
    return UNDECODABLE if signatures.UNREADABLE in error.message else error.message
