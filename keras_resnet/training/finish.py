"""The end of a run: the trained model, the pictures, the result."""

from collections.abc import Sequence
from typing import Any

from keras_resnet.errors import UserError
from keras_resnet.storage import find_damage_of_keras_file, replacing, write_text
from keras_resnet.training.evaluation import AnyEvaluation, evaluate_source, inference_model
from keras_resnet.training.label_sets import LabelSetEvaluation, figures
from keras_resnet.training.preparation import Run
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
    thresholds = _thresholds(run, evaluation)
    if before is not None:
        # Without data.test_split, which a run may take back, its figures are none any more.
        kept = {key: value for key, value in before.items() if not _is_of_test(key)}
        result = {**kept, **evaluation.means}
        used = {"eval": run.eval_source}
    else:
        result = {
            **(reporter.evaluation_at(model_step) or evaluation.means),
            "step": step,
            "model_step": model_step,
            "best_step": progress.best_step,
            "train_images_per_second": reporter.images_per_second(),
        }
        with replacing(outputs.model) as temporary:
            inference_model(run.engine, thresholds).save(temporary)
        reporter.draw_curves()
        used = {"train": run.train_source, "eval": run.eval_source}
    if run.test_source is not None:
        tested = evaluate_source(run.engine, run.test_source)
        assert tested is not None  # nothing asked it to stop
        data = run.config.data
        result |= {"eval_split": data.eval_split, "test_split": data.test_split}
        result |= {f"test_{name}": value for name, value in tested.means.items()}
        if thresholds is not None:
            result |= _at_thresholds(evaluation, thresholds)
            result |= {f"test_{k}": v for k, v in _at_thresholds(tested, thresholds).items()}
        evaluation = tested
        used["test"] = run.test_source
    for split, source in used.items():
        if source.skipped is not None:
            result[f"skipped_{split}_images"] = len(source.skipped)
    if isinstance(evaluation, LabelSetEvaluation):
        reporter.draw_classes(evaluation.per_class(thresholds))
    else:
        reporter.draw_confusion(evaluation.confusion_matrix())
    write_text(outputs.result, to_json(result))
    reporter.conclude(result)
    return result


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


def _at_thresholds(evaluation: AnyEvaluation, thresholds: Sequence[float]) -> dict[str, float]:
    assert isinstance(evaluation, LabelSetEvaluation)
    found = figures(evaluation.labels, evaluation.probabilities, thresholds)
    return {f"{name}_at_thresholds": found[name] for name in ("f1", "macro_f1")}


def _result_so_far(run: Run, step: int) -> dict[str, Any] | None:
    """Returns result.json if the run was finished before, with the model.keras it is to have."""
    outputs, progress = run.outputs, run.progress
    before = outputs.read_result() if run.reporter.start == step else None
    if before is None or before["step"] != step:
        return None
    wanted = progress.best_step if run.config.checkpoint.model == "best" else progress.step
    if before.get("model_step", step) != wanted:
        return None
    if damage := find_damage_of_keras_file(outputs.model):
        run.say(f"warning: {outputs.model} is not whole ({damage}); writing it again")
        return None
    return before


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
