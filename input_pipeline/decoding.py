"""Image files to RGB pixels, inside the graph: JPEG, PNG, GIF, BMP and WebP, told by their content.

Before anything is decoded the size that the header claims is read with plain byte operations, so
that a few bytes cannot ask for gigabytes (a "decompression bomb"), and the parts that a file is cut
into are counted, so that it cannot ask for minutes. Of animations only the first frame is handed to
the decoder, and of a large photo no more than is needed.
"""

from collections.abc import Callable

import tensorflow as tf

from keras_resnet.input_pipeline.formats import bmp, exif, gif, jpeg, png, shrunk, webp
from keras_resnet.input_pipeline.formats.limits import MAX_PIXELS
from keras_resnet.input_pipeline.operations import not_inlined

# Pixels of a JPEG's window from which on it is decoded at a half, a quarter or an eighth of its
# sides, whatever is asked for. A photo of 50 megapixels has 38 in its central square.
LARGE_WINDOW = 40_000_000

_KINDS = (png, gif, bmp, webp)

# From int32[2], height and width of an image, to a part of it: int32[4], top, left, height and
# width in pixels.
Window = Callable[[tf.Tensor], tf.Tensor]


def is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """bool: whether the scalar string `encoded` starts as a JPEG file does."""
    return tf.strings.substr(encoded, 0, 3) == jpeg.START


def decode_image(encoded: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Decodes an image file, as it is stored.

    Gray images are repeated over the channels, transparency is dropped, CMYK is converted, and
    of 16 bits a channel the upper 8 are kept. Of animations the first frame is taken.

    Args:
        encoded: scalar string, the bytes of the file.
        max_pixels: see `formats.limits`.

    Returns:
        uint8[height, width, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: in the graph, for bytes that are no image, are damaged,
            claim more than `max_pixels` or are cut into an absurd number of parts;
            `find_corrupt_image` then names the file.
    """

    def from_jpeg():
        with tf.control_dependencies(jpeg.size(encoded, max_pixels)):
            return jpeg.decode(tf.identity(encoded))

    image = tf.cond(is_jpeg(encoded), from_jpeg, lambda: decode_other(encoded, max_pixels))
    image.set_shape([None, None, 3])
    return image


def whole_image(size: tf.Tensor) -> tf.Tensor:
    """The `Window` that is all of it."""
    return tf.concat([[0, 0], size], 0)


def decode_window(
    encoded: tf.Tensor,
    of_jpeg: Window,
    of_other: Window,
    *,
    shrinks: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = lambda size, window: tf.constant(16.0),
    scaled_decoding: str = "never",
    margin: int = 0,
    upright: bool = False,
    max_pixels: int = MAX_PIXELS,
    of_cache: bool = False,
    has_webp: bool = True,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Decodes a part of an image: of a JPEG no more than that, and turned as EXIF says.

    Args:
        encoded: scalar string, the bytes of the file.
        of_jpeg: the part wanted of a JPEG.
        of_other: the part wanted of another image.
        shrinks: from int32[2], height and width of a JPEG, and int32[4], its window, to float32:
            how many times shorter the sides become when what comes out is resized.
        scaled_decoding: see `Preprocessing`. With "never", too, a JPEG's window of more than
            LARGE_WINDOW pixels is decoded at a part of its size.
        margin: pixels that are decoded around a window at a part of its size.
        upright: whether EXIF's orientation is applied; windows are those of the upright image.
        max_pixels: see `formats.limits`.
        of_cache: whether `encoded` may be what `formats.shrunk` has written; then it is that part
            of a JPEG's pixels.
        has_webp: whether WebP is decoded; its operation is new in TensorFlow 2.20, and a server of
            an older one refuses a graph that holds it.

    Returns:
        uint8[h, w, 3]; int32[2], the part's top and left; int32, how many times shorter than they
        are stored the sides of the image are that it is a part of, rounded up; and int32[2], height
        and width of the image as it is stored, upright.

    Raises:
        tf.errors.InvalidArgumentError: as `decode_image`.
    """

    def turned(encoded):
        return exif.orientation(encoded) if upright else None

    def from_jpeg():
        size = tf.stack(jpeg.size(encoded, max_pixels))

        def ratio(whole, window):
            return ratio_of_window(window, shrinks(whole, window), scaled_decoding)

        def pixels(window, ratio):
            return jpeg.decode_window(encoded, window, ratio)

        return _cut(of_jpeg, size, turned(encoded), ratio, pixels, margin)

    def from_shrunk():
        size, ratio, orientation, image, first = shrunk.read(encoded)
        stored = orientation if upright else None
        return _cut(of_jpeg, size, stored, lambda *_: ratio, _part_of(image, first), margin)

    @not_inlined
    def from_other(encoded):
        image = decode_other(encoded, max_pixels, has_webp)
        size = tf.shape(image)[:2]
        return _cut(
            of_other, size, turned(encoded), lambda *_: tf.constant(1), _part_of(image, 0), 0
        )

    def from_file():
        return tf.cond(is_jpeg(encoded), from_jpeg, lambda: from_other(encoded))

    if of_cache:
        pixels, *places = tf.cond(shrunk.is_shrunk(encoded), from_shrunk, from_file)
    else:
        pixels, *places = from_file()
    pixels.set_shape([None, None, 3])
    return pixels, *places


def _cut(
    window_of: Window,
    size: tf.Tensor,
    turned: tf.Tensor | None,
    ratio_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    pixels_of: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    margin: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """What `decode_window` returns.

    Args:
        window_of: the part wanted of the upright image.
        size: int32[2], of the image as it is stored.
        turned: EXIF's orientation; None where it is not applied.
        ratio_of: from the upright size and the window to how many times shorter sides are decoded.
        pixels_of: from a window of the shorter stored image, and that ratio, to its pixels.
        margin: see `decode_window`.
    """
    whole = size if turned is None else exif.turned_size(size, turned)
    window = window_of(whole)
    ratio = ratio_of(whole, window)
    smaller = (whole + ratio - 1) // ratio
    window = _scaled(window, ratio, smaller, margin)
    if turned is None:
        return pixels_of(window, ratio), window[:2], ratio, whole
    pixels = pixels_of(exif.stored_window(window, smaller, turned), ratio)
    return exif.turn(pixels, turned), window[:2], ratio, whole


def _part_of(image: tf.Tensor, first: tf.Tensor | int) -> Callable[..., tf.Tensor]:
    """The `pixels_of` of an image that is decoded already, from its row `first` on."""

    def part(window: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        top, left, height, width = tf.unstack(window)
        return tf.slice(image, tf.stack([first + top, left, 0]), tf.stack([height, width, 3]))

    return part


def ratio_of_window(window: tf.Tensor, shrinks: tf.Tensor, scaled_decoding: str) -> tf.Tensor:
    """int32: the one of RATIOS at which a JPEG's window, int32[4], is decoded.

    The largest one that leaves twice the sides wanted, so that the resizing after it decides how
    sharp the image becomes (PIL's `reducing_gap`); and none that leaves more than LARGE_WINDOW
    pixels.
    """
    ratios = tf.constant(jpeg.RATIOS, tf.float32)
    area = tf.reduce_prod(tf.cast(window[2:], tf.float32))
    sharp = tf.reduce_sum(tf.cast(2.0 * ratios[1:] <= shrinks, tf.int32))
    small = tf.reduce_sum(tf.cast(area / ratios[:-1] ** 2 > LARGE_WINDOW, tf.int32))
    if scaled_decoding == "never":
        sharp = tf.where(small > 0, sharp, 0)
    return tf.gather(jpeg.RATIOS, tf.maximum(sharp, small))


def _scaled(window: tf.Tensor, ratio: tf.Tensor, size: tf.Tensor, margin: int) -> tf.Tensor:
    """int32[4]: a window of an image in one with sides of 1 / ratio, to the nearest pixel.

    Args:
        window: int32[4].
        ratio: int32; of 1 the window stays what it is.
        size: int32[2], height and width of the smaller image.
        margin: pixels of the smaller image that are added on each side, where there are so many.
    """
    margin = tf.where(ratio > 1, margin, 0)
    first = (window[:2] + ratio // 2) // ratio - margin
    last = (window[:2] + window[2:] + ratio // 2) // ratio + margin
    first, last = tf.maximum(first, 0), tf.minimum(last, size)
    return tf.concat([first, tf.maximum(last - first, 1)], 0)


def claimed_pixels(encoded: tf.Tensor) -> tf.Tensor:
    """float32: about how many pixels decoding a file takes memory for; 0 where it is no image.

    As its first bytes say, without a search in it. A frame that is larger than its canvas is not
    decoded where it is larger than `limits.SMALL_FRAME`, either.
    """

    def of_jpeg():
        return tf.image.extract_jpeg_shape(encoded)[:2]

    @not_inlined
    def of_other(encoded):
        matches = [tf.strings.substr(encoded, 0, len(kind.START)) == kind.START for kind in _KINDS]
        return tf.switch_case(
            tf.argmax(tf.stack([*matches, True]), output_type=tf.int32),
            [
                *[lambda claimed=kind.claimed_size: claimed(encoded) for kind in _KINDS],
                lambda: tf.zeros([2], tf.int32),
            ],
        )

    size = tf.cond(is_jpeg(encoded), of_jpeg, lambda: of_other(encoded))
    return tf.reduce_prod(tf.cast(tf.abs(size), tf.float32))


@not_inlined
def decode_other(
    encoded: tf.Tensor, max_pixels: int = MAX_PIXELS, has_webp: bool = True
) -> tf.Tensor:
    """As `decode_image`, for files that are no JPEG; `has_webp` as of `decode_window`."""
    decoders = [webp.refuse if kind is webp and not has_webp else kind.decode for kind in _KINDS]
    matches = tf.stack(
        [tf.strings.substr(encoded, 0, len(kind.START)) == kind.START for kind in _KINDS] + [True]
    )
    image = tf.switch_case(
        tf.cast(tf.argmax(matches), tf.int32),
        [
            *[lambda decode=decode: decode(encoded, max_pixels) for decode in decoders],
            lambda: _refuse(encoded),
        ],
    )
    image.set_shape([None, None, 3])
    return image


def _refuse(encoded: tf.Tensor) -> tf.Tensor:
    # TensorFlow's own words for bytes of no known format.
    return tf.io.decode_image(encoded, channels=3, expand_animations=False)
