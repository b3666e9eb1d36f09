"""Files beside the versions of a model that start a server on it and ask it something.

They lie in the folder `serving_files`, with names between @ where an export fills something in.
"""

import os
from pathlib import Path

from keras_resnet.export.runtime import Version
from keras_resnet.storage import (
    as_path,
    explain_bucket_errors,
    in_bucket,
    make_executable,
    write_text,
)

FOLDER = "serving_config"
# What a server pads batches to, and what the warm-up records hold.
BATCH_SIZES = (1, 2, 4, 8, 16)

# Images of TF Serving by the TensorFlow in them, the one that exports are checked with first; the
# newest is for what needs it.
_IMAGES: dict[Version, str] = {(2, 19): "2.19.1", (2, 20): "2.20.0"}

_FILES = Path(__file__).parent / "serving_files"
# What docker.sh hands to the container: the versions beside it, or a key for those in a bucket.
_LOCAL = '-v "${here%/*}:/models/@NAME@:ro"'
_BUCKET = (
    "${GOOGLE_APPLICATION_CREDENTIALS:+-e GOOGLE_APPLICATION_CREDENTIALS=/key.json "
    '-v "$GOOGLE_APPLICATION_CREDENTIALS:/key.json:ro"}'
)


def write_serving_config(folder: str | os.PathLike, name: str, needs: Version) -> Path:
    """Writes what starts a server (docker.sh, Dockerfile and what they read), and two clients.

    Args:
        folder: holds the versions; may be in a bucket.
        name: what clients call the model.
        needs: the oldest TensorFlow that runs it.

    Returns:
        The folder of the files, `folder/serving_config`.

    Raises:
        UserError: the bucket cannot be written.
    """
    target = as_path(folder) / FOLDER
    bucket = in_bucket(folder)
    with explain_bucket_errors(target):
        target.mkdir(exist_ok=True)
    values = {
        "VERSIONS": _BUCKET if bucket else _LOCAL,
        "NAME": name,
        "BASE": os.fspath(folder) if bucket else f"/models/{name}",
        "IMAGE": next((tag for has, tag in _IMAGES.items() if has >= needs), "latest"),
        "BATCH": str(BATCH_SIZES[-1]),
        "SIZES": "\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES),
    }
    # pip compiles what ends with .py, into a folder beside it.
    for template in sorted(file for file in _FILES.iterdir() if file.is_file()):
        text = template.read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        file = target / template.name
        write_text(file, text)
        if file.suffix == ".sh" and not bucket:
            make_executable(file)
    return target
