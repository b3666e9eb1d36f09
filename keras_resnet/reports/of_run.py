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

from keras_resnet.backend import require_tensorflow_installed
from keras_resnet.config import check, merge
from keras_resnet.explain.gallery import MISTAKES
from keras_resnet.explain.label_set_gallery import explain_mistakes
from keras_resnet.explain.predictions import Predictions
from keras_resnet.flips import with_flips
from keras_resnet.installation import VERSION
from keras_resnet.models.costs import Profile, profile
from keras_resnet.reports.contents import Report
from keras_resnet.reports.predicting import label_sets_of, predictions_of
from keras_resnet.training import metrics
from keras_resnet.training.curves import find_best
from keras_resnet.training.label_sets import LabelSetEvaluation
from keras_resnet.training.say import silence
from keras_resnet.training.workdir import WorkDir, checkpoint_steps

if TYPE_CHECKING:
    from keras_resnet.input_pipeline import Source
    from keras_resnet.training.evaluation import AnyEvaluation, Which

_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "tensorflow-tpu", "numpy")


def report(
    workdir: str | os.PathLike,
    *,
    checkpoint: "Which | None" = None,
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
    config = check(merge(folder.read_config_for_one(), overrides or {}, where="overrides"))
    require_tensorflow_installed()
    from keras_resnet.training.data import check_classes, explain_moved, open_source
    from keras_resnet.training.evaluation import (
        evaluate_source,
        load_model_of_workdir,
        restore,
    )

    folder.read_dataset()
    split = config.data.test_split or config.data.eval_split
    with explain_moved():
        source = open_source(config, split)
        training = open_source(config, config.data.train_split)
    model = load_model_of_workdir(folder, checkpoint, say)
    check_classes(source, list(model.class_names))
    evaluation = None
    if config.data.multi_label:
        engine, _ = restore(config, folder, checkpoint)
        evaluation = evaluate_source(engine, source)
    found = gather(
        folder, config, model, source, training, evaluation=evaluation, progress=progress
    )
    return dataclasses.replace(found, step=_step(folder, config, checkpoint))


def gather(
    folder: WorkDir,
    config: ConfigDict,
    model: keras.Model,
    source: "Source",
    training: "Source | None",
    *,
    evaluation: "AnyEvaluation | None" = None,
    several_hosts: bool = False,
    progress: Callable[[int], Any] = lambda count: None,
) -> Report:
    """The report of what a network has made of a split.

    Args:
        folder: of the run.
        config: of the run.
        model: its network, which gives probabilities.
        source: the split that was evaluated.
        training: the split that was trained on.
        evaluation: of `source` by the run; None asks the model.
        several_hosts: whether they have evaluated together, so that the order is not the data's.
        progress: told the number of images of each batch that the model was asked about.
    """
    predictions = None
    if not source.is_synthetic and not isinstance(evaluation, LabelSetEvaluation):
        predictions = predictions_of(model, source, None if several_hosts else evaluation, progress)
    made = _without_images(folder, config, model, source, predictions, evaluation)
    if isinstance(evaluation, LabelSetEvaluation) and not source.is_synthetic:
        sets = label_sets_of(model, source, evaluation, several_hosts, progress)
        answers = None if sets is None else explain_mistakes(model, sets, source, MISTAKES)
        return dataclasses.replace(made, answers=answers)
    if predictions is None or predictions.labels is None or not len(predictions.labels):
        return made
    from keras_resnet.reports.findings import SUSPECTS, find_suspects, findings_of
    from keras_resnet.reports.images import show

    errors = find_suspects(predictions)
    doubted = [] if errors is None else errors.places[:SUSPECTS].tolist()
    shown = show(model, source, predictions, doubted)
    assert made.matrix is not None
    return dataclasses.replace(
        made,
        predictions=shown.predictions,
        mistakes=shown.mistakes,
        cells=shown.cells,
        findings=findings_of(shown.predictions, errors, shown.others, source, training),
        notes=_notes(source, shown.predictions, int(made.matrix.sum())),
    )


def _without_images(
    folder: WorkDir,
    config: ConfigDict,
    model: keras.Model,
    source: "Source",
    predictions: Predictions | None,
    evaluation: "AnyEvaluation | None",
) -> Report:
    """What needs no image to be read."""
    result = folder.read_result() or {}
    return Report(
        name=os.path.basename(os.path.abspath(folder.path)) or str(folder.path),
        config=config,
        history=tuple(folder.read_history()),
        dataset=folder.read_dataset(),
        result=result,
        rows=tuple(folder.read_metrics()),
        step=result.get("model_step", result.get("step", -1)),
        split=config.data.test_split or config.data.eval_split,
        source=with_flips(source.description, model.tta),
        class_names=tuple(model.class_names),
        matrix=_matrix(predictions, evaluation, len(model.class_names)),
        label_sets=evaluation if isinstance(evaluation, LabelSetEvaluation) else None,
        thresholds=None if model.thresholds is None else tuple(model.thresholds),
        predictions=None,
        mistakes=(),
        cells={},
        findings=None,
        calibration=folder.read_calibration(),
        costs=_costs(model),
        versions=_versions(),
        notes=_notes(source, None),
    )


def _matrix(
    predictions: Predictions | None, evaluation: "AnyEvaluation | None", classes: int
) -> np.ndarray | None:
    if isinstance(evaluation, LabelSetEvaluation):
        return None
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


def _step(folder: WorkDir, config: ConfigDict, checkpoint: "Which | None") -> int:
    """The step of what `load_model_of_workdir` takes."""
    result = folder.read_result()
    steps = checkpoint_steps(folder.checkpoints)
    best = find_best(folder.read_metrics())
    if result is not None and (not steps or result["step"] >= steps[-1]):
        if checkpoint is None:
            return result.get("model_step", result["step"])
        return result["best_step"] if checkpoint == "best" else result["step"]
    if (checkpoint or config.checkpoint.model) == "best" and best is not None:
        return best.step
    return steps[-1] if steps else -1


def _notes(source: "Source", predictions: Predictions | None, counted: int = 0) -> tuple[str, ...]:
    notes = []
    if source.is_synthetic:
        notes.append("The images are noise, of which there is nothing to show.")
    elif predictions is None:
        return ()
    else:
        if len(predictions.paths) + len(predictions.problems) < source.num_examples:
            which = "counted" if counted <= len(predictions.paths) else "shown"
            notes.append(
                f"Of the {source.num_examples:,} images {len(predictions.paths):,}, evenly spread, "
                f"were looked at one by one; only of those images are {which}."
            )
        if problems := len(predictions.problems):
            notes.append(f"{problems:,} of the images cannot be read and are not counted.")
    return tuple(notes)
