"""The loop of one run: train, evaluate, save; and what interrupts it."""

import contextlib
import signal

import tensorflow as tf

from keras_resnet.errors import Interrupted, UserError
from keras_resnet.training.interruption import Interruption, exit_code
from keras_resnet.training.reporting import Reporter
from keras_resnet.training.schedules import learning_rate_at
from keras_resnet.training.tensorflow import agreement
from keras_resnet.training.tensorflow.checkpoints import Checkpoints, NonFiniteWeights, Progress
from keras_resnet.training.tensorflow.trainer import Trainer

# Without a new checkpoint in between. If that many do not get past the place, the batch is not what
# is wrong.
MAX_ROLLBACKS = 3


class _NonFinite(Exception):
    """Training step `step` (from 0) gave a loss, or left weights, that are not finite."""

    def __init__(self, step: int, what: str):
        super().__init__(what)
        self.step, self.what = step, what


class Session:
    """Trains from `progress` to the last step.

    Args:
        trainer: the model and its data.
        checkpoints: where the state is saved.
        reporter: told of everything; entered by the caller.
        train_source: what to train on.
        eval_source: what to evaluate on.
        progress: where to begin; the trainer's state must be the one of that step.
    """

    def __init__(
        self,
        trainer: Trainer,
        checkpoints: Checkpoints,
        reporter: Reporter,
        train_source,
        eval_source,
        progress: Progress,
    ):
        self.trainer, self.checkpoints, self.reporter = trainer, checkpoints, reporter
        self.train_source, self.eval_source = train_source, eval_source
        self.progress = progress
        config = trainer.config
        self._evaluate_at = self._steps_every(config.evaluate_every_epochs)
        self._save_at = self._steps_every(config.checkpoint.every_epochs)
        self._profile_at = config.tensorboard.profile_steps
        self._saved_step = progress.step
        self._rollbacks_in_a_row = 0
        self._stopping = False

    def run(self) -> None:
        """Runs to the end.

        Raises:
            Interrupted: a signal asked to stop; everything done is saved.
            UserError: the loss is not finite, or a checkpoint could not be written.
            input_pipeline.DataError: an example cannot be read; names it.
        """
        if self.trainer.config.on_nonfinite == "rollback" and not self.checkpoints.steps():
            self.checkpoints.save(self.progress)  # there must be something to go back to
        with Interruption() as self._interrupted, self._closing_profiler():
            while self.progress.step < self.trainer.total_steps or self._evaluation_is_missing():
                try:
                    self._train()
                except _NonFinite as error:
                    self._roll_back(error)

    def _evaluation_is_missing(self) -> bool:
        """The run may have been interrupted, or rolled back, before it could evaluate."""
        step = self.progress.step
        return step in self._evaluate_at and not self.reporter.has_evaluation(step)

    def _steps_every(self, every: int) -> set[int]:
        last = self.trainer.config.epochs
        epochs = [epoch for epoch in range(1, last + 1) if epoch % every == 0 or epoch == last]
        return {self.trainer.step_at_epoch(epoch) for epoch in epochs}

    def _train(self) -> None:
        progress = self.progress
        self._stop_if_interrupted()
        if self._evaluation_is_missing():
            self._evaluate()
            self._save()
            self._stop_if_interrupted()
        self._profile(progress.step)
        for step, means in self.trainer.train(
            self.train_source,
            progress.step,
            [*self._evaluate_at, *self._save_at, *self._profile_at],
            skipped=progress.skipped,
            should_stop=self._asked_to_stop,
        ):
            if means["non_finite_step"] is not None:
                raise _NonFinite(means["non_finite_step"], "the loss is")
            progress.step = step
            self.reporter.trained(step, means, learning_rate_at(self.trainer.schedule, step - 1))
            self._profile(step)
            best = step in self._evaluate_at and self._evaluate()
            if best or step in self._save_at:
                # Last: what the checkpoint claims to have done is then already in metrics.jsonl.
                self._save()
            self._stop_if_interrupted()

    def _evaluate(self) -> bool:
        """Evaluates; says whether it is the best so far. Left out if the run was interrupted."""
        means = self.trainer.evaluate(self.eval_source, should_stop=self._asked_to_stop)
        if means is None:
            return False
        self.reporter.evaluated(self.progress.step, means)
        return self.progress.evaluated(means["top1"])

    def _save(self) -> None:
        try:
            self.checkpoints.save(self.progress)
        except NonFiniteWeights as error:
            raise _NonFinite(self.progress.step - 1, f"{error}; the loss is finite, but") from error
        self._saved_step, self._rollbacks_in_a_row = self.progress.step, 0

    def _asked_to_stop(self) -> bool:
        """Returns whether a signal came on any host; all hosts ask at the same places."""
        self._stopping = self._stopping or agreement.any_host(
            self.trainer.strategy, self._interrupted()
        )
        return self._stopping

    def _stop_if_interrupted(self) -> None:
        if not self._asked_to_stop():
            return
        step = self.progress.step
        if step != self._saved_step:
            self._save()
        raise Interrupted(
            f"stopped by a signal after step {step:,} of {self.trainer.total_steps:,}, which is "
            "saved; the same command resumes",
            code=exit_code(self._interrupted.signal or signal.SIGTERM),  # another host's
        )

    def _roll_back(self, error: _NonFinite) -> None:
        """Takes the state of the newest checkpoint and the batch after the one that failed."""
        rate = learning_rate_at(self.trainer.schedule, error.step)
        where = f"step {error.step:,}, at learning rate {rate:.6g}"
        self._rollbacks_in_a_row += 1
        allowed = self.trainer.config.on_nonfinite == "rollback"
        if not allowed or self._rollbacks_in_a_row > MAX_ROLLBACKS:
            tried = f" after {MAX_ROLLBACKS} roll-backs in a row" if allowed else ""
            option = "" if allowed else ", or config.on_nonfinite=rollback to skip the batch"
            raise UserError(
                f"{error.what} not finite (NaN or infinity) in {where}{tried}; the newest "
                f"checkpoint is of step {self._saved_step:,}. Take a smaller "
                f"config.optimizer.learning_rate or a longer config.schedule.warmup_epochs{option}"
            ) from error
        failed_batch = error.step + self.progress.skipped
        restored = self.checkpoints.restore_newest()
        restored.rollbacks = self.progress.rollbacks + 1
        restored.skipped = failed_batch + 1 - restored.step
        self.progress = restored
        self.reporter.rolled_back(restored.step, error.step, rate)
        self.reporter.say(
            f"warning: {error.what} not finite in {where}: back to step {restored.step:,}, "
            f"going on with batch {failed_batch + 1:,}"
        )

    def _profile(self, step: int) -> None:
        if self._profile_at and step == self._profile_at[0]:
            tf.profiler.experimental.start(str(self.reporter.workdir.tensorboard))
        elif self._profile_at and step == self._profile_at[1]:
            with contextlib.suppress(tf.errors.UnavailableError):  # a resumed run began after it
                tf.profiler.experimental.stop()

    @contextlib.contextmanager
    def _closing_profiler(self):
        try:
            yield
        finally:
            if self._profile_at and self._profile_at[0] <= self.progress.step < self._profile_at[1]:
                with contextlib.suppress(tf.errors.UnavailableError):
                    tf.profiler.experimental.stop()
