"""Calibrated probabilities of what is exported, or predicts: logits divided by a temperature."""

from typing import Any

import keras

from keras_resnet.calibration import Calibration, CalibrationError
from keras_resnet.errors import UserError

HOW = (
    "a run writes it into its model.keras when it is finished (one that an older version finished "
    "gets it when `keras-resnet train` is started on it again), and "
    "`keras-resnet calibrate --model=FILE.keras --data=PHOTOS` fits one on labelled images"
)


def calibrate_head(
    head: keras.layers.Dense, model: keras.Model, is_multilabel: bool
) -> Calibration:
    """Divides the logits of a classifier by the temperature of a model, by way of its weights.

    Args:
        head: of a copy of `model`; its kernel and its bias are changed.
        model: knows the calibration.
        is_multilabel: whether its probabilities are independent of each other.

    Returns:
        The calibration that the changed classifier has.

    Raises:
        UserError: the model has no calibration, or is none of one class an image.
    """
    calibration = usable_calibration(model, is_multilabel)
    head.set_weights([weight / calibration.temperature for weight in head.get_weights()])
    return calibration.applied()


def usable_calibration(model: keras.Model, is_multilabel: bool) -> Calibration:
    """The calibration of a model; raises UserError as `calibrate_head`."""
    calibration = getattr(model, "calibration", None)
    if is_multilabel:
        raise UserError(
            f"{model.name} gives each class a probability of its own; a temperature calibrates "
            "those of one class an image. Leave out --calibrated and --unknown"
        )
    if calibration is None:
        raise CalibrationError(
            f"{model.name} has no calibration, which --calibrated and --unknown need: {HOW}"
        )
    return calibration


def temperature_of(model: keras.Model, calibrated: bool, unknown: Any) -> float:
    """What the logits of an export of `model` are divided by."""
    calibration = getattr(model, "calibration", None)
    asked = calibrated or unknown is not None
    return calibration.temperature if asked and calibration is not None else 1.0


def calibration_of_export(found: Calibration | None, path: Any) -> Calibration:
    """The calibration that an export notes; raises CalibrationError where it has none."""
    if found is None:
        raise CalibrationError(
            f"{path} was exported without its calibration, which --calibrated and --unknown need; "
            "export it again with --calibrated"
        )
    return found
