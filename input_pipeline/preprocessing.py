"""The one evaluation preprocessing, and normalization.

What the model expects is a `keras_resnet.preprocessing.Preprocessing`, which travels with the
weights; a dict of its fields will do. `evaluation_image` serves evaluation, prediction and the
exported signature alike.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.decoding import decode_window, is_jpeg, whole_image
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.formats import exif, jpeg
from keras_resnet.input_pipeline.operations import not_inlined
from keras_resnet.input_pipeline.resampling import LARGE, RADIUS, resize_window
from keras_resnet.preprocessing import MAX_PIXELS, Preprocessing, PreprocessingError

# Pixels of a JPEG decoded around what the kernel reaches: at the very edge colors differ.
_MARGIN = 2
CHANNELS = 3


def check_preprocessing(preprocessing: Mapping[str, Any]) -> Preprocessing:
    """`preprocessing` as a value that is known to be usable for RGB images.

    Raises:
        DataError: a key is missing or unknown, or a value is out of its range.
    """
    try:
        checked = Preprocessing.from_dict(preprocessing)
    except PreprocessingError as error:
        raise DataError(str(error)) from error
    for key in ("mean", "std"):
        if len(checked[key]) != CHANNELS:
            raise DataError(f"{key} is {checked[key]!r}; it must hold one number per channel (3).")
    return checked


def resize_and_center_crop(
    encoded: tf.Tensor,
    *,
    image_size: int,
    crop_ratio: float = 1.0,
    interpolation: str = "bilinear",
    resize: str = "round",
    upright: bool = False,
    max_pixels: int = MAX_PIXELS,
    scaled_decoding: str = "never",
    of_cache: bool = False,
    has_webp: bool = True,
) -> tf.Tensor:
    """Resizes to image_size / crop_ratio, then takes the central square of image_size.

    Of a JPEG only what the square needs is decoded, which changes nothing in it, and perhaps at a
    part of its size. Of a large image of another format only that is resized.

    Args:
        encoded: scalar string, the bytes of an image file.
        image_size, crop_ratio, interpolation, resize, max_pixels, scaled_decoding: see
            `Preprocessing`.
        upright: whether the image is turned as its EXIF says.
        of_cache, has_webp: see `decode_window`.

    Returns:
        uint8[image_size, image_size, 3].
    """

    def place(whole):
        return _place(whole, image_size, crop_ratio, resize)

    def needed(size):
        resized, top_left = place(size)
        scale = tf.cast(resized, tf.float32) / tf.cast(size, tf.float32)
        reach = RADIUS[interpolation] * tf.maximum(1 / scale, 1) + _MARGIN
        corner = tf.cast(top_left, tf.float32)
        first = tf.cast(tf.math.floor(corner / scale - reach), tf.int32)
        last = tf.cast(tf.math.ceil((corner + image_size) / scale + reach), tf.int32)
        first, last = tf.maximum(first, 0), tf.minimum(last, size)
        return tf.concat([first, last - first], 0)

    def needed_if_large(size):
        # In a part places are sums of other numbers, which round in another way in float32.
        height, width = tf.unstack(tf.cast(size, tf.float32))
        is_small = tf.maximum(height, image_size) * tf.maximum(width, image_size) <= LARGE
        return tf.cond(is_small, lambda: whole_image(size), lambda: needed(size))

    def shrinks(size, _):
        return tf.reduce_min(tf.cast(size, tf.float32) / tf.cast(place(size)[0], tf.float32))

    image, origin, ratio, whole = decode_window(
        encoded, needed, needed_if_large,
        shrinks=shrinks, scaled_decoding=scaled_decoding, margin=_MARGIN, upright=upright,
        max_pixels=max_pixels, of_cache=of_cache, has_webp=has_webp,
    )  # fmt: skip
    resized, top_left = place(whole)
    return resize_window(
        image, resized=resized, top_left=top_left, size=image_size,
        interpolation=interpolation, whole=whole, origin=origin, ratio=ratio,
    )  # fmt: skip


def map_files(
    function: Callable,
    rows: Any,
    *,
    image_size: int,
    keeps_fitting: bool = False,
    upright: bool = False,
) -> tf.Tensor:
    """`function` of each row, in a loop inside the graph.

    Args:
        function: from a row to uint8[image_size, image_size, 3].
        rows: string[n], the bytes of image files, or a tuple that begins with them.
        keeps_fitting: whether `function` only decodes a JPEG that has the right size already. Of
            small images the number of operations counts: 32×32 pixels take half the time so.
        upright: whether `function` turns images as their EXIF says.

    Returns:
        uint8[n, image_size, image_size, 3].
    """
    result = tf.TensorSpec([image_size, image_size, 3], tf.uint8)
    if not keeps_fitting:
        return tf.map_fn(function, rows, fn_output_signature=result)
    function = not_inlined(function)
    most_bytes = 4096 + 2 * image_size**2

    def from_jpeg(row):
        file = tf.nest.flatten(row)[0]
        fits = tf.reduce_all(tf.image.extract_jpeg_shape(file)[:2] == image_size)
        # A longer file may hold many scans, which `function` counts.
        fits &= tf.strings.length(file) <= most_bytes
        if upright:
            fits &= exif.orientation(file) == 1
        image = tf.cond(fits, lambda: jpeg.decode(file), lambda: function(row))
        return tf.ensure_shape(image, result.shape)

    return tf.cond(
        tf.reduce_all(is_jpeg(tf.nest.flatten(rows)[0])),
        lambda: tf.map_fn(from_jpeg, rows, fn_output_signature=result),
        lambda: tf.map_fn(function, rows, fn_output_signature=result),
    )


def resized_side(preprocessing: Mapping[str, Any]) -> int:
    """Pixels that the short side of an image is resized to in evaluation."""
    checked = check_preprocessing(preprocessing)
    return _side(checked.image_size, checked.crop_ratio, checked.resize)


def _side(size: int, crop_ratio: float, rule: str) -> int:
    return (round if rule == "round" else math.floor)(size / crop_ratio)


def _place(
    whole: tf.Tensor, size: int, crop_ratio: float, rule: str
) -> tuple[tf.Tensor, tf.Tensor]:
    # int32[2] each: the sides of the resized image, and the corner of its central square.
    side = _side(size, crop_ratio, rule)
    if rule == "plain":
        resized = tf.fill([2], side)
    else:  # The long side is cut to a whole pixel by all. In int64: the product may exceed int32.
        wide = tf.cast(whole, tf.int64)
        resized = tf.cast(side * wide // tf.reduce_min(wide), tf.int32)
    spare = resized - size
    if rule == "shortest_edge":
        return resized, spare // 2
    return resized, tf.cast(tf.round(spare / 2), tf.int32)  # half to even, as torchvision and timm


def evaluation_image(
    encoded: tf.Tensor,
    preprocessing: Mapping[str, Any],
    *,
    of_cache: bool = False,
    has_webp: bool = True,
) -> tf.Tensor:
    """What the model sees of an image file outside training. Works inside a graph.

    The short side is resized to image_size / crop_ratio by the rule `resize` with the named
    interpolation, and the central square is cropped. An image that has the right size already
    (and a crop_ratio of 1) passes unchanged. Before all that it is turned as its EXIF says, where
    `exif` is "apply".

    Args:
        encoded: scalar string, the bytes of the file.
        preprocessing: what the model expects.
        of_cache, has_webp: see `decode_window`.

    Returns:
        uint8[image_size, image_size, 3], RGB whatever the channel order of the model.

    Raises:
        DataError: `preprocessing` is not valid.
    """
    checked = check_preprocessing(preprocessing)
    return resize_and_center_crop(
        encoded,
        image_size=checked.image_size,
        crop_ratio=checked.crop_ratio,
        interpolation=checked.interpolation,
        resize=checked.resize,
        upright=checked.exif == "apply",
        max_pixels=checked.max_pixels,
        scaled_decoding=checked.scaled_decoding,
        of_cache=of_cache,
        has_webp=has_webp,
    )


def normalize(
    images: tf.Tensor, preprocessing: Mapping[str, Any], dtype: str = "float32"
) -> tf.Tensor:
    """(pixel / 255 - mean) / std, as one multiplication and one addition in float32.

    Args:
        images: uint8 or float [..., 3], RGB, values 0..255.
        preprocessing: `mean` and `std` are for pixels scaled to 0..1, in the order of the
            channels that the model takes (so blue first where `channel_order` is "bgr").
        dtype: of the result.

    Returns:
        [..., 3] of `dtype`, channels in `channel_order`.

    Raises:
        DataError: `preprocessing` is not valid.
    """
    checked = check_preprocessing(preprocessing)
    mean, std = np.asarray(checked.mean), np.asarray(checked.std)
    images = tf.cast(images, tf.float32)
    if checked.channel_order == "bgr":
        images = tf.reverse(images, [-1])
    scaled = images * np.float32(1 / (255 * std)) + np.float32(-mean / std)
    return tf.cast(scaled, dtype)
