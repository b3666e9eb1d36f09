"""Checks a SavedModel the way it is served: TensorFlow's C++ loader, no TensorFlow in Python.

`verify_saved_model` starts a process of its own, so that neither an import of TensorFlow made
before nor a crash in the runtime can hide anything.
"""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn, TypedDict

import numpy as np

import keras_resnet_cli
from keras_resnet.calibration import UNKNOWN, softmax
from keras_resnet.errors import UserError
from keras_resnet.export import warmup, wire
from keras_resnet.export.c_api import INVALID_ARGUMENT, LoaderError, Session
from keras_resnet.export.description import read_calibration_note, read_tta_note
from keras_resnet.export.origin import read_origin
from keras_resnet.export.runtime import OLDEST, parse_version, runtime_of, to_text

# Single and batched requests take other paths through the kernels; bfloat16 has 8 bits.
BATCH_TOLERANCE = 0.03
SOFTMAX_TOLERANCE = 1e-5
OPEN_SIZE = 64  # pixels, where a signature leaves them open
CHUNK = 16


class Report(TypedDict):
    """What a check found.

    Attributes:
        tensorflow: version of the loader that ran it.
        needs_tensorflow: the oldest version whose operations it uses.
        signatures: the signatures by name.
        requests: how many were answered.
        warmup_records: how many were answered.
        first_ms: milliseconds of the first request after warm-up, by signature.
        steady_ms: the median of the five after it.
        calibrated: whether the export says that its logits were divided by a temperature, which
            its probabilities then are the softmax of.
        unknown_below: the probability below which it says unknown, which was checked; None of one
            that does not.
        tta: whether it says that mirror images have a say; then what it answers to them was
            checked to be the same.
    """

    tensorflow: str
    needs_tensorflow: str
    signatures: dict[str, wire.Signature]
    requests: int
    warmup_records: int
    first_ms: dict[str, float]
    steady_ms: dict[str, float]
    calibrated: bool
    unknown_below: float | None
    tta: str


def verify_saved_model(
    folder: Path,
    images: np.ndarray | None = None,
    *,
    site_packages: str | os.PathLike | None = None,
) -> tuple[Report, np.ndarray]:
    """Loads and runs a SavedModel in a process without TensorFlow or Keras in Python.

    Args:
        folder: holds saved_model.pb.
        images: uint8 [n, height, width, 3], to be answered by `predict_images_uint8`.
        site_packages: where another TensorFlow lies, whose loader is taken: see
            `c_api.load_library`.

    Returns:
        A report and float32 [n, classes], the logits of `images`.

    Raises:
        UserError: what is wrong with it.
    """
    with tempfile.TemporaryDirectory() as scratch:
        pixels, logits = Path(scratch, "images.npy"), Path(scratch, "logits.npy")
        place = "" if site_packages is None else str(Path(site_packages).expanduser().resolve())
        arguments = [str(Path(folder).resolve()), place]
        if images is not None:
            np.save(pixels, images)
            arguments += [str(pixels), str(logits)]
        package = Path(__file__).resolve().parents[2]
        search = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            keras_resnet_cli.module_command(__name__, *arguments),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": search, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise UserError(f"{folder}: TensorFlow's C++ runtime died of {name} on it")
        try:
            report = json.loads(done.stdout.splitlines()[-1])
        except (IndexError, json.JSONDecodeError) as error:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise UserError(f"{folder}: the check ended without a result: {last[0]}") from error
        if "error" in report:
            raise UserError(f"{folder}: {report['error']}")
        return report, np.load(logits) if images is not None else np.zeros([0, 0])


def main(arguments: list[str]) -> NoReturn:
    """The process: a folder, one of TensorFlow or "", and perhaps files of images and logits."""
    report: Report | dict[str, str]
    try:
        session = Session(arguments[0], arguments[1] or None)
        report = check_saved_model(session, Path(arguments[0]))
        if len(arguments) > 2:
            np.save(arguments[3], _logits(session, np.load(arguments[2])))
        imported = sorted({"tensorflow", "keras"} & sys.modules.keys())
        if imported:
            raise UserError(f"the check itself imported {', '.join(imported)}")
    except UserError as error:
        report = {"error": " ".join(str(error).split())}
    print(json.dumps(report), flush=True)
    # The runtime's own destructors have nothing to add.
    os._exit(0)


def check_saved_model(session: Session, folder: Path) -> Report:
    """Runs every signature with single and batched requests, and the warm-up records.

    Raises:
        UserError: a signature fails, or answers what it should not.
    """
    signatures = {k: v for k, v in session.signatures.items() if not k.startswith("__")}
    if not signatures:
        raise UserError("it has no signatures")
    origin = read_origin(folder) or {}
    calibration, threshold = read_calibration_note(origin)
    needs, runs = runtime_of(folder), parse_version(session.version)
    if runs >= OLDEST:
        needs.check(runs)
    report: Report = {
        "tensorflow": session.version,
        "needs_tensorflow": to_text(needs.version),
        "signatures": signatures,
        "requests": 0,
        "warmup_records": 0,
        "first_ms": {},
        "steady_ms": {},
        "calibrated": calibration is not None,
        "unknown_below": threshold,
        "tta": read_tta_note(origin),
    }
    records = _records(folder / warmup.FILE, signatures)
    for place, (name, infos) in enumerate(signatures.items()):
        if place:
            session.renew()
        report["warmup_records"] += _replay(session, name, records)
        inputs = {key: _example(info, 3) for key, info in infos["inputs"].items()}
        singles = [{k: v[i : i + 1] for k, v in inputs.items()} for i in range(3)]
        first, outputs = _timed(session, name, singles[0])
        report["first_ms"][name] = first
        answers = [outputs, *(_run(session, name, single) for single in singles[1:])]
        together = _run(session, name, inputs)
        _check_outputs(name, infos["outputs"], answers, together)
        if calibration is not None:
            _check_calibrated(name, together, threshold)
        if report["tta"] != "none" and "images" in inputs:
            _check_flips(name, together, _run(session, name, _mirrored(inputs)))
            report["requests"] += 1
        steady = sorted(_timed(session, name, singles[0])[0] for _ in range(5))
        report["steady_ms"][name] = steady[2]
        report["requests"] += 9
        report["requests"] += _check_broken_image(session, name, infos, singles[0])
    return report


def _run(session: Session, name: str, inputs: dict) -> dict:
    try:
        return session.run(name, inputs)
    except LoaderError as error:
        raise UserError(f"the signature {name} fails: {error}") from error


def _timed(session: Session, name: str, inputs: dict) -> tuple[float, dict]:
    start = time.perf_counter()
    outputs = _run(session, name, inputs)
    return round(1000 * (time.perf_counter() - start), 2), outputs


def _records(path: Path, signatures: Collection[str]) -> list[tuple[str, dict[str, np.ndarray]]]:
    """(signature, inputs) of each warm-up record, all of signatures that there are."""
    records = warmup.read_records(path) if path.exists() else []
    if len(records) > warmup.MAX_RECORDS:
        raise UserError(f"{path} has {len(records)} records, TF Serving reads 1,000")
    requests = [warmup.decode_request(record) for record in records]
    for number, (signature, _) in enumerate(requests):
        if signature not in signatures:
            raise UserError(
                f"warm-up record {number} ({signature}) fails: there is no signature {signature!r}"
            )
    return requests


def _replay(session: Session, name: str, records: list[tuple[str, dict[str, np.ndarray]]]) -> int:
    """Runs the warm-up records of a signature; returns how many they are."""
    count = 0
    for number, (signature, inputs) in enumerate(records):
        if signature != name:
            continue
        try:
            session.run(signature, inputs)
        except UserError as error:
            raise UserError(f"warm-up record {number} ({signature}) fails: {error}") from error
        count += 1
    return count


def _check_outputs(
    name: str, infos: dict[str, wire.TensorInfo], singles: list[dict], together: dict
) -> None:
    for key, info in infos.items():
        values = together[key]
        expected = (len(singles), *info["shape"][1:])
        fits = len(expected) == values.ndim and all(
            size in (None, found) for size, found in zip(expected, values.shape, strict=True)
        )
        if not fits:
            raise UserError(f"{name}: {key} has the shape {values.shape}, not {expected}")
        one_by_one = np.concatenate([single[key] for single in singles])
        if values.dtype.kind != "f":
            continue
        if not np.isfinite(values).all():
            raise UserError(f"{name}: {key} holds numbers that are not finite")
        distance = np.abs(values - one_by_one).max()
        if distance > BATCH_TOLERANCE * max(np.abs(values).max(), 1e-6):
            raise UserError(f"{name}: {key} of a batch differs by {distance:.2g} from single ones")


def _check_calibrated(name: str, outputs: dict, threshold: float | None) -> None:
    """Probabilities are the softmax of the logits beside them, and `unknown` what they say."""
    probabilities = outputs.get("probabilities")
    if probabilities is None:
        return
    if "logits" in outputs:
        distance = np.abs(probabilities - softmax(outputs["logits"])).max()
        if not distance <= SOFTMAX_TOLERANCE:  # as of a NaN
            raise UserError(f"{name}: the probabilities are not the softmax of the logits")
    if threshold is None:
        return
    sure, unknown = probabilities.max(axis=1), outputs.get("unknown")
    # Next to the threshold itself rounding decides.
    decided = np.abs(sure - threshold) > SOFTMAX_TOLERANCE
    if unknown is None or ((sure < threshold) != unknown)[decided].any():
        raise UserError(f"{name}: `unknown` is not where the probability is below {threshold:.4g}")
    if "answers" in outputs:
        expected = np.where(unknown, UNKNOWN.encode(), outputs["classes"][:, 0])
        if (outputs["answers"] != expected).any():
            raise UserError(f"{name}: `answers` are neither the first class nor {UNKNOWN}")


def _mirrored(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: np.ascontiguousarray(value[..., ::-1, :]) for key, value in inputs.items()}


def _check_flips(name: str, outputs: dict, mirrored: dict) -> None:
    """With both images in every answer, that to the mirror image is the same."""
    for key, values in outputs.items():
        if values.dtype.kind != "f":
            continue
        distance = np.abs(values - mirrored[key]).max()
        if not distance <= BATCH_TOLERANCE * np.abs(values).max():
            raise UserError(f"{name}: {key} of mirror images differ, and it says that both count")


def _check_broken_image(session: Session, name: str, infos: wire.Signature, inputs: dict) -> int:
    """A truncated image must be refused or flagged, and the next request answered."""
    encoded = [key for key, info in infos["inputs"].items() if info["dtype"] == "string"]
    if not encoded:
        return 0
    key = encoded[0]
    broken = np.empty(1, object)
    broken[0] = inputs[key][0][:60]
    try:
        outputs = session.run(name, {**inputs, key: broken})
    except LoaderError as error:
        if error.code != INVALID_ARGUMENT:
            raise UserError(
                f"{name} answers a truncated image with the status code {error.code} instead of "
                f"InvalidArgument: {error}"
            ) from error
    else:
        if "valid" not in outputs or outputs["valid"].any():
            raise UserError(f"{name} takes a truncated image for a good one")
    _run(session, name, inputs)
    return 2


def _logits(session: Session, images: np.ndarray) -> np.ndarray:
    parts = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    answers = [_run(session, "predict_images_uint8", {"images": part}) for part in parts]
    return np.concatenate([answer["logits"] for answer in answers])


def _example(info: wire.TensorInfo, count: int) -> np.ndarray:
    """Values for an input of a signature: images of different sizes for a string."""
    rng = np.random.default_rng(0)
    if info["dtype"] == "string":
        files = np.empty(count, object)
        files[:] = [make_png(rng, 40 + 30 * i, 70) for i in range(count)]
        return files
    if info["dtype"] not in wire.NUMBERS:
        raise UserError(f"the input {info['name']} is of {info['dtype']}, which is not known here")
    shape = [count, *(size or OPEN_SIZE for size in info["shape"][1:])]
    return rng.uniform(0, 255, shape).astype(info["dtype"])


def make_png(rng: np.random.Generator, height: int, width: int) -> bytes:
    """A PNG file of smooth random colors."""
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(rng.uniform(2, 20, 2) @ [rows.ravel(), columns.ravel()]) for _ in range(3)]
    pixels = (np.stack(waves, -1) * 100 + 128).astype(np.uint8).reshape(height, 3 * width)
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)  # filter 0: as it is

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(lines)),
            chunk(b"IEND", b""),
        ]
    )
