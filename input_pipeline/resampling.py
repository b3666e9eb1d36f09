"""Resizing as PIL does it, of no more than the window that is kept."""

from collections.abc import Callable

import tensorflow as tf

from keras_resnet.input_pipeline.operations import not_inlined
from keras_resnet.input_pipeline.transposition import (
    transpose_image,
    transposed_bytes,
    transposed_floats,
)

# Our names for the antialiasing kernels of tf.raw_ops.ScaleAndTranslate. Its Keys cubic has
# a = -0.5, as PIL's bicubic filter.
_KERNELS = {"bilinear": "triangle", "bicubic_float": "keyscubic"}
# How far a filter reaches, in pixels of the smaller of the two images.
RADIUS = {"bilinear": 1, "bicubic": 2, "bicubic_float": 2, "nearest": 1}
# PIL's weights for images of 8 bits are integers of so many bits behind the point.
_BITS = 22
# Rows of a result that are computed together.
_BLOCK = 32
# Pixels from which on less memory counts more than time: those of 12 megapixels take 415 MB.
LARGE = 12 * 2**20
# Pixels of a large image that bicubic resizes at a time.
_STRIP = 2**21
# Rows that a block of a result may be made of, with all the other blocks at once.
_MOST_ROWS = 8192


def resize_window(
    image: tf.Tensor,
    *,
    resized: tf.Tensor,
    top_left: tf.Tensor,
    size: int,
    interpolation: str,
    whole: tf.Tensor,
    origin: tf.Tensor,
    ratio: tf.Tensor | int = 1,
) -> tf.Tensor:
    """A square window of a resized image; what lies outside is never computed.

    Args:
        image: uint8[h, w, 3], the part of an image that begins at `origin`.
        resized: int32[2], height and width that the whole image is resized to.
        top_left: int32[2], row and column of the window's corner in the resized image.
        size: of the window.
        interpolation: see `Preprocessing`.
        whole: int32[2], height and width of the image as it is stored.
        origin: int32[2].
        ratio: int32, how many times shorter than those the sides of the image are, rounded up: of
            its last pixels only a part is image.

    Returns:
        uint8[size, size, 3]; an image that already has the size `resized` is only cropped.
    """

    pixels = (whole + ratio - 1) // ratio

    def crop() -> tf.Tensor:
        return tf.slice(image, tf.concat([top_left - origin, [0]], 0), [size, size, 3])

    def resample() -> tf.Tensor:
        if interpolation == "nearest":
            scale = _times_shorter(whole, ratio, resized)
            return _nearest(image, resized, top_left, size, scale, pixels, origin)
        if interpolation == "bicubic":
            scale = _times_shorter(whole, ratio, resized)
            return _bicubic(image, resized, top_left, size, scale, pixels, origin)
        scale = tf.cast(resized * ratio, tf.float32) / tf.cast(whole, tf.float32)
        shift = tf.cast(origin, tf.float32) * scale - tf.cast(top_left, tf.float32)
        return _resample(image, size, scale, shift, interpolation)

    window = tf.cond(tf.reduce_all(whole == resized * ratio), crop, resample)
    return tf.ensure_shape(window, [size, size, 3])


def _times_shorter(whole: tf.Tensor, ratio: tf.Tensor, resized: tf.Tensor) -> tf.Tensor:
    # float64[2]: by how much the sides of an image shrink, where parts of its pixels count.
    return tf.cast(whole, tf.float64) / tf.cast(ratio, tf.float64) / tf.cast(resized, tf.float64)


# One side is resized after the other, with the other one as channels: 3.5 times as fast as both at
# once, where the kernel handles three channels at a time, and equal to the bit. So are float32
# instead of uint8, and turning matrices instead of rows of pixels: each twice as fast.


def _resample(image: tf.Tensor, size: int, scale, shift, interpolation: str) -> tf.Tensor:
    """uint8[h, w, 3] to uint8[size, size, 3], rounded to 8 bits at the end.

    Of the bilinear filter no pixel differs from PIL's by more than one gray level.
    """
    height, width = tf.unstack(tf.shape(image)[:2])

    def rows_first(image, axes=(0, 1)):
        first, second = (tf.shape(image)[axis] for axis in (0, 1))
        pixels = tf.reshape(image, tf.stack([first, 3 * second]))
        rows = _resize_rows(pixels, size, scale[axes[0]], shift[axes[0]], interpolation)
        turned = tf.reshape(tf.transpose(rows), tf.stack([second, 3 * size]))
        columns = _resize_rows(turned, size, scale[axes[1]], shift[axes[1]], interpolation)
        if interpolation != "bilinear":  # its negative weights may lead out of the range
            columns = tf.clip_by_value(columns, 0.0, 255.0)
        back = transposed_bytes(tf.reshape(columns, [3 * size, size]))
        return tf.reshape(back, [size, size, 3])

    def columns_first():
        turned = rows_first(transpose_image(image), axes=(1, 0))
        return transpose_image(turned)

    # What is left after the first pass, and a copy in float32: each no more than 12 bytes for each
    # of LARGE pixels. Another order of the passes changes what float32 rounds, so only then.
    wide = tf.cast(width, tf.float32) * size > LARGE
    large = tf.cast(width, tf.float32) * tf.cast(height, tf.float32) > LARGE
    way = tf.where(wide, 2, tf.cast(large, tf.int32))
    ways = [
        lambda: rows_first(tf.cast(image, tf.float32)),
        lambda: rows_first(image),
        columns_first,
    ]
    return tf.switch_case(way, ways)


def _resize_rows(matrix: tf.Tensor, size: int, scale, shift, interpolation: str) -> tf.Tensor:
    # float32 or uint8 [h, n] -> float32[size, n].
    height, count = tf.unstack(tf.shape(matrix))
    resized = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(matrix, tf.stack([1, height, 1, count])),
        size=[size, 1],
        scale=tf.stack([scale, 1.0]),
        translation=tf.stack([shift, 0.0]),
        kernel_type=_KERNELS[interpolation],
        antialias=True,
    )
    return tf.reshape(resized, tf.stack([size, count]))


def _bicubic(image: tf.Tensor, resized, top_left, size: int, scale, whole, origin) -> tf.Tensor:
    """uint8[size, size, 3] as PIL makes it: with its weights, and 8 bits after each pass.

    At a hard edge the first pass of a filter with negative weights leaves the range; what is
    clipped there is missing in the second one. On 125 photos no pixel differed.
    """
    height, width = tf.unstack(tf.shape(image)[:2])

    def weigh(axis: int, matrix: tf.Tensor) -> tf.Tensor:
        places = (scale[axis], top_left[axis], whole[axis], origin[axis])
        return _weigh(matrix, size, *places)

    # Each takes a part of the image and gives float32[lines, 3 size]: its first pass, turned.
    def of_columns(part):
        count = tf.shape(part)[1]
        pixels = tf.reshape(tf.cast(part, tf.float32), tf.stack([height, 3 * count]))
        return tf.reshape(tf.transpose(weigh(0, pixels)), tf.stack([count, 3 * size]))

    def of_rows(part):
        count = tf.shape(part)[0]
        turned = transposed_floats(tf.reshape(part, tf.stack([count, 3 * width])))
        turned = tf.reshape(turned, tf.stack([width, 3 * count]))
        return tf.transpose(tf.reshape(weigh(1, turned), tf.stack([3 * size, count])))

    def rows_first():
        lines = _in_strips(of_columns, image, 1, 3 * size)
        square = transposed_bytes(tf.reshape(weigh(1, lines), [3 * size, size]))
        return tf.reshape(square, [size, size, 3])

    def columns_first():
        square = weigh(0, _in_strips(of_rows, image, 0, 3 * size))
        return tf.reshape(tf.cast(square, tf.uint8), [size, size, 3])

    # Pillow 13 begins with the rows where that removes more; up to Pillow 12 it never did. Where
    # the ratio of the sides is kept that concerns images more than twice as high as wide.
    removed = whole - resized
    return tf.cond((removed[0] > 0) & (removed[0] > 2 * removed[1]), rows_first, columns_first)


def _in_strips(function: Callable, image: tf.Tensor, axis: int, width: int) -> tf.Tensor:
    """float32[lines, width]: `function` of an image, whose lines stand along `axis`.

    It gives as many rows as its part of the image has lines; of a large image the parts are strips.
    """

    def strips():
        lines, length = tf.shape(image)[axis], tf.shape(image)[1 - axis]
        step = tf.maximum(_STRIP // length, 1)
        starts = tf.range(0, lines, step)
        results = tf.TensorArray(tf.float32, tf.size(starts), infer_shape=False)

        def add(index, results):
            lines = slice(starts[index], starts[index] + step)
            part = image[:, lines] if axis else image[lines]
            return index + 1, results.write(index, function(part))

        _, results = tf.while_loop(
            lambda index, _: index < tf.size(starts), add, [0, results], parallel_iterations=1
        )
        return tf.ensure_shape(results.concat(), [None, width])

    return tf.cond(tf.size(image) > 3 * LARGE, strips, lambda: function(image))


@not_inlined
def _weigh(matrix: tf.Tensor, size: int, scale, first, whole, origin) -> tf.Tensor:
    """float32[h, n] to float32[size, n], whole numbers of 0 to 255: one pass of PIL's bicubic.

    As a product of matrices for each few rows of the result, which share most of what they need.
    In half the time of a sparse matrix, and with better weights than ScaleAndTranslate has, which
    computes the places in float32.

    Args:
        matrix: rows `origin` to `origin` + h of an image of `whole` rows.
        scale: float64, rows of it for each of the resized image.
        first: the row of the resized image at which the result begins.
    """
    filter_scale = tf.maximum(scale, 1.0)
    support = 2.0 * filter_scale
    blocks = -(-size // _BLOCK)
    numbers = tf.reshape(first + tf.range(blocks * _BLOCK), [blocks, _BLOCK, 1])
    count = tf.cast(tf.math.ceil(_BLOCK * scale + 2.0 * support), tf.int32) + 1

    def weigh(numbers):
        return _weigh_blocks(matrix, numbers, scale, count, whole, origin)

    def one_by_one():
        block = tf.TensorSpec([_BLOCK, None], tf.float32)
        return tf.map_fn(
            lambda numbers: weigh(numbers[None])[0],
            numbers,
            parallel_iterations=1,
            fn_output_signature=block,
        )

    # The weights of a block take memory as well, where thousands of rows become one.
    sums = tf.cond(count > _MOST_ROWS, one_by_one, lambda: weigh(numbers))
    sums = tf.reshape(sums, tf.stack([blocks * _BLOCK, tf.shape(matrix)[1]]))[:size]
    return tf.floor(tf.clip_by_value(sums, 0.0, 255.0) + 0.5)


def _weigh_blocks(matrix: tf.Tensor, numbers: tf.Tensor, scale, count, whole, origin) -> tf.Tensor:
    # float32[b, _BLOCK, n]: the rows `numbers`, int32[b, _BLOCK, 1], each from `count` rows.
    filter_scale = tf.maximum(scale, 1.0)
    support = 2.0 * filter_scale
    # From here on as `precompute_coeffs` of Pillow's src/libImaging/Resample.c.
    centers = (tf.cast(numbers, tf.float64) + 0.5) * scale
    begin = tf.maximum(tf.cast(centers - support + 0.5, tf.int32), 0)
    end = tf.minimum(tf.cast(centers + support + 0.5, tf.int32), whole)
    places = begin[:, :1] + tf.range(count)
    distances = (tf.cast(places, tf.float64) - centers + 0.5) / filter_scale
    inside = (places >= begin) & (places < end)
    weights = tf.where(inside, _cubic(tf.abs(distances)), 0.0)
    weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=2, keepdims=True))
    weights = tf.round(weights * 2.0**_BITS) / 2.0**_BITS
    # Where a row has no weight it does not matter which one it is.
    rows = tf.clip_by_value(places[:, 0] - origin, 0, tf.shape(matrix)[0] - 1)
    return tf.matmul(tf.cast(weights, tf.float32), tf.gather(matrix, rows))


def _cubic(distances: tf.Tensor) -> tf.Tensor:
    # Keys 1981, equation 15 (a = -1/2), of distances of 0 or more.
    near = (1.5 * distances - 2.5) * distances * distances + 1.0
    far = ((distances - 5.0) * distances + 8.0) * distances - 4.0
    return tf.where(distances < 1.0, near, tf.where(distances < 2.0, -0.5 * far, 0.0))


def _nearest(image: tf.Tensor, resized, top_left, size: int, scale, whole, origin) -> tf.Tensor:
    """uint8[size, size, 3] of the pixels nearest to the places of PIL, which adds up the scale.

    The sum of float64 numbers is not the product: where a place falls on the border of two pixels
    the one before is taken in some cases, as in PIL.
    """

    def places(axis: int) -> tf.Tensor:
        step = scale[axis]
        steps = tf.concat([[step / 2], tf.fill([resized[axis] - 1], step)], 0)
        added = tf.cast(tf.math.floor(tf.cumsum(steps)), tf.int32)
        kept = tf.slice(added, [top_left[axis]], [size])
        return tf.minimum(kept, whole[axis] - 1) - origin[axis]

    rows = tf.gather(image, places(0))
    return tf.gather(rows, places(1), axis=1)
