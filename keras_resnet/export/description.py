"""What an exported file says of itself: how its images are prepared, and what its classes are.

A `.tflite` file carries it as TensorFlow Lite's own metadata carries files: in a zip archive behind
the model. An `.onnx` file carries it in its metadata, an `.xml` file of OpenVINO in its runtime
info. Runtimes pass over all three.
"""

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_resnet.bounds import Budget, RefusedError, opened_zip, parse_json
from keras_resnet.calibration import Calibration, CalibrationError
from keras_resnet.errors import UserError
from keras_resnet.flips import TTA, tta_note
from keras_resnet.preprocessing import Preprocessing

KEY = "keras_resnet"
MEMBER = "keras_resnet.json"


@dataclasses.dataclass(frozen=True)
class Description:
    """What is needed to go from an image file to the name of a class.

    Attributes:
        preprocessing: of the model that was exported.
        class_names: one for each logit.
        is_multilabel: probabilities are independent (sigmoid) instead of one of many (softmax).
        thresholds: of independent probabilities, above which each class is predicted; () for a half
            everywhere.
        calibration: of logits that were divided by the temperature; None where they were not.
        threshold: the probability below which the file itself says unknown, if it does.
        tta: whether the logits are of images and their mirror images, one of `flips.TTA`.
    """

    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    is_multilabel: bool
    thresholds: tuple[float, ...] = ()
    calibration: Calibration | None = None
    threshold: float | None = None
    tta: str = "none"

    def to_json(self) -> str:
        """The text that `read` turns back."""
        values = {
            "preprocessing": self.preprocessing.to_dict(),
            "class_names": list(self.class_names),
            "is_multilabel": self.is_multilabel,
            "thresholds": list(self.thresholds),
            **calibration_note(self.calibration, self.threshold),
            **tta_note(self.tta),
        }
        return json.dumps(values)

    @classmethod
    def read(cls, text: str | bytes) -> "Description":
        """What `to_json` gave; raises ValueError, KeyError or TypeError for anything else."""
        values: dict[str, Any] = parse_json(text)
        return cls(
            Preprocessing.from_dict(values["preprocessing"]),
            tuple(values["class_names"]),
            bool(values["is_multilabel"]),
            checked_thresholds(values.get("thresholds"), len(values["class_names"])),
            *read_calibration_note(values),
            read_tta_note(values),
        )


def calibration_note(calibration: Calibration | None, threshold: float | None) -> dict[str, Any]:
    """What an export notes of its calibration: nothing without one."""
    if calibration is None:
        return {}
    return {"calibration": calibration.to_dict(), "unknown_below": threshold}


def read_calibration_note(values: Mapping[str, Any]) -> tuple[Calibration | None, float | None]:
    """What `calibration_note` gave, among other keys; raises CalibrationError for anything else."""
    noted, threshold = values.get("calibration"), values.get("unknown_below")
    if not (threshold is None or type(threshold) in (int, float)):
        raise CalibrationError(f"unknown_below is {threshold!r}, no number")
    return None if noted is None else Calibration.from_dict(noted), threshold


def read_tta_note(values: Mapping[str, Any]) -> str:
    """What `flips.tta_note` gave, among other keys; raises ValueError for anything else."""
    tta = values.get("tta", "none")
    if tta not in TTA:
        raise ValueError(f"tta is {tta!r}")
    return tta


def checked_thresholds(values: Any, classes: int) -> tuple[float, ...]:
    """Thresholds that a file holds, () where it has none; raises ValueError for anything else."""
    if not values:
        return ()
    numbers = tuple(float(value) for value in values)
    if len(numbers) != classes or not all(0 <= number <= 1 for number in numbers):
        raise ValueError(f"{len(numbers)} thresholds for {classes} classes")
    return numbers


def of_tflite(path: Path) -> Description:
    """The description in a `.tflite` file; raises UserError if there is none."""
    try:
        with opened_zip(Budget(path)) as archive:
            return Description.read(archive.read(MEMBER))
    except RefusedError:
        raise
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise _lacking(path) from error


def of_metadata(path: Path, metadata: dict[str, str]) -> Description:
    """The description in the metadata of a file; raises UserError if there is none."""
    try:
        return Description.read(metadata[KEY])
    except (ValueError, KeyError, TypeError) as error:
        raise _lacking(path) from error


def _lacking(path: Path) -> UserError:
    return UserError(
        f"{path}: does not say how its images are prepared and what its classes are called, as "
        "files of `keras-resnet export` do (older ones did not): export it again"
    )
