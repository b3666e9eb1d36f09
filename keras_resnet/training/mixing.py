"""mixup and CutMix on the device, on any backend of Keras.

The pipeline draws the numbers (`input_pipeline.augment.mixing.mix_numbers`) and images cross to the
device as uint8, where they are mixed in float32, so nothing is rounded. Each example's partner is
its neighbor: 0 and 1, 2 and 3, … of the batch. As the order is a fresh permutation, that is as
random as any other pairing, and every replica finds its partners in its own part: the mixed batch
does not depend on the number of replicas and hosts.
"""

from typing import Any

from keras import ops


def mix_images(images: Any, mix: Any) -> Any:
    """Mixes each image with its neighbor's.

    Args:
        images: uint8 or float[b, h, w, 3], b even and static.
        mix: float32[b, 6], a row for each image: its weight outside the box (inside it is 0), its
            share of the target, and the box's top, left, bottom and right in pixels, the last
            two exclusive.

    Returns:
        float32[b, h, w, 3], in the range of `images`.
    """
    images = ops.cast(images, "float32")
    rows = ops.arange(images.shape[1], dtype="float32")[None, :, None, None]
    columns = ops.arange(images.shape[2], dtype="float32")[None, None, :, None]
    weight, _, top, left, bottom, right = (
        mix[:, place, None, None, None] for place in range(mix.shape[1])
    )
    in_box = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    weight = ops.where(in_box, 0.0, weight)
    return weight * images + (1.0 - weight) * neighbors(images)


def mix_targets(targets: Any, mix: Any) -> Any:
    """Mixes float[b, classes] targets, smoothed or not, by the shares in `mix_images`' rows."""
    share = ops.cast(mix[:, 1:2], targets.dtype)
    return share * targets + (1 - share) * neighbors(targets)


def major_labels(labels: Any, mix: Any) -> Any:
    """The label, or row of labels [b, classes], with the larger share of each target."""
    own = ops.reshape(mix[:, 1] >= 0.5, [-1] + [1] * (len(labels.shape) - 1))
    return ops.where(own, labels, neighbors(labels))


def neighbors(values: Any) -> Any:
    """[b, …] with rows 0 and 1, 2 and 3, … exchanged; b is even and static."""
    size, *rest = values.shape
    pairs = ops.reshape(values, [size // 2, 2, *rest])
    return ops.reshape(ops.flip(pairs, 1), [size, *rest])
