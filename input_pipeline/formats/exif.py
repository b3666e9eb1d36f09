"""How a photo is to be turned: EXIF's orientation of JPEG, PNG and WebP files, inside the graph.

Cameras store the picture as the sensor saw it, and a number from 1 to 8 that says how it was held.
What follows is equal to PIL's `ImageOps.exif_transpose`. Of an image the same part is decoded as
without it and then turned, so it costs as little as the part is large. Only EXIF itself is read:
not the copy of the number that XMP may hold, nor EXIF inside of the texts of a PNG.
"""

import tensorflow as tf

from keras_resnet.input_pipeline.formats import data, jpeg, png, webp
from keras_resnet.input_pipeline.operations import not_inlined
from keras_resnet.input_pipeline.transposition import transpose_image

_ORIENTATION = 0x0112
# TIFF's types of numbers: bytes of each that PIL takes for a number. Signs make no difference here.
_TYPE_BYTES = (0, 0, 0, 2, 4, 0, 1, 0, 2, 4)
_JPEG_MARK = b"Exif\0\0"


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """int32 in 1..8: EXIF's orientation of an image file, 1 (upright) where there is none."""
    starts = [jpeg.START, png.START, webp.START]
    kinds = tf.stack([tf.strings.substr(encoded, 0, len(start)) == start for start in starts])
    mark = tf.gather([_JPEG_MARK, b"eXIf", b"EXIF", b"\0none\0"], _first(kinds))
    place = tf.strings.length(tf.strings.split(encoded, mark, maxsplit=1)[0])
    found = tf.reduce_any(kinds) & (place < tf.strings.length(encoded))
    return tf.cond(found, lambda: _of_block(encoded, place, kinds), lambda: 1)


def _first(kinds: tf.Tensor) -> tf.Tensor:
    return tf.argmax(tf.concat([kinds, [True]], 0), output_type=tf.int32)


@not_inlined
def _of_block(encoded: tf.Tensor, place: tf.Tensor, kinds: tf.Tensor) -> tf.Tensor:
    """The orientation in the EXIF block whose name stands at `place`."""
    is_jpeg, is_png, _ = tf.unstack(kinds)
    # JPEG: marker and length (2 bytes, its own included), "Exif\0\0", TIFF. PNG: length, "eXIf",
    # TIFF. WebP: "EXIF", length, TIFF. The latter two have "Exif\0\0" before it by mistake.
    marker, short = tf.unstack(data.numbers(encoded, place - 4, 2, 2, big_endian=True))
    before = data.numbers(encoded, place - 4, 1, 4, big_endian=True)[0]
    after = data.numbers(encoded, place + 4, 1, 4)[0]
    length = tf.where(is_jpeg, short - 8, tf.where(is_png, before, after))
    start = place + tf.where(is_jpeg, 6, tf.where(is_png, 4, 8))
    block = data.bytes_at(encoded, start, tf.maximum(length, 0))
    block = tf.cond(
        tf.strings.substr(block, 0, 6) == _JPEG_MARK,
        lambda: data.bytes_at(block, 6, tf.strings.length(block)),
        lambda: block,
    )
    order = tf.strings.substr(block, 0, 4)
    big, little = order == b"MM\0*", order == b"II*\0"
    sound = (~is_jpeg | (marker == 0xFFE1)) & (big | little) & (tf.strings.length(block) >= 14)
    return tf.cond(sound, lambda: _of_tiff(block, big), lambda: 1)


def _of_tiff(block: tf.Tensor, big: tf.Tensor) -> tf.Tensor:
    """The orientation in the first directory of a TIFF header, whose numbers are `big`-endian."""

    def numbers(place, count, size):
        return tf.cond(
            big,
            lambda: data.numbers(block, place, count, size, big_endian=True),
            lambda: data.numbers(block, place, count, size),
        )

    size = tf.strings.length(block)
    directory = numbers(4, 1, 4)[0]
    reachable = (directory >= 8) & (directory <= size - 14)

    def read():
        # Each entry has 12 bytes: tag, type, count and, where it fits, the value.
        claimed = numbers(directory, 1, 2)[0]
        count = tf.minimum(claimed, (size - directory - 2) // 12)
        raw = tf.io.decode_raw(data.bytes_at(block, directory + 2, 12 * count), tf.uint8)
        rows = tf.cast(tf.reshape(raw, [-1, 12]), tf.int32)

        def field(begin, length):
            digits = rows[:, begin : begin + length]
            powers = [256**n for n in range(length)]
            return tf.reduce_sum(digits * tf.where(big, powers[::-1], powers), axis=1)

        kind = field(2, 2)
        widths = tf.gather(_TYPE_BYTES, tf.minimum(kind, len(_TYPE_BYTES) - 1) % len(_TYPE_BYTES))
        widths = tf.where(kind < len(_TYPE_BYTES), widths, 0)
        one, two, four = field(8, 1), field(8, 2), field(8, 4)
        value = tf.where(widths == 1, one, tf.where(widths == 2, two, four))
        number = field(4, 4)
        inside = (number >= 1) & (number <= 4) & (number * widths <= 4)
        used = (field(0, 2) == _ORIENTATION) & (widths > 0) & inside
        # Of several the first one counts, as in PIL.
        return tf.concat([tf.boolean_mask(value, used), [1]], 0)[0]

    found = tf.cond(reachable, read, lambda: 1)
    return tf.where((found >= 1) & (found <= 8), found, 1)


# Each orientation is a transposition or none, then a mirroring or none along each axis.


def _steps(turned: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    # 3 and 4 stand on their heads, 2 and 3 are mirrored; 5 to 8 are transposed before that.
    upside_down = tf.reduce_any(turned == tf.constant([3, 4, 7, 8]))
    mirrored = tf.reduce_any(turned == tf.constant([2, 3, 6, 7]))
    return turned >= 5, upside_down, mirrored


def turned_size(size: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """int32[2], height and width of the upright image, of one that is stored with size `size`."""
    return tf.where(turned >= 5, data.swapped(size), size)


def stored_window(window: tf.Tensor, upright: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """int32[4]: where a window of the upright image of size `upright` lies in the stored one."""
    swapped, upside_down, mirrored = _steps(turned)
    corner, sides = window[:2], window[2:]
    corner = tf.where(tf.stack([upside_down, mirrored]), upright - corner - sides, corner)
    stored = tf.concat([corner, sides], 0)
    return tf.where(swapped, tf.gather(stored, [1, 0, 3, 2]), stored)


def turn(image: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    """uint8[h, w, 3] as it is stored -> upright."""

    return tf.cond(turned == 1, lambda: image, lambda: _turned(image, turned))


@not_inlined
def _turned(image: tf.Tensor, turned: tf.Tensor) -> tf.Tensor:
    swapped, upside_down, mirrored = _steps(turned)
    pixels = tf.cond(swapped, lambda: transpose_image(image), lambda: image)
    pixels = tf.cond(upside_down, lambda: tf.reverse(pixels, [0]), lambda: pixels)
    return tf.cond(mirrored, lambda: tf.reverse(pixels, [1]), lambda: pixels)
