"""Image files to RGB pixels, inside the graph: JPEG, PNG, GIF, BMP and WebP, told by their content.

Before anything is decoded the size that the header claims is read with plain byte operations, so
that a few bytes cannot ask for gigabytes (a "decompression bomb"). Of animations only the first
frame is handed to the decoder, for the same reason.
"""

import functools
from collections.abc import Callable

import tensorflow as tf

# As in PIL (`Image.MAX_IMAGE_PIXELS`, doubled, where it refuses): 1 GiB / 6 bytes.
MAX_PIXELS = 178_956_970
TOO_LARGE = "claims more pixels than are decoded"
UNSUPPORTED = "unsupported kind of"

_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """bool: whether the scalar string `encoded` starts as a JPEG file does."""
    return tf.strings.substr(encoded, 0, 3) == _JPEG_START


def check_size(height: tf.Tensor, width: tf.Tensor) -> tf.Operation | None:
    """Fails in the graph for more than MAX_PIXELS; to be a control dependency of the decoding.

    Raises:
        tf.errors.InvalidArgumentError: in the graph; its message holds TOO_LARGE and the size.
    """
    # In float32: the product of two sides may exceed int32.
    pixels = tf.cast(height, tf.float32) * tf.cast(width, tf.float32)
    return tf.raw_ops.Assert(
        condition=(pixels <= float(MAX_PIXELS)) & (height > 0) & (width > 0),
        data=[TOO_LARGE, height, width],
    )


def jpeg_size(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """int32 (height, width) that the header of a JPEG claims, checked (see `check_size`)."""
    height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(encoded))
    with tf.control_dependencies([check_size(height, width)]):
        return tf.identity(height), tf.identity(width)


def decode_jpeg_window(encoded: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Decodes a part of a JPEG; what lies beside it is skipped where the format allows.

    The accurate inverse DCT is as fast as TensorFlow's default (measured) and equal to what PIL
    decodes. Pixels at the edge of the window lack the neighbors that smooth their colors.

    Args:
        encoded: scalar string.
        window: int32[4], top, left, height and width in pixels, inside the image.

    Returns:
        uint8[height, width, 3].
    """
    return tf.image.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")


def decode_whole_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """As `decode_jpeg_window`, all of it. The caller has checked the size that it claims."""
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image file.

    Gray images are repeated over the channels, transparency is dropped, CMYK is converted, and
    of 16 bits a channel the upper 8 are kept. Of animations the first frame is taken.

    Args:
        encoded: scalar string, the bytes of the file.

    Returns:
        uint8[height, width, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: in the graph, for bytes that are no image, are damaged, or
            claim more than MAX_PIXELS; `find_corrupt_image` then names the file.
    """
    image = tf.cond(is_jpeg(encoded), lambda: _decode_jpeg(encoded), lambda: decode_other(encoded))
    image.set_shape([None, None, 3])
    return image


def not_inlined(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """`function` as a single operation of a graph, where a graph is built.

    For the rarely taken branch of a condition: the branch not taken is passed over operation by
    operation, and the hundreds of the other formats cost 5 % of decoding a photo (measured).
    """
    operation = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})

    @functools.wraps(function)
    def call(*arguments: tf.Tensor) -> tf.Tensor:
        return (function if tf.executing_eagerly() else operation)(*arguments)

    return call


@not_inlined
def decode_other(encoded: tf.Tensor) -> tf.Tensor:
    """As `decode_image`, for files that are no JPEG."""
    starts = [_PNG_START, b"GIF8", b"BM", b"RIFF"]
    decoders = [_decode_png, _decode_gif, _decode_bmp, _decode_webp]
    matches = tf.stack(
        [tf.strings.substr(encoded, 0, len(start)) == start for start in starts] + [True]
    )
    image = tf.switch_case(
        tf.cast(tf.argmax(matches), tf.int32),
        [lambda decode=decode: decode(encoded) for decode in [*decoders, _refuse]],
    )
    image.set_shape([None, None, 3])
    return image


def _decode_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    height, width = jpeg_size(encoded)
    with tf.control_dependencies([height, width]):
        encoded = tf.identity(encoded)
    return decode_whole_jpeg(encoded)


def _refuse(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow's own words for bytes of no known format.
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    # Bytes 16 to 23 hold width and height, the most significant byte first.
    width, height = tf.unstack(_numbers(encoded, 16, 2, 4, big_endian=True))
    with tf.control_dependencies([check_size(height, width)]):
        encoded = tf.identity(encoded)
    return tf.io.decode_png(encoded, channels=3)


# --- GIF: 13 bytes of header, the colors, then blocks; each is cut into parts of up to 255 bytes.


def _decode_gif(encoded: tf.Tensor) -> tf.Tensor:
    data = tf.io.decode_raw(encoded, tf.uint8)
    start = _first_gif_frame(data)
    canvas = _numbers(encoded, 6, 2, 2)
    frame = _numbers(encoded, start + 5, 2, 2)
    end = _skip_parts(data, start + 11 + _gif_colors(data[start + 9]))
    with tf.control_dependencies([check_size(*tf.unstack(side)) for side in (canvas, frame)]):
        # The trailer right after the first frame ends the file for the decoder.
        first = tf.strings.join([tf.strings.substr(encoded, 0, end), b"\x3b"])
    return tf.io.decode_gif(first)[0]


def _gif_colors(flags: tf.Tensor) -> tf.Tensor:
    # Bytes of the table of colors that a header or frame with these flags brings along.
    flags = tf.cast(flags, tf.int32)
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)


def _first_gif_frame(data: tf.Tensor) -> tf.Tensor:
    # Every block before the first frame (0x2C) is an extension: 0x21, its kind, its parts.
    return tf.while_loop(
        lambda place: data[place] == 0x21,
        lambda place: [_skip_parts(data, place + 2)],
        [13 + _gif_colors(data[10])],
    )[0]


def _skip_parts(data: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    last = tf.while_loop(
        lambda place: data[place] > 0,
        lambda place: [place + 1 + tf.cast(data[place], tf.int32)],
        [place],
    )[0]
    return last + 1


# --- BMP: TensorFlow's decoder takes palette indices for gray values and knows 8, 24 and 32 bits.


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    pixels, header = tf.unstack(_numbers(encoded, 10, 2, 4))
    is_old = header == 12  # OS/2: sides of 16 bits, colors of 3 bytes
    width, height = tf.unstack(
        tf.cond(is_old, lambda: _numbers(encoded, 18, 2, 2), lambda: _numbers(encoded, 18, 2, 4))
    )
    bits = _numbers(encoded, tf.where(is_old, 24, 28), 1, 2)[0]
    compression = tf.cond(is_old, lambda: 0, lambda: _numbers(encoded, 30, 1, 4)[0])
    upside_down = height > 0
    height = tf.abs(height)
    known = bits == tf.constant([1, 4, 8, 16, 24, 32])
    plain = (compression == 0) | ((compression == 3) & (bits == 32))
    supported = tf.raw_ops.Assert(
        condition=plain & tf.reduce_any(known),
        data=[UNSUPPORTED, "BMP: compression, bits", compression, bits],
    )
    with tf.control_dependencies([check_size(height, width), supported]):
        row_bytes = (width * bits + 31) // 32 * 4
    rows = tf.io.decode_raw(_bytes_at(encoded, pixels, row_bytes * height), tf.uint8)
    rows = tf.reshape(rows, tf.stack([height, row_bytes]))
    place, color_bytes = 14 + header, tf.where(is_old, 3, 4)
    colors = _bytes_at(encoded, place, tf.minimum(pixels - place, 1024))
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
    shifts = tf.range(8 - bits, -1, -bits)
    indices = tf.bitwise.right_shift(tf.cast(rows, tf.int32)[..., None], shifts) % 2**bits
    indices = tf.reshape(indices, tf.stack([tf.shape(rows)[0], -1]))[:, :width]
    whole = tf.strings.length(colors) // bytes_per_color * bytes_per_color
    palette = tf.io.decode_raw(tf.strings.substr(colors, 0, whole), tf.uint8)
    palette = tf.reshape(palette, tf.stack([-1, bytes_per_color]))[:, 2::-1]
    return tf.gather(palette, indices)


def _five_bit_rows(rows: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    # 5 bits each of blue, green and red, from the lowest up; 31 becomes 255.
    pairs = tf.cast(tf.reshape(rows, tf.stack([tf.shape(rows)[0], -1, 2])), tf.int32)[:, :width]
    values = pairs[..., :1] + 256 * pairs[..., 1:]
    return tf.cast(tf.bitwise.right_shift(values, [10, 5, 0]) % 32 * 255 // 31, tf.uint8)


# --- WebP: "RIFF", size, "WEBP", then chunks of a name, a size and bytes filled up to even length.


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    if not hasattr(tf.io, "decode_webp"):
        return _without_webp(encoded)
    end = tf.strings.length(encoded)
    kind = _bytes_at(encoded, 12, 4)
    # The simple forms hold one image; the extended one ("VP8X") more chunks, of which an
    # animation keeps its frames in "ANMF", whose own chunks follow after 16 bytes.
    place = tf.cond(
        kind == b"VP8X",
        lambda: _find_chunk(encoded, 30, end, [b"ANMF", b"VP8 ", b"VP8L"]),
        lambda: 12,
    )
    place = tf.cond(
        _bytes_at(encoded, place, 4) == b"ANMF",
        lambda: _find_chunk(encoded, place + 24, end, [b"VP8 ", b"VP8L"]),
        lambda: place,
    )
    length = _numbers(encoded, place + 4, 1, 4)[0]
    chunk = _bytes_at(encoded, place, 8 + length + length % 2)
    header = _numbers(chunk, 8, 10, 1)
    width, height = tf.cond(
        tf.strings.substr(chunk, 0, 4) == b"VP8L", lambda: _vp8l(header), lambda: _vp8(header)
    )
    with tf.control_dependencies([check_size(height, width)]):
        size = tf.strings.length(chunk) + 4
    single = tf.strings.join([b"RIFF", _four_bytes(size), b"WEBP", chunk])
    # A bit after the size in "VP8L" says that the image is transparent, which the decoder wants
    # to hand on. (What makes "VP8 " transparent is a chunk of its own, left out here.)
    is_transparent = (tf.strings.substr(chunk, 0, 4) == b"VP8L") & (header[4] // 16 % 2 == 1)
    return tf.cond(
        is_transparent,
        lambda: tf.io.decode_webp(single, channels=4)[0, ..., :3],
        lambda: tf.io.decode_webp(single, channels=3)[0],
    )


def _find_chunk(encoded: tf.Tensor, place, end: tf.Tensor, names: list[bytes]) -> tf.Tensor:
    """Where the first chunk of one of these names begins, from `place` on."""

    def is_other(place):
        return tf.reduce_all(_bytes_at(encoded, place, 4) != tf.constant(names)) & (place < end)

    def following(place):
        length = tf.maximum(_numbers(encoded, place + 4, 1, 4)[0], 0)
        # Not beyond the end, where a claimed length could overflow int32.
        return [place + 8 + tf.minimum(length + length % 2, end - place)]

    return tf.while_loop(is_other, following, [place])[0]


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


def _without_webp(encoded: tf.Tensor) -> tf.Tensor:
    refusal = f"WebP: TensorFlow {tf.__version__} cannot decode it, 2.21 can"
    refused = tf.raw_ops.Assert(condition=False, data=[UNSUPPORTED, refusal])
    with tf.control_dependencies([refused]):
        return tf.zeros([1, 1, 3], tf.uint8)


# --- bytes


def _numbers(encoded: tf.Tensor, place, count: int, size: int, big_endian=False) -> tf.Tensor:
    """int32[count]: numbers of `size` bytes each, unsigned but for those of 4 bytes."""
    data = tf.io.decode_raw(_bytes_at(encoded, place, count * size), tf.uint8)
    digits = tf.cast(tf.reshape(data, [count, size]), tf.int32)
    shifts = [8 * (size - 1 - byte if big_endian else byte) for byte in range(size)]
    return tf.reduce_sum(tf.bitwise.left_shift(digits, shifts), axis=1)


def _bytes_at(encoded: tf.Tensor, place, length) -> tf.Tensor:
    # `substr` refuses to start beyond the end, which a truncated file would make it do, and quotes
    # the file in its message: bytes that Python may fail to read.
    place = tf.clip_by_value(place, 0, tf.strings.length(encoded))
    return tf.strings.substr(encoded, place, length)
