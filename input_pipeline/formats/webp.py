"""WebP: "RIFF", size, "WEBP", then chunks of a name, a size and bytes filled up to even length."""

import tensorflow as tf

from keras_resnet.input_pipeline.formats import data, limits

START = b"RIFF"
# Decoded as a whole, and a lossless one twice: as 4 bytes a pixel and as 3.
_TIMES = 2.0 * limits.WHOLE
# Chunks before the image; real files have three or four.
_MOST_CHUNKS = 256


def claimed_size(encoded: tf.Tensor) -> tf.Tensor:
    """int32[2]: height and width of the canvas, or of the one image of the simple forms."""

    def canvas():
        sides = data.numbers(encoded, 24, 6, 1)
        return tf.reduce_sum(tf.reshape(sides, [2, 3]) * [1, 2**8, 2**16], axis=1) + 1

    def simple():
        return tf.stack(_sides(data.bytes_at(encoded, 12, 18))[::-1])

    return data.swapped(tf.cond(data.bytes_at(encoded, 12, 4) == b"VP8X", canvas, simple))


def decode(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """uint8[height, width, 3], of an animation the first frame."""
    if not hasattr(tf.io, "decode_webp"):
        return _refused(f"TensorFlow {tf.__version__} cannot decode it, 2.21 can")
    end = tf.strings.length(encoded)
    kind = data.bytes_at(encoded, 12, 4)
    # The simple forms hold one image; the extended one ("VP8X") more chunks, of which an
    # animation keeps its frames in "ANMF", whose own chunks follow after 16 bytes.
    place = tf.cond(
        kind == b"VP8X",
        lambda: _find_chunk(encoded, 30, end, [b"ANMF", b"VP8 ", b"VP8L"]),
        lambda: 12,
    )
    place = tf.cond(
        data.bytes_at(encoded, place, 4) == b"ANMF",
        lambda: _find_chunk(encoded, place + 24, end, [b"VP8 ", b"VP8L"]),
        lambda: place,
    )
    length = data.numbers(encoded, place + 4, 1, 4)[0]
    chunk = data.bytes_at(encoded, place, 8 + length + length % 2)
    height, width = _sides(chunk)
    checks = [
        limits.check_size(height, width, max_pixels, _TIMES),
        limits.check_frame(claimed_size(encoded), height, width),
    ]
    with tf.control_dependencies(checks):
        size = tf.strings.length(chunk) + 4
    single = tf.strings.join([b"RIFF", _four_bytes(size), b"WEBP", chunk])
    # A bit after the size in "VP8L" says that the image is transparent, which the decoder wants
    # to hand on. (What makes "VP8 " transparent is a chunk of its own, left out here.)
    flags = data.numbers(chunk, 12, 1, 1)[0]
    is_transparent = (tf.strings.substr(chunk, 0, 4) == b"VP8L") & (flags // 16 % 2 == 1)
    return tf.cond(
        is_transparent,
        lambda: tf.io.decode_webp(single, channels=4)[0, ..., :3],
        lambda: tf.io.decode_webp(single, channels=3)[0],
    )


def _find_chunk(encoded: tf.Tensor, place, end: tf.Tensor, names: list[bytes]) -> tf.Tensor:
    """Where the first chunk of one of these names begins, from `place` on."""

    def is_other(place, passed):
        other = tf.reduce_all(data.bytes_at(encoded, place, 4) != tf.constant(names))
        return other & (place < end) & (passed <= _MOST_CHUNKS)

    def following(place, passed):
        length = tf.maximum(data.numbers(encoded, place + 4, 1, 4)[0], 0)
        # Not beyond the end, where a claimed length could overflow int32.
        return [place + 8 + tf.minimum(length + length % 2, end - place), passed + 1]

    place, passed = tf.while_loop(is_other, following, [place, 0])
    with tf.control_dependencies([limits.check_parts(passed <= _MOST_CHUNKS, "chunks of a WebP")]):
        return tf.identity(place)


def _sides(chunk: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """int32 (height, width) of the image in a chunk that begins with its name."""
    header = data.numbers(chunk, 8, 10, 1)
    is_lossless = tf.strings.substr(chunk, 0, 4) == b"VP8L"
    width, height = tf.cond(is_lossless, lambda: _vp8l(header), lambda: _vp8(header))
    return height, width


def _vp8(header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return header[6] + 256 * (header[7] % 64), header[8] + 256 * (header[9] % 64)


def _vp8l(header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # After a byte of signature: width - 1 and height - 1 in 14 bits each, from the lowest up.
    bits = tf.reduce_sum(header[1:5] * [1, 2**8, 2**16, 0]) + (header[4] % 16) * 2**24
    return bits % 2**14 + 1, bits // 2**14 + 1


def _four_bytes(number: tf.Tensor) -> tf.Tensor:
    every_byte = tf.constant([bytes([value]) for value in range(256)])
    digits = tf.bitwise.right_shift(number, [0, 8, 16, 24]) % 256
    return tf.strings.reduce_join(tf.gather(every_byte, digits))


def refuse(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """In the place of `decode`, for graphs that servers before TensorFlow 2.20 are to run."""
    return _refused("this graph was made without its decoder")


def _refused(reason: str) -> tf.Tensor:
    refused = tf.raw_ops.Assert(condition=False, data=[limits.UNSUPPORTED, f"WebP: {reason}"])
    with tf.control_dependencies([refused]):
        return tf.zeros([1, 1, 3], tf.uint8)
