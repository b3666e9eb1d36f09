"""A training run from start to end: read `train` downwards.

The parts that follow it are in the order in which it calls them: devices, data, model, restore,
loop, evaluate, save, finish. What computes is behind `Engine` (engine.py).
"""

import contextlib
import dataclasses
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.errors import Interrupted, UserError
from keras_resnet.storage import find_damage_of_keras_file, replacing, write_text
from keras_resnet.training.data import open_sources, remember_dataset
from keras_resnet.training.engine import Checkpoints, Engine, NonFiniteWeights, find_engine
from keras_resnet.training.evaluation import (
    Evaluation,
    evaluate_source,
    inference_model,
    make_steps_per_call,
)
from keras_resnet.training.finetuning import read_pretrained, take_over_preprocessing
from keras_resnet.training.interruption import Interruption, exit_code
from keras_resnet.training.introduction import check_same_data
from keras_resnet.training.metrics import Window
from keras_resnet.training.progress import Progress, Timeline
from keras_resnet.training.reporting import Reporter, to_json
from keras_resnet.training.resumption import describe_resumption
from keras_resnet.training.say import Say
from keras_resnet.training.schedules import learning_rate_at, make_schedule
from keras_resnet.training.steps_per_call import StepsPerCall
from keras_resnet.training.workdir import WorkDir

# In a row, without a new checkpoint in between. If so many do not get past a place, its batch is
# not what is wrong.
MAX_ROLLBACKS = 3


@dataclasses.dataclass
class Run:
    """What a run consists of, and how far it is."""

    config: ConfigDict
    outputs: WorkDir  # the work directory, or on other hosts than the first a copy nobody reads
    engine: Engine
    say: Say
    train_source: Any
    eval_source: Any
    timeline: Timeline
    schedule: Any
    checkpoints: Checkpoints
    progress: Progress
    reporter: Reporter
    interruption: Interruption
    check_lock: Callable[[], None]  # raises if another process has taken over
    train_steps_per_call: StepsPerCall
    eval_steps_per_call: StepsPerCall
    saved_step: int
    rollbacks_in_a_row: int = 0
    stopping: bool = False
    evaluation: Evaluation | None = None  # the last one


def train(
    config: ConfigDict, workdir: str | os.PathLike, say: Say | None = None
) -> dict[str, float]:
    """Trains the network of `config` in `workdir`; `keras_resnet.training.train` says the rest.

    Args:
        config: as there.
        workdir: as there.
        say: how the run speaks; it can be asked afterwards whether that was possible.
    """
    with contextlib.ExitStack() as closing:
        run = _prepare(config, workdir, closing, say or Say())
        engine, total = run.engine, run.timeline.total_steps
        with run.reporter, run.interruption, contextlib.ExitStack() as recording:
            if run.timeline.profile_at:
                recording.callback(engine.stop_profile)
            batches = None
            while run.progress.step < total or _evaluation_is_missing(run):
                try:
                    if batches is None:  # at the start, and after a roll-back
                        _make_up_for_evaluation(run)
                        if run.progress.step >= total:
                            break
                        start, batches = run.progress.step, _open_batches(run)
                        window = Window(start)
                    stop = run.timeline.next_stop(window.step, start)
                    count = run.train_steps_per_call.choose(stop - window.step)
                    begin = time.perf_counter()
                    sums = engine.train(batches, count)
                    window.add(sums, seconds := time.perf_counter() - begin)
                    run.train_steps_per_call.took(count, seconds)
                    if (failed := window.non_finite_step()) is not None:
                        raise _NonFinite(failed, "the loss is not finite (NaN or infinity)")
                    if window.step == stop or _asked_to_stop(run):
                        run.progress.step = window.step
                        _report(run, window)
                        _evaluate_and_save(run)
                        _stop_if_asked_to(run)
                        window = Window(window.step)
                except _NonFinite as failure:
                    _roll_back(run, failure)
                    batches = None
        result = _finish(run)
        engine.wait_for_hosts()
        return result


# ---- Devices, data, model, restore ---------------------------------------------------------------


def _prepare(
    config: ConfigDict, path: str | os.PathLike, closing: contextlib.ExitStack, say: Say
) -> Run:
    """Returns a run that is ready to train; what has to be left at its end goes on `closing`."""
    # Devices, after all that can be refused without them.
    engine_type = find_engine()
    engine_type.check(config, path)
    workdir = WorkDir(path)
    config = take_over_preprocessing(workdir.keep_older_defaults(config), workdir)
    workdir.check(config)
    engine = engine_type(config)
    closing.enter_context(engine.explain_lost_hosts())
    say.enabled = say.enabled and engine.is_chief

    # Data
    train_source, eval_source = open_sources(config)
    check_same_data(engine, train_source, eval_source)
    timeline = Timeline(config, train_source.num_examples)

    # Model
    schedule = make_schedule(config, timeline)
    begun = workdir.is_begun()
    weights = None if begun or not config.model.weights else read_pretrained(config)
    engine.build(train_source.class_names, schedule, weights, say)
    checkpoints = engine.checkpoints(workdir.checkpoints, say)

    # Restore. Only now: a start that failed on a wrong path must not bind the folder to its config.
    outputs = closing.enter_context(_outputs(workdir, engine.is_chief))
    check_lock = closing.enter_context(outputs.locked(say))
    say.keep_log(outputs.log)
    outputs.remove_leftovers()
    changed = outputs.claim(config)
    changed |= remember_dataset(outputs, train_source, eval_source)
    progress = checkpoints.restore_newest() or Progress()
    for line in describe_resumption(config, changed, timeline, progress.step):
        say(line)
    _check_same_step(engine, progress.step)
    if config.on_nonfinite == "rollback" and not checkpoints.steps():
        checkpoints.save(progress)  # there must be something to go back to

    reporter = Reporter(outputs, config, engine.model, timeline, progress.step, say)
    reporter.introduce(engine.description, train_source, eval_source)
    return Run(
        config=config,
        outputs=outputs,
        engine=engine,
        say=say,
        train_source=train_source,
        eval_source=eval_source,
        timeline=timeline,
        schedule=schedule,
        checkpoints=checkpoints,
        progress=progress,
        reporter=reporter,
        interruption=Interruption(say),
        check_lock=check_lock,
        train_steps_per_call=make_steps_per_call(engine),
        eval_steps_per_call=make_steps_per_call(engine),
        saved_step=progress.step,
    )


@contextlib.contextmanager
def _outputs(workdir: WorkDir, is_chief: bool) -> Iterator[WorkDir]:
    """Yields where this host writes: the work directory, or a copy that nobody will read."""
    if is_chief:
        yield workdir
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = WorkDir(folder)
        if workdir.metrics.exists():
            copy.metrics.write_text(workdir.metrics.read_text())
        yield copy


def _check_same_step(engine: Engine, step: int) -> None:
    """Raises UserError unless all hosts begin at the same step."""
    if engine.any_host(engine.mean(float(step)) != step):
        raise UserError(
            f"this host begins at step {step:,}, another one elsewhere: --workdir must be a folder "
            "that all hosts share"
        )


# ---- Loop ----------------------------------------------------------------------------------------


class _NonFinite(Exception):
    """Training step `step` (from 0) gave a loss, or left weights, that are not finite.

    `what` says which, as a clause.
    """

    def __init__(self, step: int, what: str):
        super().__init__(what)
        self.step, self.what = step, what


def _evaluation_is_missing(run: Run) -> bool:
    """The run may have been interrupted, or rolled back, before it could evaluate."""
    step = run.progress.step
    return step in run.timeline.evaluate_at and not run.reporter.has_evaluation(step)


def _make_up_for_evaluation(run: Run) -> None:
    """Evaluates where that is missing, before training goes on from there."""
    _stop_if_asked_to(run)
    if _evaluation_is_missing(run):
        _evaluate(run)
        _save(run)
        _stop_if_asked_to(run)
    _profile(run)


def _open_batches(run: Run) -> Any:
    """Returns the training batches from where the run stands to its end."""
    first, end = run.progress.step, run.timeline.total_steps
    skipped = run.progress.skipped
    return run.engine.train_batches(run.train_source, first + skipped, end + skipped)


def _report(run: Run, window: Window) -> None:
    """Records the steps of the window."""
    rate = learning_rate_at(run.schedule, window.step - 1)
    run.reporter.trained(window.step, window.means(), rate)
    _profile(run)


def _asked_to_stop(run: Run) -> bool:
    """Returns whether a signal came on any host; all hosts ask at the same places."""
    run.stopping = run.stopping or run.engine.any_host(run.interruption())
    return run.stopping


def _stop_if_asked_to(run: Run) -> None:
    if not _asked_to_stop(run):
        return
    step = run.progress.step
    if step != run.saved_step:
        _save(run)
    raise Interrupted(
        f"stopped by a signal after step {step:,} of {run.timeline.total_steps:,}, which is "
        "saved; the same command resumes",
        code=exit_code(run.interruption.signal or signal.SIGTERM),  # another host's
    )


def _roll_back(run: Run, failure: _NonFinite) -> None:
    """Takes the state of the newest checkpoint and the batch after the one that failed."""
    rate = learning_rate_at(run.schedule, failure.step)
    where = f"step {failure.step:,}, at learning rate {rate:.6g}"
    run.rollbacks_in_a_row += 1
    allowed = run.config.on_nonfinite == "rollback"
    restored = None
    if allowed and run.rollbacks_in_a_row <= MAX_ROLLBACKS:
        restored = run.checkpoints.restore_newest()
    if restored is None:
        tried = f" after {MAX_ROLLBACKS} roll-backs in a row" if allowed else ""
        steps = run.checkpoints.steps()
        newest = f"the newest checkpoint is of step {steps[-1]:,}" if steps else "no checkpoint yet"
        option = (
            ""
            if allowed
            else "The same command with --config.on_nonfinite=rollback goes back there and skips "
            "the batch. "
        )
        raise UserError(
            f"{failure.what} in {where}{tried}; {newest}. {option}A smaller "
            "config.optimizer.learning_rate or a longer config.schedule.warmup_epochs takes "
            "another --workdir"
        ) from failure
    failed_batch = failure.step + run.progress.skipped
    restored.rollbacks = run.progress.rollbacks + 1
    restored.skipped = failed_batch + 1 - restored.step
    run.progress = restored
    run.reporter.rolled_back(restored.step, failure.step, rate)
    run.say(
        f"warning: {failure.what} in {where}: back to step {restored.step:,}, "
        f"going on with batch {failed_batch + 1:,}"
    )


def _profile(run: Run) -> None:
    """Starts or stops the profiler where `tensorboard.profile_steps` says."""
    if run.progress.step in run.timeline.profile_at[:1]:
        run.engine.start_profile(run.outputs.tensorboard)
    elif run.progress.step in run.timeline.profile_at[1:]:
        run.engine.stop_profile()


# ---- Evaluate and save ---------------------------------------------------------------------------


def _evaluate_and_save(run: Run) -> None:
    """Does what is to be done after the step that the run has come to."""
    step = run.progress.step
    is_best = step in run.timeline.evaluate_at and _evaluate(run)
    if is_best or step in run.timeline.save_at:
        # Last: what the checkpoint claims to have done is then already in metrics.jsonl.
        _save(run)


def _evaluate(run: Run) -> bool:
    """Evaluates; says whether it is the best so far. Left out if the run was interrupted."""
    evaluation = evaluate_source(
        run.engine, run.eval_source, run.eval_steps_per_call, lambda: _asked_to_stop(run)
    )
    if evaluation is None:
        return False
    run.evaluation = evaluation
    run.reporter.evaluated(run.progress.step, evaluation.means)
    return run.progress.evaluated(evaluation.means["top1"])


def _save(run: Run) -> None:
    run.check_lock()
    try:
        run.checkpoints.save(run.progress)
    except NonFiniteWeights as error:
        raise _NonFinite(run.progress.step - 1, f"the loss is finite, but {error}") from error
    run.saved_step, run.rollbacks_in_a_row = run.progress.step, 0


# ---- Finish --------------------------------------------------------------------------------------


def _finish(run: Run) -> dict[str, float]:
    """Writes the trained model, the pictures and the result of a run that is through."""
    reporter, outputs = run.reporter, run.outputs
    # It is past the end where `epochs` or the data set has become smaller since.
    step = max(run.progress.step, run.timeline.total_steps)
    run.check_lock()
    before = outputs.read_result() if reporter.start == step else None
    if before is not None and before["step"] != step:
        before = None
    if before is not None and (damage := find_damage_of_keras_file(outputs.model)):
        run.say(f"warning: {outputs.model} is not whole ({damage}); writing it again")
        before = None
    if before is not None:
        run.say(f"This run is finished ({step} steps); evaluating it again.")
    if run.evaluation is None:  # finished, or resumed between the last step and here
        run.evaluation = evaluate_source(run.engine, run.eval_source, run.eval_steps_per_call)
    evaluation = run.evaluation
    assert evaluation is not None  # nothing asked it to stop
    if before is not None:
        result = {**before, **evaluation.means}
        used = {"eval": run.eval_source}
    else:
        result = {
            **(reporter.evaluation_at(step) or evaluation.means),
            "step": step,
            "train_images_per_second": reporter.images_per_second(),
        }
        with replacing(outputs.model) as temporary:
            inference_model(run.engine).save(temporary)
        reporter.draw_curves()
        used = {"train": run.train_source, "eval": run.eval_source}
    for split, source in used.items():
        if source.skipped is not None:
            result[f"skipped_{split}_images"] = len(source.skipped)
    reporter.draw_confusion(evaluation.confusion_matrix())
    write_text(outputs.result, to_json(result))
    reporter.conclude(result)
    return result
