"""BMP: TensorFlow's decoder takes palette indices for gray values and knows 8, 24 and 32 bits."""

import tensorflow as tf

from keras_resnet.input_pipeline.formats import data, limits

START = b"BM"


def claimed_size(encoded: tf.Tensor) -> tf.Tensor:
    """int32[2]: height, negative where the rows stand from top to bottom, and width."""
    is_old = data.numbers(encoded, 14, 1, 4)[0] == 12  # OS/2: sides of 16 bits, colors of 3 bytes
    sides = tf.cond(
        is_old, lambda: data.numbers(encoded, 18, 2, 2), lambda: data.numbers(encoded, 18, 2, 4)
    )
    return data.swapped(sides)


def decode(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """uint8[height, width, 3]."""
    pixels, header = tf.unstack(data.numbers(encoded, 10, 2, 4))
    is_old = header == 12
    height, width = tf.unstack(claimed_size(encoded))
    bits = data.numbers(encoded, tf.where(is_old, 24, 28), 1, 2)[0]
    compression = tf.cond(is_old, lambda: 0, lambda: data.numbers(encoded, 30, 1, 4)[0])
    upside_down = height > 0
    height = tf.abs(height)
    known = bits == tf.constant([1, 4, 8, 16, 24, 32])
    plain = (compression == 0) | ((compression == 3) & (bits == 32))
    supported = tf.raw_ops.Assert(
        condition=plain & tf.reduce_any(known),
        data=[limits.UNSUPPORTED, "BMP: compression, bits", compression, bits],
    )
    fits = limits.check_size(height, width, max_pixels, limits.WHOLE)
    with tf.control_dependencies([fits, supported]):
        # In int64: a row may have more bits than int32 counts.
        row_bytes = tf.cast(
            (tf.cast(width, tf.int64) * tf.cast(bits, tf.int64) + 31) // 32 * 4, tf.int32
        )
    rows = tf.io.decode_raw(data.bytes_at(encoded, pixels, row_bytes * height), tf.uint8)
    rows = tf.reshape(rows, tf.stack([height, row_bytes]))
    place, color_bytes = 14 + header, tf.where(is_old, 3, 4)
    colors = data.bytes_at(encoded, place, tf.minimum(pixels - place, 1024))
    image = tf.switch_case(
        tf.argmax(known, output_type=tf.int32),
        [
            *[
                lambda bits=bits: _palette_rows(rows, bits, width, colors, color_bytes)
                for bits in (1, 4, 8)
            ],
            lambda: _five_bit_rows(rows, width),
            lambda: tf.reshape(rows[:, : 3 * width], tf.stack([height, width, 3]))[..., ::-1],
            lambda: tf.reshape(rows, tf.stack([height, width, 4]))[..., 2::-1],
        ],
    )
    return tf.cond(upside_down, lambda: image[::-1], lambda: image)


def _palette_rows(rows, bits: int, width, colors, bytes_per_color) -> tf.Tensor:
    # For each byte the colors of all the pixels in it are looked up at once: in a fraction of the
    # memory that an index for each pixel takes. Colors that the palette lacks are black.
    whole = tf.strings.length(colors) // bytes_per_color * bytes_per_color
    palette = tf.io.decode_raw(tf.strings.substr(colors, 0, whole), tf.uint8)
    palette = tf.reshape(palette, tf.stack([-1, bytes_per_color]))[: 2**bits, 2::-1]
    palette = tf.pad(palette, [[0, 2**bits - tf.shape(palette)[0]], [0, 0]])
    shifts = tf.range(8 - bits, -1, -bits)
    indices = tf.bitwise.right_shift(tf.range(256)[:, None], shifts) % 2**bits
    table = tf.reshape(tf.gather(palette, indices), [256, 3 * 8 // bits])
    pixels = tf.gather(table, tf.cast(rows, tf.int32))
    return tf.reshape(pixels, tf.stack([tf.shape(rows)[0], -1, 3]))[:, :width]


def _five_bit_rows(rows: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    # 5 bits each of blue, green and red, from the lowest up; 31 becomes 255.
    values = tf.range(2**15)[:, None]
    table = tf.cast(tf.bitwise.right_shift(values, [10, 5, 0]) % 32 * 255 // 31, tf.uint8)
    pairs = tf.bitcast(tf.reshape(rows, tf.stack([tf.shape(rows)[0], -1, 2])), tf.uint16)
    return tf.gather(table, tf.cast(pairs[:, :width], tf.int32) % 2**15)
