"""Classes of image files, from a SavedModel or a Keras model, over any number of files."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.export import loading, sample_images, signatures
from keras_resnet.export.versions import newest_version
from keras_resnet.input_pipeline.corrupt_images import describe

BATCH = 32


class Predictor:
    """Classifies encoded images; made by `load_predictor` or from a model.

    Args:
        answer: string tensor [n] -> dict with `classes`, `class_ids`, `probabilities`, [n, k] each,
            and perhaps `valid`, bool [n].
    """

    def __init__(self, answer: Callable[[tf.Tensor], dict[str, tf.Tensor]]):
        self._answer = answer

    @classmethod
    def of_model(
        cls, model: keras.Model, top: int = 5, class_names: list[str] | None = None
    ) -> "Predictor":
        """Predicts with a Keras model, through the functions that its export would have."""
        network = signatures.make_network(model, fold=False, class_names=class_names)
        made = signatures.make_signatures(network, network, top=top, on_error="flag")
        return cls(made["serving_default"])

    def predict(
        self, paths: Iterable[str | os.PathLike], batch_size: int = BATCH
    ) -> Iterator[tuple[str, list[dict] | str]]:
        """Yields (path, answer) for every image, reading a batch at a time.

        Args:
            paths: image files, and folders of which every image file is taken.

        Yields:
            The path and a list of {"class": name, "class_id": index, "probability": 0..1}, the most
            probable first, or a string that says why the file cannot be read.

        Raises:
            UserError: a path does not exist.
        """
        files = sample_images.list_images(paths)
        while chunk := list(itertools.islice(files, batch_size)):
            contents, problems = _read(chunk)
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
                return {file: describe(encoded, _reason(error))}
            # The SavedModel refuses the whole batch for one image: find out which.
            answers = {}
            for file, encoded in contents.items():
                answers |= self._answers({file: encoded})
            return answers
        values = {key: value.numpy() for key, value in outputs.items()}
        valid = values.get("valid", np.ones(len(contents), bool))
        rows = zip(values["classes"], values["class_ids"], values["probabilities"], strict=True)
        return {
            file: _rows(*row) if ok else describe(encoded, "it cannot be decoded")
            for (file, encoded), row, ok in zip(contents.items(), rows, valid, strict=True)
        }


def load_predictor(
    path: str | os.PathLike, top: int | None = None, class_names: list[str] | None = None
) -> Predictor:
    """A predictor from a `.keras` file, a SavedModel, or a folder of versions (the newest).

    Args:
        top: number of classes, 5 by default; a SavedModel returns as many as it was exported with,
            or fewer if `top` says so.
        class_names: for a `.keras` file that has none.

    Raises:
        UserError: there is nothing at `path` that predicts.
    """
    path = Path(path).expanduser()
    if path.suffix == ".keras":
        return Predictor.of_model(loading.load_model(path), top or 5, class_names)
    folder = newest_version(path)
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

    def answer(encoded):
        outputs = signature(image_bytes=encoded)
        return {k: v if k == "valid" else v[:, :top] for k, v in outputs.items()}

    predictor = Predictor(answer)
    predictor.loaded = loaded  # its functions live as long as it does
    return predictor


def _read(files: list[Path]) -> tuple[dict[Path, bytes], dict[Path, str]]:
    contents, problems = {}, {}
    for file in files:
        try:
            contents[file] = file.read_bytes()
        except OSError as error:
            problems[file] = f"cannot be read: {error.strerror or error}"
    return contents, problems


def _reason(error: tf.errors.OpError) -> str:
    return "it cannot be decoded" if signatures.UNREADABLE[:20] in error.message else error.message


def _rows(classes, ids, probabilities) -> list[dict]:
    return [
        {"class": name.decode(), "class_id": int(index), "probability": float(value)}
        for name, index, value in zip(classes, ids, probabilities, strict=True)
    ]
