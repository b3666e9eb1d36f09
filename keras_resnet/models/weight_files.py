"""What files of weights alone (`.weights.h5`) say of their network, beside its arrays."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SUFFIX = ".weights.h5"
# Of what a model's configuration holds. Its arrays tell no strides, padding or epsilon.
DESCRIBED = ("name", "architecture", "preprocessing", "class_names")
# A dataset of bytes, which Keras passes over; an attribute could not hold 21,843 class names.
STORED_DESCRIPTION = "keras_resnet"


def describe_in(path: str | os.PathLike, config: Mapping[str, Any]) -> None:
    """Writes into a local file that Keras just wrote which network its weights are of.

    Args:
        path: what `Model.save_weights` was given; nothing happens where that made another kind of
            file, or one in a bucket.
        config: of the model.
    """
    file = Path(path)
    if not file.name.endswith(SUFFIX) or not file.is_file():
        return
    described = {key: config[key] for key in DESCRIBED if config.get(key) is not None}
    content = np.frombuffer(json.dumps(described).encode(), np.uint8)
    with h5py.File(file, "a") as opened:
        opened.create_dataset(STORED_DESCRIPTION, data=content)
