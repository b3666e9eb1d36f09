"""What a network says of the images of a report: from an evaluation, or asked once more."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_resnet.calibration import softmax
from keras_resnet.explain.label_set_predictions import LabelSetPredictions
from keras_resnet.explain.predictions import Predictions, predict_source
from keras_resnet.flips import answer_with_flips, with_flips
from keras_resnet.training.label_sets import THRESHOLD

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source
    from keras_resnet.training.evaluation import Evaluation
    from keras_resnet.training.label_sets import LabelSetEvaluation

# Probabilities that are held of all images of a split, in numbers: 128 MB.
MOST_NUMBERS = 2**25
# Of a larger split so many images, evenly spread, are asked about.
PART = 2000
_BATCH = 32


def predictions_of(
    model: keras.Model,
    source: "Source",
    evaluation: "Evaluation | None",
    progress: Callable[[int], Any] = lambda count: None,
) -> Predictions:
    """The probabilities of all classes for the images of a split, or of a part of a large one.

    Args:
        model: a classifier with its `preprocessing`.
        source: the split.
        evaluation: of the same images by the same weights, in their order: by one host. None asks
            the model.
        progress: told the number of images of each batch that the model was asked about.

    Returns:
        Names may be missing, where they stand for all images in their order; `problems` has those
        of the images that are left out of it.
    """
    names = tuple(model.class_names)
    if evaluation is not None and len(evaluation.logits) == len(evaluation.labels_and_predictions):
        return Predictions(
            source=with_flips(source.description, model.tta),
            class_names=names,
            paths=(),
            labels=evaluation.logit_labels,
            probabilities=softmax(evaluation.logits),
            problems=source.skipped.by_name if source.skipped else {},
        )
    all_fit = source.num_examples * len(names) <= MOST_NUMBERS
    if all_fit and keras.backend.backend() == "tensorflow":  # which the predictor runs on
        found = predict_source(model, source, progress)
        assert isinstance(found, Predictions)  # as the images have one label
        return found
    return _predict_part(model, source, source.num_examples if all_fit else PART, progress)


def label_sets_of(
    model: keras.Model,
    source: "Source",
    evaluation: "LabelSetEvaluation",
    several_hosts: bool,
    progress: Callable[[int], Any] = lambda count: None,
) -> LabelSetPredictions | None:
    """The same where images have several labels; None where the model cannot be asked again.

    It cannot where the split is too large, and where Keras does not run on TensorFlow.

    Args:
        model, source, progress: as above.
        evaluation: of the same images by the same weights.
        several_hosts: whether they have evaluated together, so that the order is not the data's:
            then the model is asked again.
    """
    problems = source.skipped.by_name if source.skipped else {}
    ids = source.evaluation_order(shard_index=0, num_shards=1).as_numpy_iterator()
    paths = [name for name in map(source.example_name, ids) if name not in problems]
    if several_hosts or len(paths) != len(evaluation.labels):
        too_large = source.num_examples * len(model.class_names) > MOST_NUMBERS
        if too_large or keras.backend.backend() != "tensorflow":
            return None
        found = predict_source(model, source, progress)
        assert isinstance(found, LabelSetPredictions)  # as the images have several labels
        return found
    return LabelSetPredictions(
        source=with_flips(source.description, model.tta),
        class_names=tuple(model.class_names),
        numbers=tuple(range(len(model.class_names))),
        paths=tuple(paths),
        labels=evaluation.labels,
        probabilities=evaluation.probabilities,
        thresholds=tuple(model.thresholds or [THRESHOLD] * len(model.class_names)),
        problems=problems,
    )


def _predict_part(
    model: keras.Model, source: "Source", limit: int, progress: Callable[[int], Any]
) -> Predictions:
    from keras_resnet.explain.labelled import batches_of

    paths: list[str] = []
    labels: list[int] = []
    rows: list[np.ndarray] = []
    problems: dict[str, str] = {}
    for batch, of_batch in batches_of(source, model, _BATCH, limit):
        if batch.good:
            rows.append(_probabilities(model, batch.inputs))
        paths += batch.good
        labels += of_batch
        problems |= batch.problems
        progress(len(batch.names))
    return Predictions(
        source=with_flips(source.description, model.tta),
        class_names=tuple(model.class_names),
        paths=tuple(paths),
        labels=np.array(labels, "int32"),
        probabilities=np.concatenate(rows) if rows else np.zeros((0, len(model.class_names))),
        problems=problems,
    )


def _probabilities(model: keras.Model, images: np.ndarray) -> np.ndarray:
    def answer(images):
        return keras.ops.convert_to_numpy(model.predict_on_batch(images)).astype("float32")

    if model.tta == "none":
        return answer(images)
    tiny = np.finfo("float32").tiny
    logits = answer_with_flips(lambda x: np.log(np.maximum(answer(x), tiny)), images, model.tta)
    return softmax(keras.ops.convert_to_numpy(logits))
