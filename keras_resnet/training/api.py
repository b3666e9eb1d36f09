"""The commands `train`, `evaluate`, `predict`, `find-lr` and `compare` as functions.

What loads TensorFlow is imported inside of them, after a check that it is there.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from ml_collections import ConfigDict

from keras_resnet.backend import require_engine, require_tensorflow
from keras_resnet.config import check, merge
from keras_resnet.config import load_config as read_config
from keras_resnet.training.callbacks import Callback
from keras_resnet.training.workdir import WorkDir

if TYPE_CHECKING:
    from keras_resnet.training.comparison import Comparison
    from keras_resnet.training.learning_rate_finder import LearningRateCurve
    from keras_resnet.training.planning.plan import Plan


def load_config(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Returns a checked config.

    Args:
        name_or_path: a bundled config, such as "digits", or a Python file with `get_config()`.
        overrides: values by dotted key, as in {"optimizer.learning_rate": 0.05}.

    Raises:
        UsageError: there is no such config or key, or a value cannot be used.
    """
    config = read_config(name_or_path)
    return check(merge(config, overrides or {}, where="overrides"))


def plan(
    data: str | os.PathLike,
    *,
    weights: str = "",
    split: float = 0.2,
    minutes: float = 60.0,
    overrides: Mapping[str, Any] | None = None,
) -> "Plan":
    """Chooses how to train on labelled images, for these images and this machine.

        plan = training.plan("photos", weights="hf://timm/resnet50.a1_in1k")
        print(*plan.lines, *plan.warnings, sep="\n")
        training.train(plan.config, "runs/photos")

    Without weights it trains from random ones. With weights the classifier trains alone first, then
    all layers, with smaller rates below (Howard and Ruder 2018). What is trained on, what the best
    checkpoint is chosen by, and what is reported at the end are three sets of images.

    Args:
        data: a folder of class folders, alone or below splits, or a table of paths and labels
            (`input_pipeline.layout_finder`).
        weights: to start from, as in `model.weights`.
        split: share of the training images that is held out where the data has no split for it.
        minutes: about how long training may take; the lines say what it comes to.
        overrides: values by dotted key, which win over every choice.

    Returns:
        `config`, `lines` (what was chosen, why, how to change it) and `warnings`.

    Raises:
        UserError: the weights or a value cannot be used.
        input_pipeline.DataError: the images cannot be used, as those of one class only.
    """
    require_engine((overrides or {}).get("engine", "auto"))
    from keras_resnet.training.planning.plan import plan_run

    return plan_run(data, weights=weights, split=split, minutes=minutes, overrides=overrides)


def train(
    config: ConfigDict, workdir: str | os.PathLike, callbacks: Iterable[Callback] = ()
) -> dict[str, float]:
    """Trains in `workdir`, from its newest checkpoint if there is one.

    Ctrl-C, SIGTERM and SIGHUP save and raise `keras_resnet.errors.Interrupted`; calling it again
    resumes. Output that cannot be written does not end it; train.log has every line.

    Args:
        config: of `load_config`.
        workdir: a folder of this machine, or gs://BUCKET/FOLDER.
        callbacks: objects that follow the run, as `Callback` says, besides those that
            `training.callbacks` of the config names.

    Returns:
        The content of result.json: top1, top5 (of several labels an image map, f1 and macro_f1),
        loss and examples of model.keras, the last step of the run, model_step, from which
        model.keras is, best_step, train_images_per_second (None if a damaged metrics.jsonl cannot
        tell), and with data.on_error=skip skipped_train_images and skipped_eval_images: the images
        that could not be read on this host since the run was started or resumed.

    Raises:
        UserError: the config, the work directory, the devices or a checkpoint cannot be used, or
            another host of a multi_worker run went away.
        input_pipeline.DataError: the data set cannot be used.
    """
    require_engine(config.engine)
    from keras_resnet.training import run

    return run.train(check(config), workdir, callbacks=callbacks)


def find_learning_rate(config: ConfigDict, **options: Any) -> "LearningRateCurve":
    """Trains with a rising learning rate and suggests one; writes nothing.

    Args:
        config: of `load_config`.
        **options: `start`, `end` and `steps` of
            `keras_resnet.training.learning_rate_finder.find_learning_rate`.

    Returns:
        The curve: `suggestion` for `optimizer.learning_rate`, `rates`, `losses`, `smoothed`, and
        `draw(path)`.

    Raises:
        UserError, input_pipeline.DataError: as `train`.
    """
    require_engine(config.engine)
    from keras_resnet.training import learning_rate_finder

    return learning_rate_finder.find_learning_rate(check(config), **options)


def evaluate(
    workdir: str | os.PathLike,
    checkpoint: Literal["newest", "best"] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Evaluates the "newest" or "best" checkpoint; returns top1, top5, loss, examples and step.

    Of several labels an image it returns map, f1 and macro_f1 in place of top1 and top5, and where
    the run has fitted thresholds both F1 at those, too.

    Args:
        workdir: of a run.
        checkpoint: which one; None: what the run's `checkpoint.model` says.
        overrides: for what has moved since, such as {"data.path": ...}.

    Raises:
        UserError, input_pipeline.DataError: as `train`.
    """
    folder = WorkDir(workdir)
    config = merge(folder.read_config_for_one(), overrides or {}, where="overrides")
    check(config)
    require_engine("auto")
    from keras_resnet.training import evaluation

    return evaluation.evaluate(config, folder, checkpoint)


def predict(
    workdir: str | os.PathLike,
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    top: int = 5,
    checkpoint: Literal["newest", "best"] | None = None,
    *,
    calibrated: bool = False,
    unknown: str | float | None = None,
    tta: str | None = None,
) -> Iterator[tuple[str, list[dict[str, Any]] | str]]:
    """Yields (path, answer) for each image with the network of a run.

    That is model.keras if the run is finished, else its newest checkpoint, or the best where
    `checkpoint.model` says so. It is the predictor of `keras_resnet.export`, which takes exports as
    well.

    Args:
        workdir: of a run.
        paths: one path or several: image files, and folders of which every image file is taken.
        top: number of classes.
        checkpoint: "newest" or "best", to take that one.
        calibrated, unknown, tta: see `keras_resnet.export.load_predictor`.

    Yields:
        The path and a list of {"class": name, "class_id": index, "probability": 0..1}, the most
        probable first, or a string that says why the file cannot be read; with `unknown` each also
        has "unknown".

    Raises:
        UserError: there is no trained network, or a path does not exist; or the run has no
            calibration, and it is asked for.
    """
    folder = WorkDir(workdir)
    require_tensorflow()
    from keras_resnet.export.predictor import Predictor
    from keras_resnet.training.evaluation import load_model_of_workdir

    model = load_model_of_workdir(folder, checkpoint)
    predictor = Predictor.of_model(model, top, calibrated=calibrated, unknown=unknown, tta=tta)
    return predictor.predict(paths)


def compare(*runs: str | os.PathLike) -> "Comparison":
    """Puts runs side by side; those that differ in the seed alone are one group.

        comparison = training.compare("runs/plain20-*", "runs/resnet20-*")
        print(comparison.table())
        comparison.draw("curves.png", panels="model.residual")

    Nothing is loaded but the small files of the runs: neither TensorFlow nor Keras.

    Args:
        *runs: work directories, finished or not; folders that hold some; patterns of those.

    Returns:
        `groups` with mean and deviation of every figure and curve, `differences` of the configs,
        `notes` on what does not compare, and `table()`, `to_csv()`, `to_dict()`, `draw(path)`.

    Raises:
        UserError: a folder does not exist, or there is no run in any of them.
    """
    from keras_resnet.training import comparison

    return comparison.compare(runs)
