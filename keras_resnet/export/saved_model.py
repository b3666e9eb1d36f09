"""SavedModels that TF Serving runs."""

import contextlib
import dataclasses
import gc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet.calibration import Unknown
from keras_resnet.errors import UserError
from keras_resnet.export import comparison, graph_weights, sample_images, warmup
from keras_resnet.export.bucket_versions import new_version_in_bucket
from keras_resnet.export.calibrating import temperature_of
from keras_resnet.export.formats import find_format
from keras_resnet.export.labels import LABELS, write_labels
from keras_resnet.export.origin import write_origin
from keras_resnet.export.own_heads import as_classifier
from keras_resnet.export.runtime import Runtime, runtime_of
from keras_resnet.export.serving_config import BATCH_SIZES, write_serving_config
from keras_resnet.export.signatures import (
    MAX_BATCH,
    Network,
    logits_caller,
    make_network,
    make_signatures,
)
from keras_resnet.export.verify import Report, verify_saved_model
from keras_resnet.export.versions import check_name, new_version
from keras_resnet.storage import as_path, in_bucket

# What C++ answers to the same images as the function that was saved: other kernels, other order.
LOADER_TOLERANCES = {"float32": 1e-4, "bfloat16": 0.03}
LOADER_IMAGES = 4
# A graph is one protocol buffer, which holds less than 2 GiB.
MAX_GRAPH_BYTES = 2_000_000_000


@dataclasses.dataclass
class Export:
    """What was written.

    Attributes:
        path: folder of the new version.
        serving_config: folder of the files for a server.
        difference: between the model and the export.
        report: of `verify_saved_model`.
        runtime: what a server needs.
    """

    path: Path
    serving_config: Path
    difference: comparison.Difference
    report: Report
    runtime: Runtime


def export_saved_model(
    model: keras.Model,
    output: str | os.PathLike,
    *,
    precision: str = "float32",
    fold: bool = True,
    top: int | None = None,
    on_error: str = "fail",
    max_batch: int = MAX_BATCH,
    webp: bool = False,
    class_names: list[str] | None = None,
    samples: sample_images.Samples | None = None,
    name: str | None = None,
    calibrated: bool = False,
    unknown: Unknown | str | float | None = None,
    tta: str | None = None,
    tolerance: float | None = None,
    preprocessing: Mapping[str, Any] | str | None = None,
) -> Export:
    """Writes the next version of a model for TF Serving, once it has passed every check.

    The SavedModel holds the network with folded batch normalization and constants for variables,
    and the signatures of `make_signatures`. It is compared with `model` and run by TensorFlow's
    C++ loader (`verify_saved_model`) before it becomes visible under its number.

    Args:
        model: a classifier of `keras_resnet.create_model`, with its preprocessing, or one that was
            made on such a network: see `as_classifier`.
        output: folder of the versions, which may be in a bucket (`gs://…`).
        precision: "float32" or "bfloat16".
        fold: False keeps the normalizations, and with them the model's numbers to the bit.
        top, on_error, max_batch: see `make_signatures`.
        webp: decode WebP files, too, which a server before TensorFlow 2.20 cannot: it would refuse
            every signature that takes image files.
        class_names: see `make_network`.
        samples: images to compare model and export on; default: random ones.
        name: what clients call the model; default: the name of `output`.
        calibrated, unknown, tta: see `make_network`.
        tolerance: largest accepted difference of a logit, as a share of the largest one, instead of
            the format's; a difference beyond the format's is warned of.
        preprocessing: instead of the model's own: see `as_classifier`.

    Raises:
        UserError: the model cannot be exported, `output` not be written, or the export differs
            from the model; nothing is left behind then.
    """
    own_tolerance = find_format("saved_model", precision).tolerances[precision]
    comparison.check_tolerance(tolerance)
    model = as_classifier(model, preprocessing)
    folder = as_path(output).expanduser()
    name = check_name(name or (folder if in_bucket(folder) else folder.resolve()).name)
    reference = make_network(model, fold=False, class_names=class_names, tta=tta)
    network = make_network(
        model,
        fold=fold,
        precision=precision,
        class_names=class_names,
        calibrated=calibrated,
        unknown=unknown,
        tta=tta,
    )
    _check_size(network)
    if samples is None:
        samples = sample_images.drawn(network.preprocessing)
    expected = comparison.Reference(
        samples.batches, logits_caller(reference, temperature_of(model, calibrated, unknown))
    )
    difference = expected.compare(logits_caller(network))
    comparison.check(difference, own_tolerance, f"the export in {precision}", tolerance)
    images = samples.first(LOADER_IMAGES)
    in_python = comparison.Reference(lambda: iter([(images, None)]), logits_caller(network))
    del reference, expected  # weights that are needed no more
    begin = new_version_in_bucket if in_bucket(folder) else new_version
    with begin(folder) as (made, published):
        with _explain_write_errors(folder):
            runtime = write_saved_model(
                made, network, top=top, on_error=on_error, max_batch=max_batch, has_webp=webp
            )
            warmup.write_records(made / warmup.FILE, _warmup_records(network, name))
        gc.collect()
        report, logits = verify_saved_model(made, images)
        served = in_python.compare_answers(logits)
        comparison.check(served, LOADER_TOLERANCES[precision], "what TensorFlow's C++ loader runs")
    config = write_serving_config(folder, name, runtime.version)
    return Export(published[0], config, difference, report, runtime)


@contextlib.contextmanager
def _explain_write_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except (tf.errors.OpError, OSError) as error:  # TensorFlow's own for a full disk
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--output={output}: the export could not be written ({reason}). Nothing of it is "
            "left, and the versions before it are whole: make room and run the same command again"
        ) from error


def write_saved_model(folder: Path, network: Network, *, has_webp: bool, **options) -> Runtime:
    """Writes saved_model.pb and the labels, one a line (see `write_labels`), as an asset.

    Args:
        folder: holds nothing.
        network: becomes a graph with constants for variables.
        has_webp, **options: see `make_signatures`.

    Returns:
        What a server needs to run it.
    """
    labels = folder / LABELS
    write_labels(labels, network.class_names)
    module = tf.Module()
    module.labels = tf.saved_model.Asset(str(labels))
    call, variables = graph_weights.without_weights(network)
    signatures = make_signatures(network, call, has_webp=has_webp, **options)
    concrete = {key: function.get_concrete_function() for key, function in signatures.items()}
    save = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures=concrete, options=save)
    graph_weights.fill(folder / "saved_model.pb", variables)
    # It is of the file without weights. Nothing needs it; TensorFlow before 2.12 wrote none.
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    labels.unlink()  # the SavedModel has its own copy in assets/
    runtime = runtime_of(folder)
    write_origin(folder, network.description, runtime, has_webp=has_webp)
    return runtime


def _check_size(network: Network) -> None:
    size = sum(
        int(np.prod(variable.shape)) * (2 if variable.dtype == "bfloat16" else 4)
        for variable in network.model.variables
    )
    if size > MAX_GRAPH_BYTES:
        raise UserError(
            f"{network.model.name} has {size:,} bytes of weights; a graph with constants holds "
            f"less than {MAX_GRAPH_BYTES:,}"
        )


def _warmup_records(network: Network, name: str) -> list[bytes]:
    """A request for every signature and batch size that a server will see."""
    side = round(network.preprocessing.image_size * 1.25)
    image = sample_images.smooth_images(1, side)[0]
    encoded = tf.io.encode_jpeg(image, quality=80).numpy()
    # What decodes the other formats is prepared when the first such file comes, too.
    single = np.array([tf.io.encode_png(image).numpy()], object)
    shape = [size or network.preprocessing.image_size for size in network.image_shape]
    records = [
        warmup.encode_request(name, signature, {"image_bytes": single})
        for signature in ("serving_default", "features")
    ]
    for size in BATCH_SIZES:
        files = np.empty(size, object)
        files[:] = [encoded] * size
        pixels = np.full([size, *shape], 128)
        for signature, inputs in (
            ("serving_default", {"image_bytes": files}),
            ("predict_images", {"images": pixels.astype(np.float32)}),
            ("predict_images_uint8", {"images": pixels.astype(np.uint8)}),
            ("features", {"image_bytes": files}),
        ):
            records.append(warmup.encode_request(name, signature, inputs))
    return records
