"""Where a run stands, and where in steps its epochs, evaluations and checkpoints lie."""

import dataclasses

from ml_collections import ConfigDict

from keras_resnet.config import training_image_sizes
from keras_resnet.config.image_sizes import Segment
from keras_resnet.errors import UsageError


@dataclasses.dataclass
class Progress:
    """Where a run stands; a part of every checkpoint.

    Attributes:
        step: training steps done.
        skipped: batches left out after roll-backs: step t trains on batch t + skipped.
        rollbacks: how often the run was rolled back.
        best_step: the step of the best evaluation so far, None before the first.
        best_top1: its score: top-1, or mAP of several labels an image (`metrics.score_of`).
        evaluated_step: the step of the last evaluation, None before the first.
        waited: evaluations since the best one.
        rate_reductions: how often the plateau schedule has lowered the learning rate.
    """

    step: int = 0
    skipped: int = 0
    rollbacks: int = 0
    best_step: int | None = None
    best_top1: float | None = None
    evaluated_step: int | None = None
    waited: int = 0
    rate_reductions: int = 0

    def evaluated(self, score: float, rate_patience: int = 0) -> bool:
        """Takes note of an evaluation at `step`; says whether it is the best so far.

        Args:
            score: its top-1, or its mAP.
            rate_patience: evaluations without a better one after which the learning rate falls, and
                falls again after as many more; 0 leaves it alone.
        """
        again, self.evaluated_step = self.evaluated_step == self.step, self.step
        if self.best_top1 is None or score > self.best_top1:
            self.best_step, self.best_top1, self.waited = self.step, score, 0
            return True
        if not again:  # where metrics.jsonl was damaged it is evaluated again, and counts once
            self.waited += 1
            self.rate_reductions += bool(rate_patience) and self.waited % rate_patience == 0
        return False

    def stops_early(self, patience: int) -> bool:
        """Says whether `patience` evaluations have brought nothing better; 0 never stops."""
        return 0 < patience <= self.waited


class Timeline:
    """The steps of a run.

    Epochs need not be whole numbers of steps: batches run across their borders, so that every
    example is seen once an epoch. Only the last partial batch of the run is left out.

    Args:
        config: reads `epochs`, `batch_size`, `log_every_steps`, `evaluate_every_epochs`,
            `model.unfreeze_epoch`, `checkpoint.every_epochs`, `tensorboard.profile_steps`,
            `data.image_size` and `data.train_image_size`.
        train_examples: size of the training split.

    Attributes:
        train_examples: as given.
        steps_per_epoch: a fraction, in general.
        total_steps: of the run.
        evaluate_at: steps after which there is an evaluation.
        save_at: steps after which there is a checkpoint.
        unfreeze_at: steps that train without what `model.freeze` names, if it is unfrozen then.
        profile_at: (first, last + 1) of the steps to profile, or ().
        segments: the steps that have images of one size, one after the other.

    Raises:
        UsageError: the run has not one whole step, or none for the last size of its images.
    """

    def __init__(self, config: ConfigDict, train_examples: int):
        self._config, self.train_examples = config, train_examples
        self.steps_per_epoch = train_examples / config.batch_size
        self.total_steps = self.step_at_epoch(config.epochs)
        if not self.total_steps:
            raise UsageError(
                f"config.batch_size={config.batch_size} is more than the {train_examples} training "
                f"examples of {config.epochs} epochs: not one step to train; take a smaller "
                "config.batch_size"
            )
        self.evaluate_at = self._steps_every(config.evaluate_every_epochs)
        self.save_at = self._steps_every(config.checkpoint.every_epochs)
        self.unfreeze_at = self.step_at_epoch(config.model.unfreeze_epoch)
        self.profile_at: tuple[int, ...] = tuple(config.tensorboard.profile_steps)
        try:
            self.segments = training_image_sizes(config).segments(self.total_steps)
        except ValueError as error:
            raise UsageError(
                f"config.data.image_size={config.data.image_size!r}: {error}"
            ) from error

    def step_at_epoch(self, epoch: int) -> int:
        """Returns the number of whole batches in the first `epoch` epochs."""
        return self.train_examples * epoch // self._config.batch_size

    def epoch_at_step(self, step: int) -> float:
        """Returns how many times the training split has been seen after `step` steps."""
        return step * self._config.batch_size / self.train_examples

    def segment_at(self, step: int) -> Segment:
        """Returns the steps of one image size to which step number `step`, from 0, belongs."""
        return next(segment for segment in reversed(self.segments) if segment.first <= step)

    def changes_size_at(self, step: int) -> bool:
        """Returns whether step number `step` has images of another size than the one before."""
        return any(segment.first == step for segment in self.segments[1:])

    def steps_to_compile(self, step: int) -> list[tuple[int, bool]]:
        """Returns of the steps that come after `step` each (image size, whether part is frozen)."""
        found: list[tuple[int, bool]] = []
        for segment in self.segments:
            first = max(segment.first, step)
            stages = (
                (True, first < min(segment.end, self.unfreeze_at)),
                (False, max(first, self.unfreeze_at) < segment.end),
            )
            found += [(segment.image_size, frozen) for frozen, comes in stages if comes]
        return list(dict.fromkeys(found))

    def next_stop(self, step: int, start: int) -> int:
        """Returns where the loop next stops to report, and perhaps to evaluate and save.

        That is after the first step from `start` on (it compiles, which would spoil the figures of
        others), at every multiple of `log_every_steps`, and wherever there is more to be done.
        """
        stops = (*self.evaluate_at, *self.save_at, *self.profile_at, start + 1, self.total_steps)
        stops += (self.unfreeze_at, *(segment.first for segment in self.segments))
        log = self._config.log_every_steps
        return min((step // log + 1) * log, *(stop for stop in stops if stop > step))

    def _steps_every(self, every: int) -> frozenset[int]:
        last = self._config.epochs
        epochs = [epoch for epoch in range(1, last + 1) if epoch % every == 0 or epoch == last]
        return frozenset(self.step_at_epoch(epoch) for epoch in epochs)
