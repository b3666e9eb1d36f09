"""Any trained model on any labelled images: `keras_resnet.evaluate(model, data)`.

Loads TensorFlow when it evaluates, whatever Keras' backend is: preprocessing is that of training.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet import calibration
from keras_resnet.backend import require_tensorflow
from keras_resnet.class_matching import match_classes
from keras_resnet.data_evaluation import (
    DataEvaluation,
    LabelSetDataEvaluation,
    columns_of,
    scores_by_class,
)
from keras_resnet.errors import UserError
from keras_resnet.training import label_sets

if TYPE_CHECKING:
    import keras

    from keras_resnet.export.predictor import Predictor
    from keras_resnet.input_pipeline import Source

__all__ = ["DataEvaluation", "LabelSetDataEvaluation", "calibrate", "evaluate"]

BATCH = 32
MAX_BROKEN_SHARE = 0.01
# As many classes as the label may be behind for the answer to count as right in top-5.


def evaluate(
    model: "keras.Model | Predictor | str | os.PathLike",
    data: "str | os.PathLike | Source",
    *,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    batch_size: int = BATCH,
    on_error: str = "stop",
    max_broken_share: float = MAX_BROKEN_SHARE,
    tta: str | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> "DataEvaluation | LabelSetDataEvaluation":
    """Counts how often a model is right on labelled images, prepared as the model wants them.

        result = keras_resnet.evaluate("model.keras", "photos")
        result.top1, result.per_class()

    Labels are matched to the classes of the model by name. The data may lack classes of the model
    and have them in any order; a class that the model does not have is an error. A model whose
    classes have no names takes those of the data in their order, if there are as many.

    A model of several labels an image (sigmoid) is evaluated on sets of labels, as
    `data.multi_label` reads them: the result then has `map` and F1 in place of `top1`.

    Args:
        model: a classifier of this package with its `preprocessing`, or what `load_predictor`
            takes: a `.keras` file, an export (SavedModel, `.tflite`, `.onnx`), the work directory
            of a run, or trained weights that name their network. A `Predictor` answers with the
            classes that it was made for.
        data: a folder of labelled images or a table of paths and labels, laid out in any usual way
            (see `input_pipeline.layout_finder`), or an open `input_pipeline.Source`.
        split: of `data`, as in "val" or "train[80%:]"; by default the test images, else the
            validation images, else all.
        class_names: of the model, one for each output, instead of its own.
        batch_size: images at a time; it does not change the result.
        on_error: "stop" at an image that cannot be read, or "skip" it.
        max_broken_share: the share of the images that may be skipped.
        tta: "flip" answers each image together with its mirror image, by the mean of the logits,
            "flip_probabilities" by that of the probabilities; None: as the model says.
        progress: told the number of images of each batch that is done.

    Raises:
        UserError: there is no such model, or it does not fit the data.
        input_pipeline.DataError: the data cannot be used, or an image cannot be read.
    """
    require_tensorflow()
    predictor = _predictor(model, class_names, tta)  # it says how many labels an image may have
    source = open_labelled(data, split, on_error, max_broken_share, predictor.is_multilabel)
    if source.is_synthetic:
        raise UserError(f"{source.description}: noise, on which nothing can be evaluated")
    if source.multi_label and not predictor.is_multilabel:
        raise UserError(
            f"{source.title}: its images have several labels, and the model gives one class "
            "(softmax); train one with config.loss.name=binary, or read them with "
            "config.data.multi_label=false"
        )
    numbers, notes = match_classes(source.class_names, predictor.class_names, source.title)
    counted = _classify(predictor, source, batch_size, progress)
    if source.multi_label:
        return _of_label_sets(source, predictor, numbers, notes, counted)
    labels = numbers[counted.labels]
    pairs = zip(source.class_names, numbers, strict=True)
    lacking = [name for name, number in pairs if number not in labels]
    return DataEvaluation(
        layout=source.layout,
        source=source.description,
        notes=(*notes, *_absent(lacking)),
        class_names=predictor.class_names,
        files=counted.files,
        labels=labels,
        predictions=counted.class_ids,
        probabilities=counted.probabilities,
        unreadable=tuple(source.skipped.problems) if source.skipped else (),
        tta=predictor.tta,
    )


def calibrate(
    model: "keras.Model", data: "str | os.PathLike | Source", *, split: str | None = None
) -> "calibration.Calibration | list[float]":
    """Fits a temperature on labelled images, and gives it to the model as `model.calibration`.

        keras_resnet.calibrate(model, "photos", split="val")
        model.save("calibrated.keras")

    A model of several labels an image gets `model.thresholds` instead: for each class that with the
    best F1 on these images (see `training.label_sets.best_thresholds`). Classes that the data does
    not have keep theirs.

    Of a run `model.keras` has both already. Take images that the model was not trained on, and not
    those by which it is judged.

    Args:
        model: a classifier of this package with its `preprocessing`.
        data, split: as for `evaluate`.

    Returns:
        The calibration, or the thresholds.

    Raises:
        UserError, input_pipeline.DataError: as `evaluate`.
    """
    require_tensorflow()
    from keras_resnet.models.classifiers import gives_label_sets

    source = open_labelled(data, split, "stop", MAX_BROKEN_SHARE, gives_label_sets(model))
    return calibrate_by(model, evaluate(model, source), source.title)


def calibrate_by(
    model: "keras.Model", judged: DataEvaluation | LabelSetDataEvaluation, name: str
) -> "calibration.Calibration | list[float]":
    """The same by an evaluation of the model on images called `name`."""
    if isinstance(judged, DataEvaluation):
        model.calibration = calibration.fit(logits_of(judged), judged.labels, name)
        return model.calibration
    found = label_sets.best_thresholds(judged.labels, judged.probabilities)
    fitted = dict(zip(judged.class_names, found, strict=True))
    names = model.class_names or judged.class_names
    known = model.thresholds or [label_sets.THRESHOLD] * len(names)
    model.thresholds = [fitted.get(name, old) for name, old in zip(names, known, strict=True)]
    return model.thresholds


def logits_of(judged: DataEvaluation) -> np.ndarray:
    """float64 [images, classes]: logits but for a constant of each image, which changes nothing."""
    known = judged.all_probabilities().astype("float64")
    return np.log(np.maximum(known, np.finfo("float32").tiny))


@dataclasses.dataclass
class _Counted:
    files: tuple[str, ...]
    labels: np.ndarray
    class_ids: np.ndarray
    probabilities: np.ndarray


def _of_label_sets(
    source: "Source",
    predictor: "Predictor",
    numbers: np.ndarray,
    notes: list[str],
    counted: _Counted,
) -> LabelSetDataEvaluation:
    names = predictor.class_names
    scores = scores_by_class(counted.class_ids, counted.probabilities, len(names))
    shared, kept, labels, scores = columns_of(names, numbers, counted.labels, scores)
    lacking = [name for place, name in enumerate(shared) if not labels[:, place].any()]
    return LabelSetDataEvaluation(
        layout=source.layout,
        source=source.description,
        notes=(*notes, *_absent(lacking)),
        class_names=shared,
        files=counted.files,
        labels=labels,
        probabilities=scores,
        thresholds=tuple(predictor.thresholds[number] for number in kept),
        unreadable=tuple(source.skipped.problems) if source.skipped else (),
        tta=predictor.tta,
    )


def open_labelled(
    data: "str | os.PathLike | Source",
    split: str | None,
    on_error: str,
    max_broken_share: float,
    multi_label: bool = False,
) -> "Source":
    """The source of what `evaluate` takes for its `data`; the arguments are those of `evaluate`.

    `multi_label` says whether an image may have several labels or none.
    """
    from keras_resnet import input_pipeline
    from keras_resnet.input_pipeline.layout_finder import explain_listing, find_layout

    if isinstance(data, input_pipeline.Source):
        return data
    path = os.fspath(data)
    if split is None:
        with explain_listing(path):
            split = find_layout(path, multi_label).evaluation_split().name
    return input_pipeline.open_source(
        "image_folder",
        path=path,
        split=split,
        multi_label=multi_label,
        on_error=on_error,
        max_broken_share=max_broken_share,
    )


def _predictor(
    model: Any, class_names: Sequence[str] | None, tta: str | None = None
) -> "Predictor":
    from keras_resnet.export.loading import load_predictor
    from keras_resnet.export.predictor import Predictor

    if isinstance(model, Predictor):
        if tta not in (None, model.tta):
            raise UserError(f"tta={tta!r}: the predictor was made with tta={model.tta!r}")
        return model
    names = None if class_names is None else list(class_names)
    everything = 2**31 - 1  # classes: as many as there are
    if isinstance(model, (str, os.PathLike)):
        return load_predictor(model, everything, names, tta=tta)
    return Predictor.of_model(model, everything, names, tta=tta)


def _absent(lacking: Sequence[str]) -> list[str]:
    """A line on the classes of the data without images in this split."""
    if not lacking:
        return []
    more = f" and {len(lacking) - 10} more" if len(lacking) > 10 else ""
    return [f"no images here of: {', '.join(lacking[:10])}{more}"]


def _classify(
    predictor: "Predictor", source: "Source", batch_size: int, progress: Callable[[int], Any]
) -> _Counted:
    import tensorflow as tf

    from keras_resnet.input_pipeline.skipping import OK, skip_corrupt
    from keras_resnet.training.broken_images import explain_broken_images

    def load(ids):
        encoded, labels = source.fetch(ids)
        return {"id": ids, "encoded": encoded, "label": labels}

    source.prepare()
    ids = source.evaluation_order(shard_index=0, num_shards=1).batch(batch_size)
    batches = ids.map(
        skip_corrupt(load, source), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    files: list[str] = []
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    with explain_broken_images(source):
        for batch in batches.prefetch(2).as_numpy_iterator():
            fine = batch.pop(OK, np.ones(len(batch["label"]), bool))
            if not fine.any():
                continue
            rows = {key: values[fine] for key, values in batch.items()}
            found = predictor.classify(list(rows["encoded"]))
            names = [source.example_name(example_id) for example_id in rows["id"]]
            for place, problem in found.problems.items():
                _pass_over(source, names[place], problem)
            good = [place for place in range(len(names)) if place not in found.problems]
            files += [names[place] for place in good]
            parts.append((rows["label"][good], found.class_ids[good], found.probabilities[good]))
            progress(len(fine))
    if not files:
        raise UserError(f"{source.description}: none of them can be read")
    return _Counted(tuple(files), *map(np.concatenate, zip(*parts, strict=True)))


def _pass_over(source: "Source", name: str, problem: str) -> None:
    """Notes an image that cannot be decoded; raises DataError unless the source skips such."""
    from keras_resnet.input_pipeline import DataError

    if source.skipped is None:
        raise DataError(f"{name} {problem}")
    source.skipped.add(name, f"{name} {problem}")
