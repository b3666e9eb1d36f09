"""How far an export's answers are from the model's."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export.formats import Run
from keras_resnet.export.sample_images import Batches
from keras_resnet.training.label_sets import figures

# Half a point of top-1, or as much of mAP: what an export in 8 bits may cost without being told.
MAX_LOSS = 0.005
PART = 4  # images that are run at a time: activations of many at once take the memory


@dataclasses.dataclass
class Difference:
    """Between the model's logits and the export's, over some images.

    Attributes:
        images: how many.
        max_logit, mean_logit: absolute differences.
        relative: largest difference over the largest absolute logit of the model.
        top1_agreement: share of the images whose most probable class is the same.
        top1_before, top1_after: accuracies, None without labels.
        map_before, map_after: mean average precisions, where an image has several labels.
        accepted: the tolerance that somebody asked for, where `relative` is beyond the format's.
        worst_layers: of an export in 8 bits that costs accuracy the layers whose activations differ
            most, each with its difference as a share of the activations.
    """

    images: int
    max_logit: float
    mean_logit: float
    relative: float
    top1_agreement: float
    top1_before: float | None = None
    top1_after: float | None = None
    map_before: float | None = None
    map_after: float | None = None
    accepted: float | None = None
    worst_layers: tuple[tuple[str, float], ...] = ()

    @property
    def loss(self) -> float | None:
        """The accuracy that the export costs, top-1 or mAP, 0..1; None without labels."""
        if self.top1_before is not None and self.top1_after is not None:
            return self.top1_before - self.top1_after
        if self.map_before is not None and self.map_after is not None:
            return self.map_before - self.map_after
        return None

    @property
    def costs_accuracy(self) -> bool:
        """Whether it costs more than `MAX_LOSS`."""
        return self.loss is not None and self.loss > MAX_LOSS

    def __str__(self) -> str:
        text = (
            f"{self.images:,} images: logits differ by at most {self.max_logit:.2g} "
            f"({self.relative:.1g} of the largest), {self.mean_logit:.2g} on average; "
            f"top-1 agrees on {self.top1_agreement:.2%}"
        )
        if self.top1_before is not None and self.top1_after is not None:
            change = 100 * (self.top1_after - self.top1_before)
            text += (
                f"; top-1 accuracy {self.top1_before:.2%} -> {self.top1_after:.2%} "
                f"({change:+.2f} points)"
            )
        if self.map_before is not None and self.map_after is not None:
            text += f"; mAP {self.map_before:.4f} -> {self.map_after:.4f}"
        if self.accepted is not None:
            text += f"; beyond the format's tolerance, accepted up to {self.accepted:g}"
        return text


class Reference:
    """What a model answers to some images, kept so that the model need not be kept.

    Args:
        batches: yields (images, labels or None), the same ones each time; labels int[n], or
            [n, classes] of 0 and 1.
        model: images -> logits, or log-probabilities up to a constant.
    """

    def __init__(self, batches: Callable[[], Batches], model: Run):
        self._batches = batches
        answers, labels = [], []
        for images, truth in batches():
            answers.append(_in_parts(model, images))
            if truth is not None:
                labels.append(truth)
        self._expected = np.concatenate(answers)
        self._truth = np.concatenate(labels) if len(labels) == len(answers) else None

    def compare(self, export: Run) -> Difference:
        """Runs an export on the same images; it answers as the model did."""
        found = [_in_parts(export, images) for images, _ in self._batches()]
        return self.compare_answers(np.concatenate(found))

    def compare_answers(self, found: np.ndarray) -> Difference:
        """As `compare`, of what an export has answered."""
        expected = self._expected
        distance = np.abs(found - expected)
        accuracies: dict[str, Any] = {}
        if self._truth is not None:
            accuracies = _accuracies(self._truth, expected, found)
        return Difference(
            images=len(expected),
            max_logit=float(distance.max()),
            mean_logit=float(distance.mean()),
            relative=float(distance.max() / max(np.abs(expected).max(), np.finfo(np.float32).tiny)),
            top1_agreement=float((expected.argmax(1) == found.argmax(1)).mean()),
            **accuracies,
        )


def _in_parts(run: Run, images: np.ndarray) -> np.ndarray:
    """float64 answers, a few images at a time."""
    parts = [images[start : start + PART] for start in range(0, len(images), PART)]
    return np.concatenate([np.asarray(run(part), np.float64) for part in parts])


def _accuracies(truth: np.ndarray, expected: np.ndarray, found: np.ndarray) -> dict[str, float]:
    if truth.ndim == 2:  # several labels an image
        there = truth > 0
        return {
            "map_before": figures(there, expected)["map"],
            "map_after": figures(there, found)["map"],
        }
    return {
        "top1_before": float((expected.argmax(1) == truth).mean()),
        "top1_after": float((found.argmax(1) == truth).mean()),
    }


def check(difference: Difference, tolerance: float, what: str, asked: float | None = None) -> None:
    """Refuses an export that differs too much, or warns of one that was asked for.

    Args:
        difference: between model and export; says afterwards whether it is beyond the tolerance.
        tolerance: of the format.
        what: was exported, for the message.
        asked: the tolerance to take instead.

    Raises:
        UserError: `relative` is above the tolerance, or not a number.
    """
    limit = tolerance if asked is None else asked
    relative = difference.relative
    if not relative <= limit:
        far = f"{what} differs from the model by {relative:.2g} of the largest logit"
        more = f"--tolerance={_rounded_up(relative):g} accepts it" if np.isfinite(relative) else ""
        raise UserError(
            f"{far}, more than its tolerance of {limit:g}; nothing was written"
            + (f". If the accuracy is what you need, {more}" if more else "")
        )
    if relative > tolerance:
        difference.accepted = asked
        warnings.warn(
            f"{what} differs from the model by {relative:.2g} of the largest logit, more than the "
            f"{tolerance:g} of the format; it was written, as the tolerance was set to {asked:g}. "
            "Measure its accuracy before you use it",
            stacklevel=3,
        )


def _rounded_up(number: float) -> float:
    """The next number of one digit."""
    digit = 10.0 ** np.floor(np.log10(number))
    return float(np.ceil(number / digit) * digit)


def check_tolerance(tolerance: float | None) -> None:
    """Raises UserError unless it is a number above 0, or None."""
    if tolerance is not None and not 0 < tolerance < np.inf:
        raise UserError(
            f"tolerance={tolerance!r}: a share of the largest logit above 0 is needed, as 0.05"
        )
