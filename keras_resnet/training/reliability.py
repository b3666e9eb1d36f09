"""What a run says of the reliability of its probabilities: calibration.json.

The temperature and the thresholds are fitted on the images that choices are made by
(`data.eval_split`), never on those of `data.test_split`.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_resnet import calibration
from keras_resnet.calibration import Calibration

if TYPE_CHECKING:
    from keras_resnet.training.evaluation import Evaluation

FEW = 100
_SAME_IMAGES = (
    "The temperature and the thresholds were fitted on the images that the run reports, so the "
    "calibrated figures are a little better than those of other images will be; data.test_split "
    "keeps images apart."
)


def describe_calibration(
    fitted: Calibration, evaluation: "Evaluation", tested: "Evaluation | None", test_split: str
) -> dict[str, Any]:
    """Returns the content of calibration.json.

    Args:
        fitted: on `evaluation`.
        evaluation: of the images of `data.eval_split`.
        tested: of those of `data.test_split`; None without them.
        test_split: their name.

    Returns:
        split, images (that it was fitted on), split_images (that there are), note, temperature,
        ece, ece_calibrated, cross_entropy, cross_entropy_calibrated, bins, bins_calibrated,
        thresholds and quantiles; and in test the same of the test images, with what the thresholds
        of the others come to on them.
    """
    found: dict[str, Any] = {
        "split": fitted.split,
        "images": fitted.images,
        "split_images": evaluation.means["examples"],
        "reported_split": test_split or fitted.split,
        "note": " ".join(_notes(fitted, tested is None)),
        "temperature": fitted.temperature,
        **_figures(evaluation, fitted.temperature),
        "thresholds": calibration.find_thresholds(*_judge(evaluation, fitted.temperature)),
        "quantiles": list(fitted.quantiles),
    }
    if tested:
        judged = _judge(tested, fitted.temperature)
        found["test"] = {
            "split": test_split,
            "images": len(tested.logit_labels),
            "split_images": tested.means["examples"],
            **_figures(tested, fitted.temperature),
            "thresholds": calibration.apply_thresholds(found["thresholds"], *judged),
        }
    return found


def _notes(fitted: Calibration, same_images: bool) -> list[str]:
    """What a person should know before relying on it."""
    few = f"Fitted on {fitted.images:,} images only: take it for a rough figure."
    return [few] * (fitted.images < FEW) + [_SAME_IMAGES] * same_images


def summarize(found: dict[str, Any]) -> str:
    """Returns in a line what calibration.json says."""
    where = found.get("test", found)
    rough = " So few images give a rough figure." if found["images"] < FEW else ""
    return (
        f"Calibration: a temperature of {found['temperature']:.3g}, fitted on {found['images']:,} "
        f"images of {found['split']}, takes the expected calibration error on {where['split']} "
        f"from {where['ece']:.2%} to {where['ece_calibrated']:.2%}.{rough}"
    )


def _judge(evaluation: "Evaluation", temperature: float) -> tuple[np.ndarray, np.ndarray]:
    return calibration.judge(evaluation.logits, evaluation.logit_labels, temperature)


def _figures(evaluation: "Evaluation", temperature: float) -> dict[str, Any]:
    """ECE, cross-entropy and bins, before and after."""
    figures: dict[str, Any] = {}
    bins = {}
    for suffix, value in (("", 1.0), ("_calibrated", temperature)):
        rows = bins[f"bins{suffix}"] = calibration.reliability_bins(*_judge(evaluation, value))
        figures[f"ece{suffix}"] = calibration.expected_calibration_error(rows)
        figures[f"cross_entropy{suffix}"] = calibration.cross_entropy(
            evaluation.logits, evaluation.logit_labels, value
        )
    return {**figures, **bins}
