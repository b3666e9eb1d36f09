"""Classes of image files: the one predictor behind the command `predict` and Python.

Images that cannot be read get an answer that says why, whatever predicts. Probabilities are made by
the rule of `make_network`.
"""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export import signatures
from keras_resnet.export.versions import list_versions, newest_version
from keras_resnet.input_pipeline.corrupt_images import describe, problem
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.image_listing import list_images
from keras_resnet.input_pipeline.other_formats import as_png, suffixes_read
from keras_resnet.models.loading import load_model
from keras_resnet.preprocessing import MAX_PIXELS
from keras_resnet.storage import in_bucket
from keras_resnet.training.evaluation import load_model_of_workdir
from keras_resnet.training.workdir import WorkDir

BATCH = 32
TOP = 5
UNDECODABLE = "it cannot be decoded"

# string tensor [n] -> `classes`, `class_ids`, `probabilities`, [n, k] each, and perhaps `valid`,
# bool [n].
Answer = Callable[[tf.Tensor], dict[str, tf.Tensor]]


class Predictor:
    """Classifies encoded images; made by `load_predictor` or from a model.

    Args:
        answer: classifies a batch.
        max_pixels: how many pixels an image may claim to have (`Preprocessing.max_pixels`), where
            that is known.
    """

    def __init__(self, answer: Answer, max_pixels: int = MAX_PIXELS):
        self._answer, self._max_pixels = answer, max_pixels

    @classmethod
    def of_model(
        cls, model: keras.Model, top: int = TOP, class_names: list[str] | None = None
    ) -> "Predictor":
        """Predicts with a Keras model, through the functions that its export would have."""
        network = signatures.make_network(model, fold=False, class_names=class_names)
        made = signatures.make_signatures(network, network, top=top, on_error="flag")
        return cls(made["serving_default"], network.preprocessing.max_pixels)

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
            probable first, or a string that says why the file cannot be read.

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
            contents, problems = _read(chunk, self._max_pixels)
            answers = self._answers(contents)
            for file in chunk:
                yield str(file), problems.get(file) or answers[file]

    def _answers(self, contents: dict[Path, bytes]) -> dict[Path, list[dict] | str]:
        if not contents:
            return {}
        try:
            outputs = self._answer(tf.constant(list(contents.values())))
        except tf.errors.InvalidArgumentError as error:
            if len(contents) == 1:
                ((file, encoded),) = contents.items()
                return {file: self._problem(encoded, _reason(error))}
            # The SavedModel refuses the whole batch for one image, or because it is too long.
            files = list(contents)
            half = len(files) // 2
            return self._answers({file: contents[file] for file in files[:half]}) | self._answers(
                {file: contents[file] for file in files[half:]}
            )
        values = {key: value.numpy() for key, value in outputs.items()}
        valid = values.get("valid", np.ones(len(contents), bool))
        rows = zip(values["classes"], values["class_ids"], values["probabilities"], strict=True)
        return {
            file: _rows(*row) if ok else self._problem(encoded, UNDECODABLE)
            for (file, encoded), row, ok in zip(contents.items(), rows, valid, strict=True)
        }

    def _problem(self, encoded: bytes, said: str) -> str:
        # A graph that flags images does not say why: what it refuses, it refuses here as well.
        found = problem(lambda: encoded, self._max_pixels) if said == UNDECODABLE else None
        return found or describe(encoded, ValueError(said))


def load_predictor(
    path: str | os.PathLike, top: int | None = None, class_names: list[str] | None = None
) -> Predictor:
    """A predictor from whatever this package writes.

    Args:
        path: a `.keras` file, a SavedModel, a folder of versions (of which the newest is taken), or
            the work directory of a run (see `load_model_of_workdir`).
        top: number of classes, 5 by default; a SavedModel returns as many as it was exported with,
            or fewer if `top` says so.
        class_names: instead of those of a `.keras` file or a work directory.

    Raises:
        UserError: there is nothing at `path` that predicts.
    """
    if Path(path).suffix == ".keras":
        return Predictor.of_model(load_model(Path(path)), top or TOP, class_names)
    if _is_workdir(path):
        return Predictor.of_model(load_model_of_workdir(WorkDir(path)), top or TOP, class_names)
    return Predictor(_served(newest_version(Path(path).expanduser()), top))


def _is_workdir(path: str | os.PathLike) -> bool:
    """Whether a run was started in a folder, in which no versions were exported."""
    folder = WorkDir(path)
    if in_bucket(path):
        return folder.is_begun()
    exported = (folder.path / "saved_model.pb").exists() or list_versions(folder.path)
    return not exported and folder.is_begun()


def _served(folder: Path, top: int | None) -> Answer:
    """The function behind `serving_default` of a SavedModel, for the `top` classes."""
    try:
        loaded = tf.saved_model.load(str(folder))
        signature = loaded.signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: cannot be loaded as a SavedModel ({reason})") from error
    _, inputs = signature.structured_input_signature
    wanted = {"classes", "class_ids", "probabilities"}
    if list(inputs) != ["image_bytes"] or not wanted <= signature.structured_outputs.keys():
        raise UserError(
            f"{folder}: its serving_default takes {sorted(inputs)} and returns "
            f"{sorted(signature.structured_outputs)}; predict needs an export of keras-resnet, "
            "image_bytes -> classes, class_ids, probabilities"
        )

    def answer(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = loaded.signatures["serving_default"](image_bytes=encoded)  # keeps `loaded` alive
        return {k: v if k == "valid" else v[:, :top] for k, v in outputs.items()}

    return answer


def _read(files: list[Path], max_pixels: int) -> tuple[dict[Path, bytes], dict[Path, str]]:
    contents, problems = {}, {}
    for file in files:
        try:
            contents[file] = as_png(file.read_bytes(), max_pixels)
        except OSError as error:
            problems[file] = f"cannot be read: {error.strerror or error}"
        except DataError as error:
            problems[file] = str(error)
    return contents, problems


def _reason(error: tf.errors.OpError) -> str:
    return UNDECODABLE if signatures.UNREADABLE in error.message else error.message


def _rows(classes: np.ndarray, ids: np.ndarray, probabilities: np.ndarray) -> list[dict]:
    return [
        {"class": name.decode(), "class_id": int(index), "probability": float(value)}
        for name, index, value in zip(classes, ids, probabilities, strict=True)
    ]
