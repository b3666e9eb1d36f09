"""Going on where an image is corrupt, inside the graph.

A graph cannot catch an error, but a data set of one element can ignore it. So a chunk is loaded as
a whole first, at the cost of one nested data set; only if that fails is it loaded again row by row,
where each row that fails is noted and left blank.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_resnet.input_pipeline.corrupt_images import problem
from keras_resnet.input_pipeline.errors import DataError
from keras_resnet.input_pipeline.sources.base import Source

# The key that says which rows of a chunk could be loaded.
OK = "ok"

Chunk = dict[str, tf.Tensor]


def skip_corrupt(load: Callable[..., Chunk], source: Source) -> Callable[..., Chunk]:
    """`load` as it is, or, if the source skips corrupt images, a version that survives them.

    Args:
        load: from ids [n, …] (and further tensors of n rows) to a dict of tensors of n rows.
        source: notes what is skipped in `source.skipped`.

    Returns:
        A function as `load` whose result has one more key, OK: bool[n]; rows where it is False
        hold zeros. In the graph it raises what `SkippedImages.add` raises.
    """
    if source.skipped is None:
        return load

    def with_ok(*chunk):
        loaded = load(*chunk)
        return {**loaded, OK: tf.ones(tf.shape(loaded["label"])[:1], tf.bool)}

    def load_or_skip(*chunk):
        # The careful way is only walked if the first has given nothing.
        return _first_that_works(chunk, with_ok, lambda spec: _row_by_row(spec, with_ok, source))

    return load_or_skip


def _first_that_works(
    inputs: tuple, first: Callable, make_second: Callable[[dict], Callable]
) -> Chunk:
    # `make_second` gets the element_spec of what `first` gives.
    given = tf.data.Dataset.from_tensors(inputs)
    tried = given.map(first).ignore_errors()
    second = make_second(tried.element_spec)
    return tried.concatenate(given.map(second)).take(1).get_single_element()


def _row_by_row(chunk_spec: dict, load: Callable, source: Source) -> Callable[..., Chunk]:
    signature = {
        key: tf.TensorSpec(tensor.shape[1:], tensor.dtype) for key, tensor in chunk_spec.items()
    }

    def skip(*row):
        noted = tf.numpy_function(lambda ids: _note(source, ids), [row[0]], tf.int64)
        with tf.control_dependencies([noted]):
            return {key: tf.zeros([1, *spec.shape], spec.dtype) for key, spec in signature.items()}

    def load_row(row):
        one = tf.nest.map_structure(lambda values: values[None], row)
        loaded = _first_that_works(one, load, lambda _: skip)
        return {key: values[0] for key, values in loaded.items()}

    return lambda *chunk: tf.map_fn(load_row, chunk, fn_output_signature=signature)


def _note(source: Source, ids: np.ndarray) -> np.int64:
    example_id = ids[0]
    # What the decoder takes may still fail on a part of it, which the crop asks for.
    found = (
        problem(lambda: source.read(example_id), source.max_pixels)
        or "is damaged: it cannot be cropped."
    )
    name = source.example_name(example_id)
    assert source.skipped is not None  # without it nothing is skipped
    source.skipped.add(name, f"{name} {found}")
    return np.int64(0)


def replace_skipped(batch: Chunk) -> Chunk:
    """A training batch in which the next good row stands in for each that was skipped.

    The next in the host's batch, cyclically: so a batch still is a function of the seed, its
    number and the host alone.

    Args:
        batch: with OK.

    Returns:
        `batch` without OK. In the graph it raises if no row is good.
    """
    fine = batch.pop(OK)

    def replaced():
        good = tf.where(fine)[:, 0]
        some = tf.numpy_function(_check_some, [tf.size(good)], tf.int64)
        with tf.control_dependencies([some]):
            place = tf.searchsorted(good, tf.range(tf.size(fine, tf.int64), dtype=tf.int64))
        chosen = tf.gather(good, place % tf.size(good))
        return {key: tf.gather(values, chosen) for key, values in batch.items()}

    # Copied only where it must be.
    result = tf.cond(tf.reduce_all(fine), lambda: dict(batch), replaced)
    return {key: tf.ensure_shape(values, batch[key].shape) for key, values in result.items()}


def _check_some(count: np.ndarray) -> np.int64:
    if not count:
        raise DataError("No image of a batch can be read, so none can stand in for the others.")
    return np.int64(0)
