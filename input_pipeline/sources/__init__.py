"""Where images come from. One module per source; each gives a `Source` for one split."""

import importlib
from typing import Any

from keras_resnet.input_pipeline.corrupt_images import SkippedImages
from keras_resnet.input_pipeline.errors import DataError, unknown_name
from keras_resnet.input_pipeline.sources import caching
from keras_resnet.input_pipeline.sources.base import RandomAccessSource, Source

# Name -> module with `open_split(name, path, split, **options) -> Source`, imported when it is
# asked for, and the options it takes.
SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "image_folder": ("keras_resnet.input_pipeline.sources.image_folder", ()),
    "synthetic": ("keras_resnet.input_pipeline.sources.synthetic", ()),
    "tfds": ("keras_resnet.input_pipeline.sources.tfds", ()),
    "tfrecord": ("keras_resnet.input_pipeline.sources.tfrecord", ("label_offset", "class_names")),
}
ON_ERROR = ("stop", "skip")

__all__ = ["SOURCES", "RandomAccessSource", "Source", "open_source"]


def open_source(
    source: str,
    *,
    name: str = "",
    path: str = "",
    split: str,
    label_offset: int = 0,
    class_names: str = "",
    cache: str = "auto",
    cache_path: str = "",
    on_error: str = "stop",
    max_broken_share: float = 0.01,
) -> Source:
    """Opens one split of a data set.

    Args:
        source: a name in SOURCES.
        name: for "tfds" the data set, as in `digits` or `imagenet2012:5.1.0`; for "synthetic" the
            data set whose sizes are imitated; unused otherwise.
        path: for "image_folder" and "tfrecord" the folder; for "tfds" its data_dir, "" for the
            default one.
        split: as TFDS writes it, e.g. "train", "train[:80%]", "train[80%:]".
        label_offset: for "tfrecord", the stored label that is class 0.
        class_names: for "tfrecord", a text file with one name a line; "" numbers the classes.
        cache: "auto", "none", "memory" or "file", see `caching.cached`.
        cache_path: the folder for the prepared files of cache="file".
        on_error: "stop" at a corrupt image, or "skip" it (see `batching`).
        max_broken_share: with "skip", the share of the examples that may be corrupt.

    Raises:
        DataError: the source, data set, folder or split does not exist or cannot be used, an
            option is not valid or does not belong to the source, or the cache does not fit.
    """
    if source not in SOURCES:
        raise unknown_name("data source", source, SOURCES)
    if on_error not in ON_ERROR:
        raise unknown_name("on_error", on_error, ON_ERROR)
    module, taken = SOURCES[source]
    options = _options(source, taken, {"label_offset": label_offset, "class_names": class_names})
    opened = importlib.import_module(module).open_split(
        name=name, path=path, split=split, **options
    )
    opened = caching.cached(opened, cache, cache_path)
    if on_error == "skip":
        opened.skipped = SkippedImages(opened.num_examples, max_broken_share)
    return opened


def _options(source: str, taken: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    for key, value in options.items():
        if value and key not in taken:
            owners = ", ".join(name for name, (_, keys) in SOURCES.items() if key in keys)
            raise DataError(f"{key} is {value!r}, which the source {source} does not take; "
                            f"it is for {owners}.")  # fmt: skip
    return {key: options[key] for key in taken}
