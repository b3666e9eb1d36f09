"""The end of a run: the trained model, the pictures, the result."""

import shlex
from collections.abc import Sequence
from typing import Any

import keras

from keras_resnet import calibration
from keras_resnet.calibration import Calibration, CalibrationError
from keras_resnet.errors import UserError
from keras_resnet.flips import tta_note
from keras_resnet.storage import find_damage_of_keras_file, remove_folder, replacing, write_text
from keras_resnet.training.evaluation import (
    AnyEvaluation,
    Evaluation,
    evaluate_source,
    inference_model,
)
from keras_resnet.training.label_sets import LabelSetEvaluation
from keras_resnet.training.preparation import Run
from keras_resnet.training.reliability import describe_calibration
from keras_resnet.training.reporting import to_json


def finish(run: Run) -> dict[str, float]:
    """Writes the trained model, the pictures and the result of a run that is through."""
    reporter, outputs, progress = run.reporter, run.outputs, run.progress
    # It is past the end where `epochs` or the data set has become smaller since.
    step = progress.step if run.stopped_early else max(progress.step, run.timeline.total_steps)
    run.check_lock()
    if run.stopped_early:
        run.say(
            f"Stopped early, after step {step:,} of {run.timeline.total_steps:,}: the last "
            f"{progress.waited} evaluations were not better than "
            f"{'mAP' if run.config.data.multi_label else 'top1'} {progress.best_top1:.4f} "
            f"of step {progress.best_step:,}. The same command with a larger "
            "--config.early_stopping.patience goes on."
        )
    before = _result_so_far(run, step)
    if before is not None:
        run.say(f"This run is finished ({step} steps); evaluating it again.")
    model_step = _take_weights(run)
    evaluation = _evaluation(run, model_step)
    fitted = _calibrate(run, evaluation)
    thresholds = _thresholds(run, evaluation)
    if before is not None:
        # Without data.test_split, which a run may take back, its figures are none any more.
        kept = {key: value for key, value in before.items() if not _is_of_test(key)}
        result = {**kept, **evaluation.means}
        used = {"eval": run.eval_source}
    else:
        recorded = None if _flips_changed(run) else reporter.evaluation_at(model_step)
        result = {
            **(recorded or evaluation.means),
            "step": step,
            "model_step": model_step,
            "best_step": progress.best_step,
            "train_images_per_second": reporter.images_per_second(),
        }
        used = {"train": run.train_source, "eval": run.eval_source}
    # On every host: their replicas may share the weights.
    model = inference_model(run.engine, thresholds)
    model.calibration = fitted
    if before is None or (fitted is not None and outputs.read_calibration() is None):
        # The second: an older version has finished the run, and it was started again.
        with replacing(outputs.model) as temporary:
            model.save(temporary)
    if before is None:
        reporter.draw_curves()
    tested = None
    if run.test_source is not None:
        tested = evaluate_source(run.engine, run.test_source)
        assert tested is not None  # nothing asked it to stop
        result |= _test_figures(run, evaluation, tested, thresholds)
        used["test"] = run.test_source
    result |= tta_note(run.config.evaluation.tta)
    for split, source in used.items():
        if source.skipped is not None:
            result[f"skipped_{split}_images"] = len(source.skipped)
    reported = tested or evaluation
    if isinstance(reported, LabelSetEvaluation):
        reporter.draw_classes(reported.per_class(thresholds))
    else:
        reporter.draw_confusion(reported.confusion_matrix())
    found = _write_calibration(run, fitted, evaluation, tested)
    write_text(outputs.result, to_json(result))
    wrote_report = _write_report(run, model, reported)
    reporter.conclude(result, found, wrote_report)
    remove_folder(outputs.decoded)
    return result


def _test_figures(
    run: Run,
    evaluation: AnyEvaluation,
    tested: AnyEvaluation,
    thresholds: Sequence[float] | None,
) -> dict[str, Any]:
    """Returns what result.json says of the images by which nothing was chosen."""
    data = run.config.data
    found: dict[str, Any] = {"eval_split": data.eval_split, "test_split": data.test_split}
    found |= {f"test_{name}": value for name, value in tested.means.items()}
    if thresholds is not None:
        assert isinstance(evaluation, LabelSetEvaluation)
        assert isinstance(tested, LabelSetEvaluation)
        found |= evaluation.at_thresholds(thresholds)
        found |= {f"test_{k}": v for k, v in tested.at_thresholds(thresholds).items()}
    return found


def _calibrate(run: Run, evaluation: AnyEvaluation) -> Calibration | None:
    """Returns the calibration of the evaluated weights; where there is none it says why.

    Of several labels an image there is none: each probability is of a yes of its own.
    """
    if isinstance(evaluation, LabelSetEvaluation):
        return None
    split = run.config.data.eval_split
    try:
        return calibration.fit(evaluation.logits, evaluation.logit_labels, split)
    except CalibrationError as error:
        run.say(f"warning: no calibration of the probabilities: {error}")
        return None


def _write_calibration(
    run: Run, fitted: Calibration | None, evaluation: AnyEvaluation, tested: AnyEvaluation | None
) -> dict[str, Any] | None:
    """Writes calibration.json, and returns what is in it; without a calibration it removes it."""
    path = run.outputs.calibration
    if fitted is None:
        path.unlink(missing_ok=True)
        return None
    assert isinstance(evaluation, Evaluation)
    assert not isinstance(tested, LabelSetEvaluation)
    found = describe_calibration(fitted, evaluation, tested, run.config.data.test_split)
    write_text(path, to_json(found))
    return found


def _write_report(run: Run, model: keras.Model, evaluation: AnyEvaluation) -> bool:
    """Writes report.html, if that is asked for and can be done; says whether it was.

    Last of all files: the run is finished, whatever comes of it.
    """
    if not run.config.report or not run.engine.is_chief:
        return False
    from keras_resnet import reports

    try:
        found = reports.gather(
            run.outputs,
            run.config,
            model,
            run.test_source or run.eval_source,
            run.train_source,
            evaluation=evaluation,
            several_hosts=run.engine.several_hosts,
        )
        reports.write(found, run.outputs.report)
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        run.say(
            f"warning: no report.html ({type(error).__name__}: {reason[0]}); all else of the run "
            f"is written. To try again: "
            f"{shlex.join(['keras-resnet', 'report', str(run.outputs.path)])}"
        )
        return False
    return True


def _is_of_test(key: str) -> bool:
    """Whether an entry of result.json is there only with data.test_split."""
    return key.startswith("test_") or key.endswith("_at_thresholds")


def _thresholds(run: Run, evaluation: AnyEvaluation) -> list[float] | None:
    """Returns the thresholds of several labels an image, chosen on images that are not reported.

    None where it is one label an image, or no other images are reported than those: a half is then
    the threshold of every class.
    """
    if run.test_source is None or not isinstance(evaluation, LabelSetEvaluation):
        return None
    return evaluation.best_thresholds()


def _result_so_far(run: Run, step: int) -> dict[str, Any] | None:
    """Returns result.json if the run was finished before, with the model.keras it is to have."""
    outputs, progress = run.outputs, run.progress
    before = outputs.read_result() if run.reporter.start == step else None
    if before is None or before["step"] != step:
        return None
    wanted = progress.best_step if run.config.checkpoint.model == "best" else progress.step
    if before.get("model_step", step) != wanted or _flips_changed(run):
        return None
    if damage := find_damage_of_keras_file(outputs.model):
        run.say(f"warning: {outputs.model} is not whole ({damage}); writing it again")
        return None
    return before


def _flips_changed(run: Run) -> bool:
    """Whether the run was finished with other test-time flips, which model.keras says as well."""
    before = run.outputs.read_result() or {}
    return bool(before) and before.get("tta", "none") != run.config.evaluation.tta


def _take_weights(run: Run) -> int:
    """Gives the engine the weights that model.keras is to have; returns their step."""
    progress = run.progress
    if run.config.checkpoint.model == "newest" or progress.best_step in (None, progress.step):
        return progress.step
    try:
        best = run.checkpoints.restore_best()
    except UserError as error:
        run.say(f"warning: {error}; model.keras gets the weights of step {progress.step:,}")
        best = None
    return progress.step if best is None else best.step


def _evaluation(run: Run, step: int) -> AnyEvaluation:
    """Returns the evaluation of what the engine has, the weights of `step`."""
    # None: the run was finished, or resumed between the last step and here.
    if run.evaluation is None or step != run.progress.step:
        run.evaluation = evaluate_source(run.engine, run.eval_source, run.eval_steps_per_call)
    assert run.evaluation is not None  # nothing asked it to stop
    return run.evaluation
