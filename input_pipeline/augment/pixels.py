"""Operations on the pixels of one image, equal to PIL's (ImageOps, ImageEnhance) to the bit.

Images are uint8[h, w, 3] of static shape; `argument` is a float32 scalar. Operations are written
for a CPU core: broadcasts over the three channels and `tf.where` are slow there (measured), so
gray values come from a matrix product and masks from arithmetic.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

_FLOAT = tf.float32


def identity(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """The image as it is."""
    del argument
    return image


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    # PIL's Image.blend: in float32, cut off at 0 and 255 and then to the integer below.
    blended = degenerate + factor * (tf.cast(image, _FLOAT) - degenerate)
    return tf.cast(tf.clip_by_value(blended, 0.0, 255.0), tf.uint8)


def _gray(image: tf.Tensor) -> tf.Tensor:
    # PIL's convert("L"), repeated over the channels: ITU-R 601-2 luma in units of 2^-16. Every
    # partial sum is an integer below 2^24, so float32 is exact.
    weights = np.repeat(np.array([[19595], [38470], [7471]], np.float32), 3, axis=1)
    flat = tf.reshape(tf.cast(image, _FLOAT), [-1, 3])
    luma = tf.floor((tf.linalg.matmul(flat, weights) + 32768.0) * 2.0**-16)
    return tf.reshape(luma, image.shape)


def brightness(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Blends with black: 0 gives black, 1 the image (ImageEnhance.Brightness)."""
    return tf.cast(tf.minimum(tf.cast(image, _FLOAT) * argument, 255.0), tf.uint8)


def color(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Blends with the gray image: 0 gives gray, 1 the image (ImageEnhance.Color)."""
    return _blend(_gray(image), image, argument)


def contrast(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Blends with the mean gray value, rounded: 0 gives that, 1 the image (Contrast)."""
    # Each row's sum is exact in float32; the sum of rows may not be, hence float64.
    rows = tf.cast(tf.reduce_sum(_gray(image)[..., 0], axis=1), tf.float64)
    mean = tf.floor(tf.reduce_sum(rows) / (image.shape[0] * image.shape[1]) + 0.5)
    return _blend(tf.cast(mean, _FLOAT), image, argument)


def sharpness(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Blends with the smoothed image: 0 gives that, 1 the image (ImageEnhance.Sharpness).

    Smoothed is PIL's ImageFilter.SMOOTH: weights 1 around 5, over 13; the outermost pixels stay.
    """
    height, width, _ = image.shape
    if min(height, width) < 3:
        return image
    pixels = tf.cast(image, _FLOAT)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    inner = pixels[1:-1, 1:-1]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4.0 * inner
    smooth = tf.floor(total / 13.0 + 0.5)
    edge = np.ones(image.shape, np.uint8)
    edge[1:-1, 1:-1] = 0
    return tf.pad(_blend(smooth, inner, argument), [[1, 1], [1, 1], [0, 0]]) + image * edge


def posterize(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Keeps the upper `argument` bits, 0..8."""
    mask = 256 - tf.bitwise.left_shift(1, 8 - tf.cast(argument, tf.int32))
    return tf.bitwise.bitwise_and(image, tf.cast(mask, tf.uint8))


def _mask(condition: tf.Tensor) -> tf.Tensor:
    return tf.cast(condition, tf.uint8)


def solarize(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Inverts the values from `argument` (0..256) on."""
    # 255 - x is x with every bit flipped.
    return tf.bitwise.bitwise_xor(image, _mask(tf.cast(image, _FLOAT) >= argument) * 255)


def solarize_add(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Adds `argument`, a whole number up to 128, to the values below 128 (timm)."""
    return image + _mask(image < 128) * tf.cast(argument, tf.uint8)


def invert(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """255 - value."""
    del argument
    return 255 - image


def autocontrast(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to 0..255 (ImageOps.autocontrast)."""
    del argument
    low, high = (_over_pixels(reduce, image) for reduce in (tf.reduce_min, tf.reduce_max))
    values = np.arange(256, dtype=np.float64)
    # In PIL's order of operations: the result is cut off, so the last bit of a float counts.
    scale = 255.0 / tf.maximum(high - low, 1.0)
    stretched = values[None] * scale[:, None] + (-low * scale)[:, None]
    table = tf.where((high > low)[:, None], tf.clip_by_value(stretched, 0.0, 255.0), values[None])
    return _look_up(image, table)


def _over_pixels(reduce: Callable[..., tf.Tensor], image: tf.Tensor) -> tf.Tensor:
    # float64[3]. Over whole rows first: long lines of numbers are reduced many at a time.
    height, width, _ = image.shape
    columns = reduce(tf.reshape(image, [height, 3 * width]), axis=0)
    return tf.cast(reduce(tf.reshape(columns, [width, 3]), axis=0), tf.float64)


def equalize(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Spreads each channel's values evenly over 0..255 (ImageOps.equalize)."""
    del argument
    counts = tf.raw_ops.DenseBincount(
        input=tf.reshape(_channel_values(image), [-1]), size=768, weights=tf.zeros([0], tf.int32)
    )
    counts = tf.reshape(counts, [3, 256])
    values = tf.range(256)
    last = tf.reduce_max(tf.where(counts > 0, values, 0), axis=1)
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, last, axis=1, batch_dims=1)) // 255
    step = step[:, None]
    spread = (step // 2 + tf.cumsum(counts, axis=1, exclusive=True)) // tf.maximum(step, 1)
    return _look_up(image, tf.where(step > 0, tf.minimum(spread, 255), values))


def _channel_values(image: tf.Tensor) -> tf.Tensor:
    # Channel c's value v as 256 c + v; the constant has the full shape because broadcasting costs.
    channels = np.array([0, 256, 512], np.int32)
    return tf.cast(image, tf.int32) + np.broadcast_to(channels, image.shape).copy()


def _look_up(image: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.reshape(tf.cast(table, tf.uint8), [768]), _channel_values(image))


def hue(image: tf.Tensor, argument: tf.Tensor) -> tf.Tensor:
    """Turns the hue by `argument` of a full circle, -0.5..0.5, rounding to the nearest value.

    In float as torchvision does with tensors; PIL's way over 8-bit HSV is coarser.
    """
    turned = tf.raw_ops.AdjustHue(images=tf.cast(image, _FLOAT), delta=argument)
    return tf.cast(tf.clip_by_value(turned, 0.0, 255.0) + 0.5, tf.uint8)
