"""What predicts at a path: a model, a run, trained weights or an export of any format."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf

from keras_resnet.calibration import Unknown
from keras_resnet.errors import UserError
from keras_resnet.export import file_predictors
from keras_resnet.export.calibrating import calibration_of_export
from keras_resnet.export.description import read_calibration_note, read_tta_note
from keras_resnet.export.labels import LABELS, lines_of
from keras_resnet.export.origin import read_origin, warn_if_foreign
from keras_resnet.export.predictor import Answer, Predictor
from keras_resnet.export.signatures import TOP
from keras_resnet.export.versions import list_versions, newest_version, openvino_file
from keras_resnet.models import create_model
from keras_resnet.models.loading import load_model
from keras_resnet.preprocessing import MAX_PIXELS
from keras_resnet.storage import in_bucket, read_json
from keras_resnet.training.evaluation import Which, load_model_of_workdir
from keras_resnet.training.workdir import WorkDir
from keras_resnet.weights.checkpoint import WeightsError
from keras_resnet.weights.files import are_weights


def load_predictor(
    path: str | os.PathLike,
    top: int | None = None,
    class_names: list[str] | None = None,
    *,
    trusted: bool = False,
    calibrated: bool = False,
    unknown: Unknown | str | float | None = None,
    tta: str | None = None,
) -> Predictor:
    """A predictor from whatever this package writes or reads.

    Args:
        path: a `.keras` file, a SavedModel, a folder of versions (of which the newest is taken), a
            `.tflite`, `.onnx` or `.xml` file of `export_file`, the work directory of a run (see
            `load_model_of_workdir`), or trained weights that name their network: a file, a folder
            of transformers or an address `hf://OWNER/REPOSITORY` (see `weights.read_weights`).
        top: number of classes, 5 by default; a SavedModel returns as many as it was exported with,
            or fewer if `top` says so. Where an image may have several labels it is all of them that
            are above their thresholds, or fewer if `top` says so.
        class_names: instead of the model's own.
        trusted: True leaves out the warning of a SavedModel that this package did not write, which
            can read and write files (see `origin`).
        calibrated: answer with probabilities calibrated on held-out images: the logits are divided
            by the temperature that the model carries. Exports do so by themselves, or not at all.
        unknown: say that the answer is unknown below a calibrated probability, such as 0.7, or so
            often that a share of the images is answered, such as "90%"; makes them calibrated, too.
        tta: answer with mirror images, one of `flips.TTA`; None: as the model says. Exports do so
            by themselves, or not at all.

    Raises:
        UserError: there is nothing at `path` that predicts, or `class_names` are not one for each
            class, or a package that such a file needs is missing; names the extra to install. Or
            there is no calibration, and it is asked for.
    """
    network = load_network(path)
    if network is not None:
        return Predictor.of_model(
            network, top, class_names, calibrated=calibrated, unknown=unknown, tta=tta
        )
    name, file = os.fspath(path), openvino_file(Path(path).expanduser())
    names: Sequence[str]
    webp_as_png = False
    if file.suffix in file_predictors.SUFFIXES:
        answer, said = file_predictors.load(file, top or TOP)
        names, calibration = said.class_names, said.calibration
        limits = said.thresholds if said.is_multilabel else None
        max_pixels, flips = said.preprocessing.max_pixels, said.tta
    else:
        folder = newest_version(file)
        if not trusted:
            warn_if_foreign(folder)
        origin = read_origin(folder)
        names = _served_names(folder) if origin is None else origin["class_names"]
        calibration, _ = read_calibration_note(origin or {})
        webp_as_png = "WebP" not in (origin or {}).get("image_formats", ["WebP"])
        several = bool((origin or {}).get("is_multilabel"))
        limits = tuple((origin or {}).get("thresholds") or ()) if several else None
        answer, max_pixels = _served(folder, None if several else top), MAX_PIXELS
        flips = read_tta_note(origin or {})
    _check_flips(tta, flips, name)
    threshold = None
    if calibrated or unknown is not None:
        calibration = calibration_of_export(calibration, name)
        threshold = None if unknown is None else Unknown.parse(unknown).threshold(calibration)
    names = _checked(class_names, names, name)
    return Predictor(answer, names, max_pixels, limits, top, threshold, webp_as_png, flips)


def load_network(path: str | os.PathLike, checkpoint: Which | None = None) -> keras.Model | None:
    """The Keras model in what `load_predictor` takes; None of exports, which hold none.

    Args:
        path: a `.keras` file, the work directory of a run, or trained weights that name their
            network.
        checkpoint: of a work directory, "newest" or "best"; None: what its `checkpoint.model` says.

    Raises:
        UserError: as `load_predictor`.
    """
    name, file = os.fspath(path), Path(path).expanduser()
    in_hub = name.startswith("hf://")
    if file.suffix == ".keras" and not in_hub:
        return load_model(Path(path))
    if file.suffix in file_predictors.SUFFIXES:
        return None
    if not in_hub and _is_workdir(path):
        return load_model_of_workdir(WorkDir(path), checkpoint)
    return _model_of_weights(path) if in_hub or are_weights(file) else None


def _model_of_weights(path: str | os.PathLike) -> keras.Model:
    try:
        return create_model(weights=path if os.fspath(path).startswith("hf://") else Path(path))
    except ImportError as error:  # names the extra to install
        raise WeightsError(str(error)) from error
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{error.args[0]} `keras-resnet convert` makes a .keras file of weights, and takes "
            "what they do not say: --model=NAME, --shortcut, --mean, --class_names and others.",
            getattr(error, "details", ""),
        ) from error


def _checked(given: list[str] | None, own: Sequence[str], path: str) -> Sequence[str]:
    if given is not None and len(given) != len(own):
        raise UserError(f"{len(given)} class names for the {len(own)} classes of {path}")
    return own if given is None else given


def _check_flips(asked: str | None, own: str, name: str) -> None:
    if asked not in (None, own):
        raise UserError(
            f"tta={asked!r}: {name} was exported with tta={own!r}, which is in its graph; leave "
            f"tta out, or export it again with --tta={asked}"
        )


def _is_workdir(path: str | os.PathLike) -> bool:
    """Whether a run was started in a folder, in which no versions were exported."""
    folder = WorkDir(path)
    if in_bucket(path):
        return folder.is_begun()
    exported = (folder.path / "saved_model.pb").exists() or list_versions(folder.path)
    return not exported and (_is_begun(folder) or folder.model.is_file())


def _is_begun(folder: WorkDir) -> bool:
    """Whether there is the config of a run; timm and transformers call theirs the same."""
    if not folder.is_begun():
        return False
    record = read_json(folder.config)
    return record is None or "data" in record


def _served(folder: Path, top: int | None) -> Answer:
    """The function behind `serving_default` of a SavedModel, for the `top` classes."""
    try:
        loaded = tf.saved_model.load(str(folder))
        signature = loaded.signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder}: cannot be loaded as a SavedModel ({reason})") from error
    _, inputs = signature.structured_input_signature
    wanted = {"classes", "class_ids", "probabilities"}
    if list(inputs) != ["image_bytes"] or not wanted <= signature.structured_outputs.keys():
        raise UserError(
            f"{folder}: its serving_default takes {sorted(inputs)} and returns "
            f"{sorted(signature.structured_outputs)}; predict needs an export of keras-resnet, "
            "image_bytes -> classes, class_ids, probabilities"
        )

    def answer(encoded: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = loaded.signatures["serving_default"](image_bytes=encoded)  # keeps `loaded` alive
        return {k: v[:, :top] if k in wanted else v for k, v in outputs.items()}

    return answer


def _served_names(folder: Path) -> list[str]:
    """The names that an export has as an asset, one a line."""
    file = folder / "assets" / LABELS
    try:
        return lines_of(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
