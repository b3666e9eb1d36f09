"""GIF: 13 bytes of header, the colors, then blocks; each is cut into parts of up to 255 bytes."""

import tensorflow as tf

from keras_resnet.input_pipeline.formats import data, limits

START = b"GIF8"
# Parts of equal length are passed over so many at a time: encoders fill all but the last one.
_STEP = 1024
# Steps that the whole way to the end of the first frame may take.
_MOST_STEPS = 4096


def claimed_size(encoded: tf.Tensor) -> tf.Tensor:
    """int32[2]: height and width of the canvas."""
    return data.swapped(data.numbers(encoded, 6, 2, 2))


def decode(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """uint8[height, width, 3], of an animation the first frame."""
    content = tf.io.decode_raw(encoded, tf.uint8)
    start, steps = _first_frame(content)
    canvas, frame = claimed_size(encoded), data.swapped(data.numbers(encoded, start + 5, 2, 2))
    end, steps = _skip_parts(content, start + 11 + _color_bytes(content[start + 9]), steps)
    with tf.control_dependencies([limits.check_parts(steps < _MOST_STEPS, "blocks of a GIF")]):
        sizes = [tf.unstack(tf.identity(size), num=2) for size in (canvas, frame)]
    checks = [limits.check_size(h, w, max_pixels, limits.WHOLE) for h, w in sizes]
    with tf.control_dependencies([*checks, limits.check_frame(canvas, *sizes[1])]):
        # The trailer right after the first frame ends the file for the decoder.
        first = tf.strings.join([tf.strings.substr(encoded, 0, end), b"\x3b"])
    return tf.io.decode_gif(first)[0]


def _color_bytes(flags: tf.Tensor) -> tf.Tensor:
    # Bytes of the table of colors that a header or frame with these flags brings along.
    flags = tf.cast(flags, tf.int32)
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)


def _first_frame(content: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # Every block before the first frame (0x2C) is an extension: 0x21, its kind, its parts.
    return tf.while_loop(
        lambda place, steps: (content[place] == 0x21) & (steps < _MOST_STEPS),
        lambda place, steps: _skip_parts(content, place + 2, steps),
        [13 + _color_bytes(content[10]), 0],
    )


def _skip_parts(content: tf.Tensor, place: tf.Tensor, steps: tf.Tensor):
    """(the place behind the last of the parts that begin at `place`, steps taken by then)."""

    def skip(place, steps):
        length = content[place]
        places = place + (tf.cast(length, tf.int32) + 1) * tf.range(_STEP)
        lengths = tf.gather(content, tf.minimum(places, tf.size(content) - 1))
        is_other = (lengths != length) | (places >= tf.size(content))
        run = tf.reduce_min(tf.where(is_other, tf.range(_STEP), _STEP))
        return place + (tf.cast(length, tf.int32) + 1) * run, steps + 1

    place, steps = tf.while_loop(
        lambda place, steps: (content[place] > 0) & (steps < _MOST_STEPS), skip, [place, steps]
    )
    return place + 1, steps + 1
