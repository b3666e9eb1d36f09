"""Where a SavedModel comes from: what our exports say of themselves, and what is said of others."""

import hashlib
import json
import os
import warnings
from pathlib import Path
from typing import Any

from keras_resnet.bounds import parse_json
from keras_resnet.export.description import (
    Description,
    calibration_note,
    checked_thresholds,
    read_tta_note,
)
from keras_resnet.export.runtime import Runtime, to_text
from keras_resnet.flips import tta_note
from keras_resnet.installation import VERSION

# Beside the records for warm-up, where SavedModels keep what servers do not look at.
FILE = Path("assets.extra", "keras_resnet.json")


class ForeignModelWarning(UserWarning):
    """A SavedModel that this package did not write is about to be run."""


def write_origin(
    folder: Path, description: Description, runtime: Runtime, *, has_webp: bool
) -> None:
    """Notes in a SavedModel that this package wrote it, and what cannot be asked of its graph.

    That is the exact names of the classes, whether an image may have several, above which
    probabilities it has them, the calibration, and whether mirror images have a say; and what no
    client can see: which image files it reads, and the oldest TensorFlow that runs it.
    """
    (folder / FILE).parent.mkdir(exist_ok=True)
    origin = {
        "written_by": f"keras-resnet {VERSION}",
        "saved_model_sha256": _digest(folder),
        "class_names": list(description.class_names),
        "is_multilabel": description.is_multilabel,
        "thresholds": list(description.thresholds),
        "image_formats": ["JPEG", "PNG", "GIF", "BMP", *(["WebP"] if has_webp else [])],
        "minimum_tensorflow": to_text(runtime.version),
        **calibration_note(description.calibration, description.threshold),
        **tta_note(description.tta),
    }
    (folder / FILE).write_text(json.dumps(origin) + "\n")


def read_origin(folder: Path) -> dict[str, Any] | None:
    """What `write_origin` noted, None unless it is there and the graph is still that one.

    It is a note, not a signature: whoever wants to deceive can write it. It tells an export of this
    package from models of other programs and from a graph that took the place of one, no more.
    """
    try:
        origin = parse_json((folder / FILE).read_bytes())
        same = origin["saved_model_sha256"] == _digest(folder)
        names = origin["class_names"]
        plain = isinstance(names, list) and all(isinstance(name, str) for name in names)
        checked_thresholds(origin.get("thresholds"), len(names))
        read_tta_note(origin)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return origin if same and plain else None


def warn_if_foreign(path: str | os.PathLike) -> None:
    """Warns of a SavedModel that this package did not write."""
    folder = Path(path)
    if not (folder / "saved_model.pb").is_file() or read_origin(folder) is not None:
        return
    warnings.warn(
        f"{folder} does not say that this version of keras-resnet wrote it, or its graph was "
        "changed since. A SavedModel is a program: TensorFlow lets it read and write files with "
        "your rights as soon as it is loaded. Run only what comes from somebody you trust, or in a "
        "container without network and with nothing of yours in it; --trusted (trusted=True) "
        "leaves this line out",
        ForeignModelWarning,
        stacklevel=3,
    )


def _digest(folder: Path) -> str:
    with open(folder / "saved_model.pb", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
