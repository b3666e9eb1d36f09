"""The export formats, a row each. Nothing here loads TensorFlow.

To add one that is a file, write a module with a function `write(job) -> run` and add a row; the
command's choices and checks, and `export_file`, follow from the table.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from keras_resnet.calibration import Unknown
from keras_resnet.errors import UserError, nearest

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_resnet.export.sample_images import Samples

# Images, uint8 [batch, size, size, 3] -> logits, or log-probabilities up to a constant.
Run = Callable[["np.ndarray"], "np.ndarray"]
# Images by which the ranges of "int8" are learned; NNCF takes as many, and says that it is enough.
CALIBRATION_IMAGES = 300


@dataclasses.dataclass(frozen=True)
class Job:
    """What a writer is asked for.

    Attributes:
        model: a classifier of `keras_resnet.create_model`, with its preprocessing.
        path: the file to write; it gets its final name once it has passed the comparison. The
            folder is the job's own, for other files, too.
        precision: one of the format's.
        fold: whether batch normalization is folded into the convolutions.
        class_names: instead of the model's own, or None.
        calibration: images by which "int8" learns the ranges of its activations.
        calibrated, unknown, tta: see `signatures.make_network`.
        io: what a file in "int8" takes and gives, one of the format's `io`.
    """

    model: "keras.Model"
    path: Path
    precision: str
    fold: bool
    class_names: list[str] | None
    calibration: "Samples"
    calibrated: bool = False
    unknown: Unknown | str | float | None = None
    tta: str | None = None
    io: str = "float32"

    @property
    def options(self) -> dict[str, Any]:
        """What `signatures.make_network` takes beside the model."""
        names = ("fold", "class_names", "calibrated", "unknown", "tta")
        return {name: getattr(self, name) for name in names}

    def calibration_images(self) -> "np.ndarray":
        """uint8 [n, size, size, 3], by which "int8" learns its ranges."""
        return self.calibration.first(CALIBRATION_IMAGES)


@dataclasses.dataclass(frozen=True)
class Format:
    """An export format.

    Attributes:
        tolerances: precision -> largest difference of a logit that is accepted, as a share of the
            largest logit. Folding alone stays below 1e-5, and 16 bits for weights cost 0.0004 to
            0.0012 in ResNets of 18 to 152 layers with random weights (measured).
        suffix: of the file's name; "" for a SavedModel, which is a folder.
        writer: "module:function", from a `Job` to what runs the file that was written; "" for a
            SavedModel, which `export_saved_model` writes as a numbered version.
        prober: "module:function" as `openvino.probe`, of a format that has "int8".
        beside: suffix of a second file, which the writer puts beside the first one; "" without.
        has_versions: whether a folder can be given in place of the file, in which it becomes the
            next version for a server.
        io: what a file in "int8" can take and give.
    """

    tolerances: Mapping[str, float]
    suffix: str = ""
    writer: str = ""
    prober: str = ""
    beside: str = ""
    has_versions: bool = False
    io: tuple[str, ...] = ("float32",)

    def io_in(self, precision: str) -> tuple[str, ...]:
        """What a file can take and give in this precision."""
        return self.io if precision == "int8" else ("float32",)

    def is_file(self, output: PurePath) -> bool:
        """Whether this path is one of a file, and not of a folder of versions."""
        return bool(self.suffix) and not (self.has_versions and output.suffix != self.suffix)

    def write(self, job: Job) -> Run:
        """Writes the file and returns what runs it, in the runtime that it is for."""
        return _named(self.writer)(job)

    def probe(self, *arguments: Any) -> Callable[["np.ndarray"], dict[str, "np.ndarray"]]:
        """Any outputs of a network in this format, without a file: see `openvino.probe`."""
        return _named(self.prober)(*arguments)


def _named(place: str) -> Callable:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)


FORMATS = {
    "saved_model": Format({"float32": 1e-4, "bfloat16": 0.1}),
    "keras": Format({"float32": 1e-4}, ".keras", "keras_resnet.export.keras_file:write"),
    "tflite": Format(
        {"float32": 1e-4, "float16": 0.02, "int8": 0.3},
        ".tflite",
        "keras_resnet.export.tflite:write",
        "keras_resnet.export.tflite:probe",
        io=("float32", "uint8", "int8"),
    ),
    "onnx": Format(
        {"float32": 1e-4, "int8": 0.3},
        ".onnx",
        "keras_resnet.export.onnx:write",
        "keras_resnet.export.onnx:probe",
    ),
    "openvino": Format(
        {"float32": 1e-4, "float16": 1e-2, "bfloat16": 0.1, "int8": 0.3},
        ".xml",
        "keras_resnet.export.openvino:write",
        "keras_resnet.export.openvino:probe",
        beside=".bin",
        has_versions=True,
    ),
}
PRECISIONS = tuple(dict.fromkeys(p for row in FORMATS.values() for p in row.tolerances))
IO = tuple(dict.fromkeys(io for row in FORMATS.values() for io in row.io))


def find_format(name: str, precision: str) -> Format:
    """The row of a format that has a precision.

    Raises:
        UserError: there is no such format, or it has no such precision.
    """
    if name not in FORMATS:
        meant = nearest(name, FORMATS)
        raise UserError(f"unknown export format {name!r}; there are {', '.join(FORMATS)}{meant}")
    known = FORMATS[name].tolerances
    if precision not in known:
        raise UserError(
            f"the export format {name} has no precision {precision!r}; it has {', '.join(known)}"
        )
    return FORMATS[name]
