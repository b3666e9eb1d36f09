"""The learning rate finder: the loss while the rate rises from next to nothing until it diverges.

Smith 2017 (Cyclical learning rates for training neural networks), section 3.3. Range, smoothing,
where it stops and the cautious rate (its default `valley`) are those of `Learner.lr_find` of fastai
2.7. The suggestion is a third of the rate with the lowest smoothed loss; a tenth of it, which is
fastai's `minimum`, is too low for short runs (docs/training.md has the figures).
"""

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.optimizers import schedules
from ml_collections import ConfigDict

from keras_resnet import tpu_chips
from keras_resnet.errors import UsageError, UserError
from keras_resnet.storage import replacing
from keras_resnet.training.class_balance import class_weights
from keras_resnet.training.data import open_source
from keras_resnet.training.engine import find_engine
from keras_resnet.training.evaluation import make_steps_per_call
from keras_resnet.training.finetuning import read_pretrained, take_over_preprocessing
from keras_resnet.training.metrics import SUMS
from keras_resnet.training.say import silence
from keras_resnet.training.teachers import teach
from keras_resnet.training.workdir import WorkDir

START, END, STEPS = 1e-7, 10.0, 100
SMOOTHING = 0.98  # of the moving average of the losses
DIVERGED = 4.0  # times the lowest smoothed loss so far: there it stops
# The suggestion leaves out the first tenth of the steps, while the average settles, and the last
# few, in which the loss explodes.
_FIRST_PART, _LAST = 10, 5
_FEWEST = 10
_BELOW_LOWEST = 1 / 3  # where the loss is lowest it is about to explode


@dataclasses.dataclass(frozen=True)
class LearningRateCurve:
    """What `find_learning_rate` measured.

    Attributes:
        rates: the learning rate of each step, rising; as the optimizer takes it.
        losses: the loss of each step's batch.
        smoothed: their moving average.
        suggestion: for `optimizer.learning_rate`, a third of the rate with the lowest smoothed
            loss; None where the loss never fell for long.
        cautious: a lower one, half way down the longest fall of the smoothed loss.
        scale: what `optimizer.learning_rate` is multiplied by to be a rate: batch_size / 256 with
            `optimizer.scale_with_batch`, else 1.
        is_chief: False on the hosts of a run that are not to write or speak.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None
    cautious: float | None
    scale: float = 1.0
    is_chief: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Returns what JSON can hold."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name != "is_chief"}

    def table(self) -> str:
        """Returns CSV: a header, and learning_rate, loss and smoothed_loss of each step."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["learning_rate", "loss", "smoothed_loss"])
        writer.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))
        return text.getvalue()

    def draw(self, path: Path, title: str = "") -> None:
        """Draws the losses over the rates, and the suggestion, to a PNG.

        Raises:
            UserError: matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise UserError(
                "the curve needs matplotlib: pip install 'keras-resnet-tpu[plot]'"
            ) from error
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="#bbbbbb", linewidth=1, label="loss of a batch")
        axes.plot(self.rates, self.smoothed, color="#4477aa", label="smoothed")
        if self.suggestion is not None:
            rate = self.suggestion * self.scale
            axes.axvline(rate, color="#ee6677", linewidth=1, label=f"suggested: {rate:.3g}")
        axes.set(xlabel="learning rate", ylabel="loss", xscale="log", title=title)
        # What explodes in the end would hide what fell before.
        axes.set_ylim(0.9 * min(self.smoothed), 1.5 * self.smoothed[0])
        axes.grid(alpha=0.3)
        axes.legend()
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120)


def find_learning_rate(
    config: ConfigDict,
    workdir: WorkDir | None = None,
    *,
    start: float = START,
    end: float = END,
    steps: int = STEPS,
    progress: Callable[[int], Any] = lambda steps: None,
) -> LearningRateCurve:
    """Trains as a run of `config` would begin, with a rate that rises from step to step.

    Nothing is written.

    Args:
        config: a checked config; its data, batch size, optimizer, loss and seed count, its schedule
            does not.
        workdir: of a run that `config` is of, which is only read.
        start: the rate of the first step.
        end: that of the last; the rates between are equally far apart on a logarithmic scale.
        steps: at most; it stops where the smoothed loss is four times its lowest value, or is no
            finite number.
        progress: told how many steps were done, again and again.

    Raises:
        UsageError: the range or the number of steps cannot be used.
        UserError, input_pipeline.DataError: as training.
    """
    if not 0 < start < end < math.inf:
        raise UsageError(f"the rates {start:g} to {end:g} must rise from above 0")
    if steps < 2 * _FEWEST:
        raise UsageError(f"{steps} steps are too few; take {2 * _FEWEST} or more")
    config = take_over_preprocessing(config, workdir)
    engine_type = find_engine(config)
    if keras.backend.backend() == "tensorflow":  # JAX takes the chips, or says why it cannot
        tpu_chips.refuse_idle(config.strategy)
    engine = engine_type(config)
    with engine.explain_lost_hosts():
        source = open_source(config, config.data.train_split)
        weights = read_pretrained(config) if config.model.weights else None
        rising = schedules.ExponentialDecay(start, steps - 1, end / start)
        engine.build(source.class_names, rising, weights, silence, class_weights(config, source))
        teach(engine, source.class_names)
        batches, calls = engine.train_batches(source, 0, steps), make_steps_per_call(engine)
        losses: list[float] = []
        while len(losses) < steps and not _stops(losses):
            count = 1 if engine.several_hosts else calls.choose(min(10, steps - len(losses)))
            sums = engine.train(batches, count).astype("float64")
            losses += (sums[:, SUMS.index("loss")] / sums[:, SUMS.index("examples")]).tolist()
            progress(count)
        engine.wait_for_hosts()
    losses = losses[: _stops(losses) or len(losses)]
    rates = (start * (end / start) ** (np.arange(len(losses)) / (steps - 1))).tolist()
    smoothed = smooth(losses)
    scale = config.batch_size / 256 if config.optimizer.scale_with_batch else 1.0
    skipped = steps // _FIRST_PART
    place = middle_of_valley(smoothed[skipped:-_LAST])
    suggestion = cautious = None
    if place is not None:
        lowest = int(np.argmin(smoothed[skipped:-_LAST]))
        suggestion = rates[skipped + lowest] * _BELOW_LOWEST / scale
        cautious = rates[skipped + place] / scale
    return LearningRateCurve(rates, losses, smoothed, suggestion, cautious, scale, engine.is_chief)


def smooth(losses: Sequence[float]) -> list[float]:
    """Returns the exponential moving average, without its bias towards 0 in the beginning."""
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed.append(average / (1 - SMOOTHING**count))
    return smoothed


def _stops(losses: Sequence[float]) -> int:
    """Returns how many losses there are up to where it diverges, 0 if it does not."""
    lowest = math.inf
    for place, value in enumerate(smooth(losses)):
        if not math.isfinite(value):
            return place
        lowest = min(lowest, value)
        if value > DIVERGED * lowest:
            return place + 1
    return 0


def middle_of_valley(losses: Sequence[float]) -> int | None:
    """Returns the place half way down the longest fall of the losses, fastai's `valley`.

    That is the longest sequence of places, not all of them neighbors, at which the losses fall; it
    is taken to end where the last of them is, and to be as wide as it has places. None for fewer
    than ten losses, or where they hardly ever fall.
    """
    values = np.asarray(losses)
    if len(values) < _FEWEST:
        return None
    lengths = np.ones(len(values), int)  # of the longest fall that ends at each place
    for place in range(1, len(values)):
        before = lengths[:place][values[:place] > values[place]]
        lengths[place] = 1 + before.max(initial=0)
    end = int(lengths.argmax())
    if lengths[end] < 3:
        return None
    third = lengths[end] / 3
    return end - int(lengths[end]) + int(third) + int(third / 2)
