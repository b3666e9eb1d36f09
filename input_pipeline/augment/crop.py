"""Random resized crop, crop with padding and flip."""

import math

import tensorflow as tf

from keras_resnet.input_pipeline.decoding import decode_window
from keras_resnet.input_pipeline.resampling import LARGE
from keras_resnet.preprocessing import MAX_PIXELS

_CROP_AREA = (0.08, 1.0)
_CROP_ASPECT = (3 / 4, 4 / 3)


def crop_and_flip(
    images: tf.Tensor, *, padding: int, crop: tf.Tensor | None, flip: tf.Tensor | None
) -> tf.Tensor:
    """Pads with black, crops back to the old size at a random place, and mirrors half of them.

    He et al. 2015 (Deep Residual Learning), section 4.2: 4 pixels padded on each side, a random
    crop of the padded image or its horizontal flip. To crop, the pixels of the whole batch are
    gathered at once, the flip folded into the column numbers.

    Args:
        images: uint8[n, h, w, 3].
        padding: pixels of zeros added on each side.
        crop: float32[n, 2] in [0, 1), places of row and column; None for no crop.
        flip: float32[n, 1] in [0, 1), mirrored below 0.5; None for no flip.

    Returns:
        uint8[n, h, w, 3].
    """
    height, width = images.shape[1:3]
    if crop is None:
        if flip is None:
            return images
        # This old form of select takes whole images; where() with a broadcast is slower (measured).
        mirrored = tf.reshape(_mirror(tf.reshape(images, [-1, width, 3])), tf.shape(images))
        return tf.raw_ops.Select(condition=flip[:, 0] < 0.5, x=mirrored, y=images)
    columns = tf.range(width)[None]
    if flip is not None:
        columns = tf.where(flip < 0.5, width - 1 - columns, columns)
    images = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    offsets = tf.cast(crop * (2 * padding + 1), tf.int32)
    padded_height, padded_width = height + 2 * padding, width + 2 * padding
    # One gather over the pixels of all images, in three quarters of the time of one for each axis.
    first = tf.range(tf.shape(images)[0])[:, None] * padded_height
    rows = (first + offsets[:, :1] + tf.range(height)) * padded_width
    pixels = rows[:, :, None] + (columns + offsets[:, 1:])[:, None, :]
    return tf.gather(tf.reshape(images, [-1, 3]), pixels)


def flip_one(image: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """uint8[h, w, 3], mirrored if flip, float32[1] in [0, 1), is below 0.5.

    Only the images that are mirrored cost anything.
    """
    return tf.cond(flip[0] < 0.5, lambda: _mirror(image), lambda: image)


def _mirror(rows: tf.Tensor) -> tf.Tensor:
    # Of [h, w, 3], and of no other rank, TensorFlow reverses pixel by pixel: 5 times as fast.
    return tf.reverse(rows, [1])


def random_resized_crop(
    encoded: tf.Tensor,
    numbers: tf.Tensor,
    size: int,
    upright: bool = False,
    max_pixels: int = MAX_PIXELS,
    scaled_decoding: str = "never",
    of_cache: bool = False,
) -> tf.Tensor:
    """A random part of the image, resized to uint8[size, size, 3].

    The Inception crop (Szegedy et al. 2015, Going Deeper with Convolutions, section 6): 8 % to
    100 % of the area, aspect ratio 3/4 to 4/3, its logarithm uniform as in torchvision. Of a
    JPEG only the crop is decoded. The resize is plain bilinear: antialiasing as in evaluation
    takes more time than decoding does (measured on ImageNet photos, 224 pixels).

    Args:
        encoded: scalar string.
        numbers: float32[2 n + 2] in [0, 1), see `crop_window`.
        upright: whether the image is turned as its EXIF says.
        max_pixels: see `formats.limits`.
        scaled_decoding: see `Preprocessing`; the part is the same, to the nearest pixel.
        of_cache: see `decode_window`.
    """

    def window(whole):
        return crop_window(whole[0], whole[1], numbers)

    def shrinks(_, window):
        return tf.cast(tf.reduce_min(window[2:]), tf.float32) / size

    crop, *_ = decode_window(
        encoded, window, window,
        shrinks=shrinks, scaled_decoding=scaled_decoding, upright=upright, max_pixels=max_pixels,
        of_cache=of_cache,
    )  # fmt: skip

    def resized(pixels):
        return tf.raw_ops.ResizeBilinear(
            images=pixels[None], size=[size, size], half_pixel_centers=True
        )[0]

    # 1.7 times as fast as from uint8, the cast included (measured); but in 5 times the memory.
    image = tf.cond(
        tf.size(crop) > 3 * LARGE,
        lambda: resized(crop),
        lambda: resized(tf.cast(crop, tf.float32)),
    )
    return tf.cast(image + 0.5, tf.uint8)


def crop_window(height: tf.Tensor, width: tf.Tensor, numbers: tf.Tensor) -> tf.Tensor:
    """int32[4] top, left, height, width of the Inception crop: the first of n tries that fits.

    If none fits, the largest central window of an allowed aspect ratio, as torchvision does.

    Args:
        height, width: int32, pixels of the image.
        numbers: float32[2 n + 2] in [0, 1): n areas and n aspects, one of each for a try, and row
            and column of the place. Ten tries, as in torchvision, take 22.
    """
    attempts = (numbers.shape[0] - 2) // 2
    # Height and width travel together: of small operations the number counts, not the work.
    sides = tf.stack([height, width])
    limits = tf.cast(sides, tf.float32)
    smallest, largest = _CROP_AREA
    areas = smallest + (largest - smallest) * numbers[:attempts]
    low, high = (math.log(aspect) / 2 for aspect in _CROP_ASPECT)
    roots = tf.exp(low + (high - low) * numbers[attempts : 2 * attempts])
    squares = tf.sqrt(tf.reduce_prod(limits) * areas)
    narrow, wide = _CROP_ASPECT
    # The fallback stands at the end of the row and always fits.
    fallback = tf.minimum(limits, tf.round(limits[::-1] * [1 / narrow, wide]))
    tries = tf.round(tf.stack([squares / roots, squares * roots], axis=1))
    tries = tf.concat([tries, tf.maximum(fallback, 1.0)[None]], 0)
    chosen = tf.argmax(tf.reduce_all((tries >= 1) & (tries <= limits), axis=1))
    crop = tf.cast(tries[chosen], tf.int32)
    spare = sides - crop
    places = numbers[2 * attempts :] * tf.cast(spare + 1, tf.float32)
    anywhere = tf.minimum(tf.cast(places, tf.int32), spare)
    top_left = tf.where(chosen == attempts, spare // 2, anywhere)
    return tf.concat([top_left, crop], 0)
