"""What files of weights alone (`.weights.h5`) say of their network, beside its arrays."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SUFFIX = ".weights.h5"
# Of what a model's configuration holds. Its arrays tell no strides, padding or epsilon.
DESCRIBED = ("name", "architecture", "preprocessing", "class_names")
# A dataset of bytes, which Keras passes over; an attribute could not hold 21,843 class names.
STORED_DESCRIPTION = "keras_resnet"


@contextlib.contextmanager
def describing(path: str | os.PathLike, config: Mapping[str, Any]) -> Iterator[None]:
    """Adds to the local file that Keras writes meanwhile which network its weights are of.

    Args:
        path: what `Model.save_weights` is given; nothing happens where that makes another kind of
            file or one in a bucket, or where somebody is asked and keeps the file that is there.
        config: of the model.
    """
    file = Path(path)
    before = _written_at(file)
    yield
    if not file.name.endswith(SUFFIX) or _written_at(file) == before:
        return
    described = {key: config[key] for key in DESCRIBED if config.get(key) is not None}
    content = np.frombuffer(json.dumps(described).encode(), np.uint8)
    with h5py.File(file, "a") as opened:
        opened.create_dataset(STORED_DESCRIPTION, data=content)


def _written_at(file: Path) -> int | None:
    return file.stat().st_mtime_ns if file.is_file() else None
