"""A training run from start to end: read `train` downwards.

The parts that follow it are in the order in which it calls them: loop, evaluate, save. Before them
comes `preparation.py` (devices, data, model, restore), after them `finish.py` (model, pictures,
result); `rollback.py` is for losses that are not finite. What computes is behind `Engine`
(engine.py).
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.errors import Interrupted
from keras_resnet.training.callbacks import Callback, name_given
from keras_resnet.training.checkpoints import NonFiniteWeights
from keras_resnet.training.evaluation import evaluate_source, make_steps_per_call
from keras_resnet.training.finish import finish
from keras_resnet.training.interruption import exit_code
from keras_resnet.training.metrics import Window, score_of
from keras_resnet.training.preparation import Run, prepare
from keras_resnet.training.rollback import NonFinite, roll_back
from keras_resnet.training.say import Say
from keras_resnet.training.schedules import learning_rate_at
from keras_resnet.training.sizes import compile_sizes


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    say: Say | None = None,
    callbacks: Iterable[Callback] = (),
) -> dict[str, float]:
    """Trains the network of `config` in `workdir`; `keras_resnet.training.train` says the rest.

    Args:
        config: as there.
        workdir: as there.
        say: how the run speaks; it can be asked afterwards whether that was possible.
        callbacks: as there.
    """
    given = name_given(callbacks)
    with contextlib.ExitStack() as closing:
        run = prepare(config, workdir, closing, say or Say(), given)
        engine = run.engine
        with run.reporter, run.interruption, contextlib.ExitStack() as recording:
            if run.timeline.profile_at:
                recording.callback(engine.stop_profile)
            _compile_sizes(run)
            batches = None
            while not run.is_over or _evaluation_is_missing(run):
                try:
                    if batches is None:  # at the start, and after a roll-back
                        _make_up_for_evaluation(run)
                        if run.is_over:
                            break
                        start, batches = run.progress.step, _open_batches(run)
                        window = Window(start, run.sums)
                    stop = run.timeline.next_stop(window.step, start)
                    count = run.train_steps_per_call.choose(stop - window.step)
                    begin = time.perf_counter()
                    sums = engine.train(batches, count, window.step < run.timeline.unfreeze_at)
                    window.add(sums, seconds := time.perf_counter() - begin)
                    run.train_steps_per_call.took(count, seconds)
                    if (failed := window.non_finite_step()) is not None:
                        raise NonFinite(failed, "the loss is not finite (NaN or infinity)")
                    if window.step == stop or _asked_to_stop(run):
                        run.progress.step = window.step
                        _report(run, window)
                        _evaluate_and_save(run)
                        _stop_if_asked_to(run)
                        window = Window(window.step, run.sums)
                        if run.timeline.changes_size_at(window.step) and not run.is_over:
                            batches = _open_batches(run)
                            run.train_steps_per_call = make_steps_per_call(engine)
                except NonFinite as failure:
                    roll_back(run, failure)
                    batches = None
        result = finish(run)
        run.callbacks.finished(result)
        engine.wait_for_hosts()
        return result


# ---- Loop ----------------------------------------------------------------------------------------


def _evaluation_is_missing(run: Run) -> bool:
    """The run may have been interrupted, or rolled back, before it could evaluate."""
    step = run.progress.step
    return step in run.timeline.evaluate_at and not run.reporter.has_evaluation(step)


def _compile_sizes(run: Run) -> None:
    """Compiles what a schedule of image sizes needs, if there is something left to train."""
    if not run.is_over:
        parts = (run.engine, run.train_source, run.timeline, run.progress.step)
        compile_sizes(*parts, run.say, lambda: _asked_to_stop(run))


def _make_up_for_evaluation(run: Run) -> None:
    """Evaluates where that is missing, before training goes on from there."""
    _stop_if_asked_to(run)
    if _evaluation_is_missing(run):
        _evaluate(run)
        _save(run)
        _stop_if_asked_to(run)
    _profile(run)


def _open_batches(run: Run) -> Any:
    """Returns the training batches from where the run stands, as far as they have one size."""
    segment = run.timeline.segment_at(run.progress.step)
    skipped = run.progress.skipped
    first, end = run.progress.step + skipped, segment.end + skipped
    return run.engine.train_batches(run.train_source, first, end, segment.image_size)


def _report(run: Run, window: Window) -> None:
    """Records the steps of the window."""
    rate = learning_rate_at(run.schedule, window.step - 1)
    run.reporter.trained(window.step, window.means(), rate, run.engine.gradient_norms())
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
    if is_best or step in run.timeline.save_at or run.stopped_early:
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
    plateau = run.config.schedule.name == "plateau"
    _, score = score_of(evaluation.means)
    is_best = run.progress.evaluated(score, run.config.schedule.patience if plateau else 0)
    run.follow_evaluations()
    return is_best


def _save(run: Run) -> None:
    run.check_lock()
    try:
        run.checkpoints.save(run.progress)
    except NonFiniteWeights as error:
        raise NonFinite(run.progress.step - 1, f"the loss is finite, but {error}") from error
    run.saved_step, run.rollbacks_in_a_row = run.progress.step, 0
