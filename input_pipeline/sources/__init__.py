"""Where images come from: `open_source` gives a `base.Source` for one split of a data set.

A source is a module with a `SourceKind`: its name, its own settings and how a split is opened. A
new one is such a module, and its name in `SOURCES`. What is named here loads no TensorFlow until a
split is opened.

    image_folder, synthetic, tfds, tfrecord   the sources
    image_files, noise, prepared_sets, record_files, record_index   how they read
    base       what the rest of the pipeline needs to know of a data set
    caching    encoded images in memory, or packed into one file
"""

from typing import TYPE_CHECKING, Any

from keras_resnet.input_pipeline.errors import DataError, unknown_name
from keras_resnet.input_pipeline.settings import Setting, is_count, is_share
from keras_resnet.input_pipeline.sources import image_folder, synthetic, tfds, tfrecord
from keras_resnet.input_pipeline.sources.kind import SourceKind
from keras_resnet.preprocessing import EXIF, MAX_PIXELS, SCALED_DECODING

if TYPE_CHECKING:
    from keras_resnet.input_pipeline.sources.base import Source

SOURCES: dict[str, SourceKind] = {
    kind.name: kind
    for kind in (tfds.SOURCE, image_folder.SOURCE, tfrecord.SOURCE, synthetic.SOURCE)
}
# What `open_source` takes beside the split, in the order of configurations: each is a key of
# `data`, with its default there.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="source",
        default="tfds",
        help="Where the images come from: "
        + "; ".join(f"{kind.name}: {kind.help}" for kind in SOURCES.values())
        + ".",
        choices=tuple(SOURCES),
    ),
    Setting(
        name="name",
        default="digits",
        help="The data set in TFDS, or the one whose sizes synthetic imitates.",
    ),
    Setting(
        name="path",
        default="",
        help="The folder of the data, for image_folder also a table of paths and labels; for tfds "
        "its data_dir, or '' for its own default.",
    ),
    *(setting for kind in SOURCES.values() for setting in kind.settings),
    Setting(
        name="cache",
        default="auto",
        help="Where images are kept: none, memory, file (packed, on a local disk), decoded (large "
        "JPEGs as pixels at a part of their size), or auto: memory for record formats of up to "
        "1 GiB.",
        choices=("auto", "none", "memory", "file", "decoded"),
    ),
    Setting(
        name="cache_path",
        default="",
        help="The folder on a local disk for the packed files of cache=file and decoded; '' keeps "
        "those of decoded in the work directory until the run ends.",
    ),
    Setting(
        name="on_error",
        default="stop",
        help="Whether to stop at an image that cannot be read, or to skip it and go on.",
        choices=("stop", "skip"),
    ),
    Setting(
        name="max_broken_share",
        default=0.01,
        help="The share of a split that on_error=skip may skip before it stops as well.",
        accepts=is_share,
        accepted="in 0..1",
    ),
    Setting(
        name="exif",
        default="auto",
        help="Whether photos are turned as their EXIF says: apply, ignore, or auto: apply for "
        "image_folder.",
        choices=("auto", *EXIF),
    ),
    Setting(
        name="max_pixels",
        default=MAX_PIXELS,
        help="How many pixels an image may claim to have; slow kinds of files count them several "
        "times (docs/data.md).",
        accepts=lambda value: is_count(value) and 0 < value < 2**31,
        accepted="a whole number from 1 to 2,147,483,647",
    ),
    Setting(
        name="scaled_decoding",
        default="auto",
        help="Whether JPEGs are decoded at 1/2, 1/4 or 1/8 of their sides: never, or auto: where "
        "that leaves twice the sides wanted.",
        choices=SCALED_DECODING,
    ),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}

__all__ = ["SETTINGS", "SOURCES", "SourceKind", "exif_of", "open_source"]


def exif_of(source: str, exif: str) -> str:
    """What `exif`, one of apply, ignore and auto, means for the source of this name."""
    return SOURCES[source].exif if exif == "auto" else exif


def open_source(
    source: str,
    *,
    name: str = "",
    path: str = "",
    split: str,
    cache: str = "auto",
    cache_path: str = "",
    on_error: str = "stop",
    max_broken_share: float = 0.01,
    exif: str = "auto",
    max_pixels: int = MAX_PIXELS,
    scaled_decoding: str = "auto",
    decoded_side: int = 0,
    **options: Any,
) -> "Source":
    """Opens one split of a data set.

    Args:
        source: a name in SOURCES.
        name: for "tfds" the data set, as in `digits` or `imagenet2012:5.1.0`; for "synthetic" the
            data set whose sizes are imitated; unused otherwise.
        path: for "image_folder" the folder or the table, for "tfrecord" the folder; for "tfds" its
            data_dir, "" for the default one.
        split: as TFDS writes it, e.g. "train", "train[:80%]", "train[80%:]".
        cache: "auto", "none", "memory" or "file", see `caching.cached`; or "decoded".
        cache_path: the folder for the prepared files of cache="file" and "decoded".
        on_error: "stop" at a corrupt image, or "skip" it (see `batching`).
        max_broken_share: with "skip", the share of the examples that may be corrupt.
        exif: "apply" or "ignore" EXIF's orientation in training, or "auto": see `SourceKind`.
        max_pixels: how many pixels an image may claim to have, see `formats.limits`.
        scaled_decoding: whether training decodes large JPEGs at a part of their size, "auto" or
            "never", see `Preprocessing`.
        decoded_side: what cache="decoded" is for, see `decoded.Decoded`: the pixels that the short
            side is resized to. With 0, as where images are only looked at, it keeps nothing, and
            the pictures of evaluation are the same.
        **options: settings of the source's own: `label_offset` and `class_names` of "tfrecord".
            Those of other sources may be given with the value that means nothing.

    Raises:
        DataError: the source, data set, folder or split does not exist or cannot be used, an
            option is not valid or does not belong to the source, or the cache does not fit.
    """
    if source not in SOURCES:
        raise unknown_name("data source", source, SOURCES)
    _BY_NAME["on_error"].check(on_error)
    _BY_NAME["cache"].check(cache)
    _BY_NAME["exif"].check(exif)
    _BY_NAME["max_pixels"].check(max_pixels)
    _BY_NAME["scaled_decoding"].check(scaled_decoding)
    kind = SOURCES[source]
    options = _own_options(kind, options)
    from keras_resnet.input_pipeline.corrupt_images import SkippedImages

    if cache == "decoded" and scaled_decoding == "never":
        raise DataError(
            "cache='decoded' keeps JPEGs at a part of their size, which scaled_decoding='never' "
            "rules out. Set data.scaled_decoding to auto, or data.cache to none."
        )
    split_of_kind = kind.open_split(name=name, path=path, split=split, **options)
    opened = _cached(split_of_kind, cache, cache_path, decoded_side)
    opened.layout = split_of_kind.layout
    opened.upright, opened.max_pixels = exif_of(source, exif) == "apply", max_pixels
    opened.scaled_decoding = scaled_decoding
    if on_error == "skip":
        _BY_NAME["max_broken_share"].check(max_broken_share)
        opened.skipped = SkippedImages(opened.num_examples, max_broken_share)
    return opened


def _cached(source: "Source", cache: str, cache_path: str, decoded_side: int) -> "Source":
    if cache == "decoded" and decoded_side and not source.is_synthetic:
        from keras_resnet.input_pipeline.sources.decoded import Decoded

        return Decoded(source, decoded_side, cache_path)
    from keras_resnet.input_pipeline.sources import caching

    return caching.cached(source, cache, cache_path)


def _own_options(kind: SourceKind, options: dict[str, Any]) -> dict[str, Any]:
    """The settings of the source itself, each as given or its default."""
    owners = {setting.name: other for other in SOURCES.values() for setting in other.settings}
    for key, value in options.items():
        if key not in owners:
            raise unknown_name("option of open_source", key, owners)
        owner = owners[key]
        default = next(setting.default for setting in owner.settings if setting.name == key)
        if owner is not kind and value != default:
            raise DataError(
                f"{key} is {value!r}, which the source {kind.name} does not take; "
                f"it is for {owner.name}."
            )
    own = {setting.name: options.get(setting.name, setting.default) for setting in kind.settings}
    for setting in kind.settings:
        setting.check(own[setting.name])
    return own
