"""What is measured of each image file: its header, its size, and figures of a small gray copy.

Files are read and decoded by the graph that training uses, several at a time, so that "unreadable"
means what training refuses, and a file cannot ask for more memory than there.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.input_pipeline.places import refusal
from keras_resnet.inspection import file_headers
from keras_resnet.printing import to_bytes

SIDE = 32  # of the gray copy that is kept of each image
# Larger images are shrunk to this before anything is looked at: the size that networks see.
LOOKED_AT = 512
_HEAD = 2**16 + 32  # bytes of a file that are searched for EXIF: one segment of a JPEG is 64 KiB
_BATCH = 32


@dataclasses.dataclass
class Measurements:
    """Figures of the images that can be read; position i of each is image i.

    Attributes:
        files: numbers of the files, as they were given.
        sizes: int32 [n, 2], height and width in pixels as stored.
        bytes: int64 [n], of the file.
        content: uint64 [n], a fingerprint of the pixels (FarmHash).
        copies: uint8 [n, SIDE, SIDE], gray and upright, whatever the aspect ratio was.
        spread: float32 [n], standard deviation of the channel that varies most, in gray levels.
        sharpness: float32 [n], mean square of the Laplacian over the variance of the gray image.
        formats: what the content is, such as "JPEG".
        orientations: int8 [n], that of EXIF, 1 for upright.
        problems: number of a file that cannot be read or decoded -> a sentence.
    """

    files: np.ndarray
    sizes: np.ndarray
    bytes: np.ndarray
    content: np.ndarray
    copies: np.ndarray
    spread: np.ndarray
    sharpness: np.ndarray
    formats: list[str]
    orientations: np.ndarray
    problems: dict[int, str]


def measure(
    paths: Sequence[str], progress: Callable[[int], Any] = lambda count: None
) -> Measurements:
    """Reads and measures image files of this machine or of a bucket.

    Args:
        paths: of the files; bytes of a name that are no UTF-8 stand in it as `os.fsdecode` has it.
        progress: told how many files are done since the last call.
    """
    import tensorflow as tf

    problems = {place: found for place, path in enumerate(paths) if (found := refusal(path))}
    progress(len(problems))
    numbers = np.array([n for n in range(len(paths)) if n not in problems], np.int64)
    rows: dict[str, list[np.ndarray]] = {key: [] for key in _KEYS}
    if len(numbers):
        # On the processor, whatever else there is: nothing of it belongs onto a device.
        with tf.device("CPU:0"):
            names = tf.constant([to_bytes(paths[number]) for number in numbers])
            examples = tf.data.Dataset.from_tensor_slices((numbers, names))
            # What cannot be read or decoded is missing from what comes out, and is looked at below.
            measured = examples.map(
                _measure_file, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
            ).ignore_errors()
            for batch in measured.batch(_BATCH).prefetch(2).as_numpy_iterator():
                for key in _KEYS:
                    rows[key].append(batch[key])
                progress(len(batch["file"]))
    done = np.concatenate(rows["file"]) if rows["file"] else np.zeros(0, np.int64)
    for number in sorted(set(numbers.tolist()) - set(done.tolist())):
        problems[number] = _explain(paths[number])
        progress(1)
    return _in_order(rows, np.argsort(done), problems)


_KEYS = ("file", "head", "size", "bytes", "content", "copy", "spread", "sharpness")


def _in_order(
    rows: dict[str, list[np.ndarray]], order: np.ndarray, problems: dict[int, str]
) -> Measurements:
    empty: dict[str, np.ndarray] = {
        "size": np.zeros((0, 2), np.int32),
        "copy": np.zeros((0, SIDE, SIDE), np.uint8),
    }
    one: dict[str, np.ndarray] = {
        key: np.concatenate(parts)[order] if parts else empty.get(key, np.zeros(0, np.int64))
        for key, parts in rows.items()
    }
    headers = [file_headers.read(head) for head in one["head"]]
    copies = one["copy"]
    for place, header in enumerate(headers):
        if header.orientation != 1:
            copies[place] = file_headers.upright(copies[place], header.orientation)
    return Measurements(
        files=one["file"],
        sizes=one["size"],
        bytes=one["bytes"],
        content=one["content"].astype(np.uint64),
        copies=copies,
        spread=one["spread"].astype(np.float32),
        sharpness=one["sharpness"].astype(np.float32),
        formats=[header.format for header in headers],
        orientations=np.array([header.orientation for header in headers], np.int8),
        problems=problems,
    )


def _explain(path: str) -> str:
    import tensorflow as tf

    from keras_resnet.input_pipeline.corrupt_images import problem

    def read() -> bytes:
        return tf.io.read_file(to_bytes(path)).numpy()

    return problem(read) or "cannot be shrunk: it is damaged. Replace or remove it."


def _measure_file(number, name):
    import tensorflow as tf

    encoded = tf.io.read_file(name)
    pixels, size = decode_small(encoded)
    shown = tf.shape(pixels)[:2]
    digest = tf.raw_ops.Fingerprint(data=tf.reshape(pixels, [1, -1]), method="farmhash64")
    largest = tf.reduce_max(shown)
    image = tf.cond(
        largest > LOOKED_AT,
        lambda: _shrunk(pixels, tf.maximum(shown * LOOKED_AT // largest, 1)),
        lambda: tf.cast(pixels, tf.float32),
    )
    image.set_shape([None, None, 3])
    gray = tf.tensordot(image, [0.299, 0.587, 0.114], 1)
    copy = tf.image.resize(gray[..., None], [SIDE, SIDE], "area")[..., 0]
    return {
        "file": number,
        "head": tf.strings.substr(encoded, 0, _HEAD),
        "size": size,
        "bytes": tf.cast(tf.strings.length(encoded), tf.int64),
        "content": tf.bitcast(digest[0], tf.int64),
        "copy": tf.cast(tf.round(copy), tf.uint8),
        "spread": tf.reduce_max(tf.math.reduce_std(image, [0, 1])),
        "sharpness": _sharpness(gray),
    }


def decode_small(encoded):
    """uint8[h, w, 3], and int32[2], the size as stored; of a large JPEG a part of its size."""
    import tensorflow as tf

    from keras_resnet.input_pipeline import decoding
    from keras_resnet.input_pipeline.formats import jpeg
    from keras_resnet.preprocessing import MAX_PIXELS

    def from_jpeg():
        size = tf.stack(jpeg.size(encoded, MAX_PIXELS))
        # The smallest that leaves at least what is looked at.
        ratio = tf.reduce_sum(tf.cast(tf.reduce_max(size) // [2, 4, 8] >= LOOKED_AT, tf.int32))
        with tf.control_dependencies([size]):
            held = tf.identity(encoded)
        ways = [
            lambda ratio=ratio: tf.io.decode_jpeg(
                held, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE"
            )
            for ratio in (1, 2, 4, 8)
        ]
        return tf.switch_case(ratio, ways), size

    def from_other():
        pixels = decoding.decode_image(encoded)
        return pixels, tf.shape(pixels)[:2]

    pixels, size = tf.cond(decoding.is_jpeg(encoded), from_jpeg, from_other)
    pixels.set_shape([None, None, 3])
    size.set_shape([2])
    return pixels, size


def _shrunk(pixels, size):
    import tensorflow as tf

    return tf.image.resize(pixels, size, "area")


def _sharpness(gray):
    import tensorflow as tf

    middle = gray[1:-1, 1:-1]
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    edges = tf.math.reduce_mean(tf.square(around - 4 * middle))
    # An image of fewer than 3 pixels has no edges to look at.
    return tf.where(
        tf.size(middle) > 0, edges / (tf.math.reduce_variance(gray) + 1.0), tf.constant(1.0)
    )


def require_images(count: int, path: str) -> None:
    """Raises UserError for nothing to look at."""
    if not count:
        raise UserError(f"{path} holds no images")
