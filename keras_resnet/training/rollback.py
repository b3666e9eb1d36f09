"""Back to the newest checkpoint after a loss, or weights, that are not finite."""

from keras_resnet.errors import UserError
from keras_resnet.training.preparation import Run
from keras_resnet.training.schedules import learning_rate_at

# In a row, without a new checkpoint in between. If so many do not get past a place, its batch is
# not what is wrong.
MAX_ROLLBACKS = 3


class NonFinite(Exception):
    """Training step `step` (from 0) gave a loss, or left weights, that are not finite.

    `what` says which, as a clause.
    """

    def __init__(self, step: int, what: str):
        super().__init__(what)
        self.step, self.what = step, what


def roll_back(run: Run, failure: NonFinite) -> None:
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
    run.follow_evaluations()
    run.reporter.rolled_back(restored.step, failure.step, rate)
    run.say(
        f"warning: {failure.what} in {where}: back to step {restored.step:,}, "
        f"going on with batch {failed_batch + 1:,}"
    )
