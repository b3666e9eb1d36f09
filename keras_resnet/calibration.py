"""How far the probabilities of a classifier can be believed, and a temperature that mends them.

NumPy only. `Calibration` is what travels with a model; what `calibration.json` says of a run is put
together in `training/reliability.py`.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from keras_resnet.errors import UsageError, UserError

BINS = 15  # as many as Guo et al. (2017) take
UNKNOWN = "unknown"  # the answer that is better than a class
COVERAGES = (1.0, 0.99, 0.95, 0.9, 0.8)
# Where the temperature is looked for: what does not end inside has no optimum worth having.
LOWEST, HIGHEST = 0.01, 100.0
# Numbers in the temporary arrays of one block of images.
_BLOCK = 2**21


class CalibrationError(UserError, ValueError):
    """Logits that no temperature can be fitted on, or a description that is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a model knows of its own reliability.

    Attributes:
        temperature: what its logits are to be divided by; above 0.
        quantiles: 101 calibrated top probabilities, falling: at number p, what the surest p % of
            the images reach. The first is the largest, the last the smallest.
        split: name of the images that it was fitted on.
        images: how many they were.
    """

    temperature: float
    quantiles: tuple[float, ...]
    split: str
    images: int

    def __post_init__(self) -> None:
        numbers = (self.temperature, *self.quantiles)
        if not all(type(value) in (int, float) and math.isfinite(value) for value in numbers):
            raise CalibrationError(f"the calibration holds what is no number: {numbers[:5]}")
        if not self.temperature > 0:
            raise CalibrationError(f"the temperature is {self.temperature}; it must be above 0")
        if len(self.quantiles) != 101 or list(self.quantiles) != sorted(self.quantiles)[::-1]:
            raise CalibrationError("the calibration lacks its 101 falling quantiles")

    def threshold(self, coverage: float) -> float:
        """The calibrated probability that the surest `coverage` (0..1) of the images reach.

        Between whole percents the line between both. For all images it is 0: others than those
        that it was fitted on may be less sure than each of them.

        Raises:
            CalibrationError: it is not above 0, up to 1.
        """
        if not 0 < coverage <= 1:
            raise CalibrationError(f"a coverage of {coverage:g} is not above 0, up to 1")
        if coverage == 1:
            return 0.0
        return float(np.interp(100 * coverage, range(101), self.quantiles))

    def applied(self) -> Self:
        """The calibration of a model whose logits are divided by the temperature already."""
        return dataclasses.replace(self, temperature=1.0)

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold and `from_dict` takes."""
        return {**dataclasses.asdict(self), "quantiles": list(self.quantiles)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Makes it of what `to_dict` gave, among other keys.

        Raises:
            CalibrationError: a key is missing, or a value cannot be used.
        """
        try:
            return cls(
                temperature=values["temperature"],
                quantiles=tuple(values["quantiles"]),
                split=str(values["split"]),
                images=int(values["images"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, CalibrationError):
                raise
            raise CalibrationError(f"no calibration: {type(error).__name__} {error}") from error


@dataclasses.dataclass(frozen=True)
class Unknown:
    """Below which calibrated probability "unknown" is the better answer.

    Attributes:
        number: the probability itself, or the share of the images that are to be answered.
        is_coverage: whether it is that share.
    """

    number: float
    is_coverage: bool

    @classmethod
    def parse(cls, value: "str | float | Unknown", name: str = "unknown") -> "Unknown":
        """Reads "90%", the share of the images to answer, or 0.7, a calibrated probability.

        Raises:
            UsageError: it is neither.
        """
        if isinstance(value, Unknown):
            return value
        text = str(value).strip()
        is_coverage = text.endswith("%")
        try:
            number = float(text.removesuffix("%")) / (100 if is_coverage else 1)
        except ValueError:
            number = math.nan
        if 0 < number <= 1 if is_coverage else 0 <= number <= 1:
            return cls(number, is_coverage)
        meant = (
            f" Did you mean {name}={number:g}%?" if 1 < number <= 100 and not is_coverage else ""
        )
        raise UsageError(
            f"{name}={value}: it takes the share of the images to answer, such as 90%, or a "
            f"probability from 0 to 1 below which the answer is unknown, such as 0.7.{meant}"
        )

    def threshold(self, calibration: Calibration) -> float:
        """The calibrated probability below which the answer is unknown."""
        return calibration.threshold(self.number) if self.is_coverage else self.number


# ---- The temperature -----------------------------------------------------------------------------


def fit(logits: np.ndarray, labels: np.ndarray, split: str) -> Calibration:
    """Returns the calibration of a network that gives `logits` for images with `labels`.

    Args:
        logits: float[images, classes].
        labels: int[images].
        split: what the images are called.

    Raises:
        CalibrationError: as `fit_temperature`.
    """
    temperature = fit_temperature(logits, labels)
    confidence, _ = judge(logits, labels, temperature)
    falling = np.sort(confidence)[::-1]
    places = [_place(percent / 100, len(falling)) for percent in range(101)]
    return Calibration(
        temperature=temperature,
        quantiles=tuple(falling[places].tolist()),
        split=split,
        images=len(falling),
    )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the smallest mean cross-entropy (Guo et al. 2017, section 4.2).

    In 1 / temperature the cross-entropy is convex: Newton's steps, and the middle of the bracket
    where one would leave it. Where no image is taken for another class, the optimum is 0, as if
    there could be no mistake; the targets are then those of Platt (1999, section 2.2), as though
    one image more of n + 2 had another label.

    Args:
        logits: float[images, classes].
        labels: int[images].

    Returns:
        A number from LOWEST to HIGHEST. 1 where all logits of each image are equal.

    Raises:
        CalibrationError: there are no images, their labels are no classes, or a logit is not
            finite.
    """
    _check(logits, labels)
    targets = _target_logits(logits, labels)
    low, high, beta = 1 / HIGHEST, 1 / LOWEST, 1.0
    if _slope(logits, targets, low)[0] >= 0:
        return HIGHEST if _slope(logits, targets, 1.0)[1] > 0 else 1.0
    if _slope(logits, targets, high)[0] <= 0:
        return LOWEST
    for _ in range(100):
        slope, curvature = _slope(logits, targets, beta)
        low, high = (beta, high) if slope < 0 else (low, beta)
        step = beta - slope / curvature if curvature > 0 else high
        step = step if low < step < high else math.sqrt(low * high)
        if abs(step - beta) <= 1e-10 * beta:
            return 1 / step
        beta = step
    return 1 / beta


def _target_logits(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mean logit of each image under its target, below the largest; float64[images]."""
    parts = []
    for block, wanted in _blocks(logits, labels):
        parts.append(np.take_along_axis(block, wanted[:, None], axis=1)[:, 0])
    targets = np.concatenate(parts)
    if targets.min() < 0 or logits.shape[1] < 2:
        return targets
    others = [block.sum(axis=1) for block, _ in _blocks(logits, labels)]
    return targets + np.concatenate(others) / ((len(labels) + 2) * (logits.shape[1] - 1))


def _slope(logits: np.ndarray, targets: np.ndarray, beta: float) -> tuple[float, float]:
    """First and second derivative, by beta, of the mean cross-entropy of beta * logits."""
    slope = curvature = 0.0
    for block, wanted in _blocks(logits, targets):
        weights = np.exp(beta * block)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * block).sum(axis=1)
        slope += float((mean - wanted).sum())
        curvature += float((weights * (block - mean[:, None]) ** 2).sum())
    return slope / len(logits), curvature / len(logits)


def _check(logits: np.ndarray, labels: np.ndarray) -> None:
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not logits.size:
        raise CalibrationError(
            f"logits of the shape {logits.shape} and labels of {labels.shape}; give at least one "
            "row of logits, and a label for each"
        )
    if not np.isfinite(logits).all():
        raise CalibrationError("a logit is not a finite number")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise CalibrationError(
            f"labels from {labels.min()} to {labels.max()} of {logits.shape[1]} classes"
        )


def _blocks(logits: np.ndarray, beside: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some rows at a time: float64 logits less the largest of the row, and what is beside them."""
    rows = max(_BLOCK // logits.shape[1], 1)
    for start in range(0, len(logits), rows):
        block = logits[start : start + rows].astype("float64")
        yield block - block.max(axis=1, keepdims=True), beside[start : start + rows]


# ---- What probabilities are worth ----------------------------------------------------------------


def judge(
    logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the top probability of each image at a temperature, and whether its class is right.

    Args:
        logits: float[images, classes].
        labels: int[images].
        temperature: what divides the logits.

    Returns:
        float64[images] and bool[images].
    """
    parts = [np.exp(block / temperature).sum(axis=1) for block, _ in _blocks(logits, labels)]
    return 1 / np.concatenate(parts), logits.argmax(axis=1) == labels


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the probabilities of logits, [images, classes]."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Returns the mean of -ln of the probability of the label."""
    total = 0.0
    for block, wanted in _blocks(logits, labels):
        block = block / temperature
        of_label = np.take_along_axis(block, wanted[:, None], axis=1)[:, 0]
        total += float((np.log(np.exp(block).sum(axis=1)) - of_label).sum())
    return total / len(logits)


def reliability_bins(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS
) -> list[dict[str, Any]]:
    """Returns the reliability diagram: bins of equal width of the top probability.

    Args:
        confidence: float[images], top probabilities.
        right: bool[images].
        bins: how many. Each holds its upper end and not its lower one (Guo et al. 2017, section 2).

    Returns:
        A dict a bin: from, to, count, and the means confidence and accuracy, None where it is
        empty.
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = {
        "confidence": np.bincount(place, weights=confidence, minlength=bins),
        "accuracy": np.bincount(place, weights=right, minlength=bins),
    }
    return [
        {
            "from": number / bins,
            "to": (number + 1) / bins,
            "count": int(count),
            **{key: float(of[number] / count) if count else None for key, of in sums.items()},
        }
        for number, count in enumerate(counts)
    ]


def expected_calibration_error(bins: list[dict[str, Any]]) -> float:
    """Returns the mean distance of confidence and accuracy over the images (Naeini et al. 2015)."""
    total = sum(row["count"] for row in bins)
    gaps = (row["count"] * abs(row["confidence"] - row["accuracy"]) for row in bins if row["count"])
    return sum(gaps) / total


def find_thresholds(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, float]]:
    """Returns for each of COVERAGES the probability that so many images reach.

    Returns:
        A dict each: coverage, threshold, and the accuracy among the images that reach it.
    """
    falling, rows = np.sort(confidence)[::-1], []
    for coverage in COVERAGES:
        # At full coverage none: other images may be less sure than each of these.
        threshold = 0.0 if coverage == 1 else float(falling[_place(coverage, len(falling))])
        accuracy = float(right[confidence >= threshold].mean())
        rows.append({"coverage": coverage, "threshold": threshold, "accuracy": accuracy})
    return rows


def apply_thresholds(
    rows: list[dict[str, float]], confidence: np.ndarray, right: np.ndarray
) -> list[dict[str, float | None]]:
    """Returns what the thresholds of other images do to these.

    Args:
        rows: of `find_thresholds`.
        confidence: float[images], calibrated top probabilities.
        right: bool[images].

    Returns:
        A dict each: the coverage that it comes to here, the threshold, and the accuracy among the
        images that reach it, None where none does.
    """
    applied: list[dict[str, float | None]] = []
    for row in rows:
        reached = confidence >= row["threshold"]
        accuracy = float(right[reached].mean()) if reached.any() else None
        applied.append(
            {
                "coverage": float(reached.mean()),
                "threshold": row["threshold"],
                "accuracy": accuracy,
            }
        )
    return applied


def _place(coverage: float, images: int) -> int:
    """Where, of so many falling numbers, the last stands that `coverage` of them reach."""
    return max(math.ceil(round(coverage * images, 6)) - 1, 0)
