"""The report of a run: what its folder holds, and what its network makes of its images."""

import dataclasses
import importlib.metadata
import os
import platform
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from ml_collections import ConfigDict

from keras_resnet.backend import require_tensorflow
from keras_resnet.config import check, merge
from keras_resnet.explain.predictions import Predictions, predict_source
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.installation import VERSION
from keras_resnet.models.costs import Profile, profile
from keras_resnet.reports.contents import Report
from keras_resnet.storage import read_json
from keras_resnet.training import metrics
from keras_resnet.training.evaluation import Evaluation, Which
from keras_resnet.training.say import silence
from keras_resnet.training.workdir import WorkDir

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source

_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "numpy")


def report(
    workdir: str | os.PathLike,
    *,
    checkpoint: Which | None = None,
    overrides: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = silence,
    progress: Callable[[int], Any] = lambda count: None,
) -> Report:
    """Gathers what there is to say of a run; evaluates its network once more.

        found = keras_resnet.report("runs/mine")
        found.classes, found.mistakes, found.findings
        keras_resnet.reports.write(found, "report.html")

    It is evaluated on `data.test_split`, or `data.eval_split` without one, as at the end of the
    run.

    Args:
        workdir: of the run. Of one that is not finished the newest checkpoint is taken.
        checkpoint: "newest" or "best"; None: what the run's `checkpoint.model` says.
        overrides: for what has moved since, such as {"data.path": ...}.
        say: told which checkpoint is taken, where the run is not finished.
        progress: told the number of images of each batch that is evaluated.

    Raises:
        UserError: there is no run, or no trained network in it.
        input_pipeline.DataError: its images are not where its config says.
    """
    folder = WorkDir(workdir)
    config = check(merge(folder.read_config(), overrides or {}, where="overrides"))
    require_tensorflow()
    from keras_resnet.training.data import check_classes, open_source
    from keras_resnet.training.evaluation import load_model_of_workdir

    folder.read_dataset()
    split = config.data.test_split or config.data.eval_split
    try:
        source = open_source(config, split)
        training: Source | None = open_source(config, config.data.train_split)
    except DataError as error:
        raise DataError(
            f"{error} If the images have moved, --config.data.path=FOLDER says where they are."
        ) from error
    model = load_model_of_workdir(folder, checkpoint, say)
    check_classes(source, list(model.class_names))
    predictions = None
    if not source.is_synthetic:
        predictions = predict_source(model, source, progress)
    return gather(folder, config, model, source, training, predictions=predictions)


def gather(
    folder: WorkDir,
    config: ConfigDict,
    model: keras.Model,
    source: "Source",
    training: "Source | None",
    *,
    predictions: Predictions | None = None,
    evaluation: Evaluation | None = None,
) -> Report:
    """The report of what a network has made of a split.

    Args:
        folder: of the run.
        config: of the run.
        model: its network, which gives probabilities.
        source: the split that was evaluated.
        training: the split that was trained on.
        predictions: of the images of `source`; names may be missing. None without any to show.
        evaluation: what the run's own evaluation has counted, if it has.
    """
    result = folder.read_result() or {}
    made = Report(
        name=os.path.basename(os.path.abspath(folder.path)) or str(folder.path),
        config=config,
        history=tuple(folder.read_history()),
        dataset=folder.read_dataset(),
        result=result,
        rows=tuple(folder.read_metrics()),
        step=result.get("model_step", result.get("step", -1)),
        split=config.data.test_split or config.data.eval_split,
        source=source.description,
        class_names=tuple(model.class_names),
        matrix=_matrix(predictions, evaluation, len(model.class_names)),
        predictions=None,
        mistakes=(),
        cells={},
        findings=None,
        calibration=read_json(folder.path / "calibration.json"),
        costs=_costs(model),
        versions=_versions(),
        notes=(),
    )
    if predictions is None or predictions.labels is None or not len(predictions.labels):
        return dataclasses.replace(made, notes=_notes(source, None))
    from keras_resnet.reports.findings import SUSPECTS, find_suspects, findings_of
    from keras_resnet.reports.images import show

    errors = find_suspects(predictions)
    doubted = [] if errors is None else errors.places[:SUSPECTS].tolist()
    shown = show(model, source, predictions, doubted)
    return dataclasses.replace(
        made,
        predictions=shown.predictions,
        mistakes=shown.mistakes,
        cells=shown.cells,
        findings=findings_of(shown.predictions, errors, shown.others, source, training),
        notes=_notes(source, shown.predictions),
    )


def _matrix(
    predictions: Predictions | None, evaluation: Evaluation | None, classes: int
) -> np.ndarray | None:
    if evaluation is not None:
        return evaluation.confusion_matrix()
    if predictions is None or predictions.labels is None:
        return None
    pairs = np.stack([predictions.labels, predictions.classes], axis=1)
    return metrics.confusion_matrix(pairs, classes)


def _costs(model: keras.Model) -> Profile | None:
    try:
        return profile(model)
    except ValueError:  # a size that is open
        return None


def _versions() -> dict[str, str]:
    found = {"keras-resnet-tpu": VERSION, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _notes(source: "Source", predictions: Predictions | None) -> tuple[str, ...]:
    notes = []
    if source.is_synthetic:
        notes.append("The images are noise, of which there is nothing to show.")
    elif predictions is None:
        notes.append("The images were not evaluated one by one, so none are shown.")
    elif predictions.problems:
        notes.append(f"{len(predictions.problems):,} images cannot be read and are not counted.")
    return tuple(notes)
