"""Where images come from. One module per source; each gives a `Source` for one split."""

import importlib

from input_pipeline.errors import unknown_name
from input_pipeline.sources.base import RandomAccessSource, Source

# Name -> module with `open_split(name, path, split) -> Source`, imported when it is asked for.
SOURCES = {
    "image_folder": "input_pipeline.sources.image_folder",
    "tfds": "input_pipeline.sources.tfds",
}

__all__ = ["SOURCES", "RandomAccessSource", "Source", "open_source"]


def open_source(source: str, *, name: str = "", path: str = "", split: str) -> Source:
    """Opens one split of a data set.

    Args:
        source: "tfds" or "image_folder".
        name: for "tfds" the data set, as in `digits` or `imagenet2012:5.1.0`; unused otherwise.
        path: for "image_folder" the folder; for "tfds" its data_dir, "" for the default one.
        split: as TFDS writes it, e.g. "train", "train[:80%]", "train[80%:]".

    Raises:
        DataError: the source, data set, folder or split does not exist or cannot be used.
    """
    if source not in SOURCES:
        raise unknown_name("data source", source, SOURCES)
    module = importlib.import_module(SOURCES[source])
    return module.open_split(name=name, path=path, split=split)
