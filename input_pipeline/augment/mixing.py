"""mixup and CutMix: the pipeline draws the numbers, the device mixes.

Images cross to the device as uint8 and are mixed there in float32, so nothing is rounded. Each
example's partner is its neighbor: 0 and 1, 2 and 3, … of the batch. As the order is a fresh
permutation, that is as random as any other pairing, and every replica finds its partners in its
own part: the mixed batch does not depend on the number of replicas and hosts.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_resnet.input_pipeline import order

# Chance of CutMix where both are on; timm's switch_prob.
_CUTMIX_SHARE = 0.5


def mix_numbers(
    augment: Mapping[str, Any], *, seed: int, step: tf.Tensor, image_size: int
) -> tf.Tensor:
    """The numbers of batch `step`: float32[6], see `mix_images`.

    Zhang et al. 2018 (mixup), section 2: weight of the image ~ Beta(alpha, alpha). Yun et al. 2019
    (CutMix), section 3.1: a box of 1 - weight of the area and the image's shape, its center
    uniform; what the border cuts off goes back to the weight, as in timm and the authors' code.
    One draw for the whole batch, and where both are on one of them for each batch, as in timm.
    """
    uniform = tf.random.stateless_uniform(
        [4], seed=order.stateless_seed(seed, "mix", step), alg="philox"
    )
    alphas = [augment.get("mixup", 0.0), augment.get("cutmix", 0.0)]
    share = _CUTMIX_SHARE if all(alphas) else float(bool(alphas[1]))
    cutmix = uniform[1] < share
    beta = _beta(tf.where(cutmix, alphas[1] or 1.0, alphas[0] or 1.0), seed, step)
    weight = tf.where(uniform[0] < augment["mix_probability"], beta, 1.0)
    box, box_weight = _cutmix_box(weight, uniform[2:], image_size)
    whole = tf.ones([1])
    with_box = tf.concat([whole, box_weight[None], box], 0)
    without = tf.concat([weight[None], weight[None], tf.zeros([4])], 0)
    return tf.where(cutmix, with_box, without)


def _beta(alpha: tf.Tensor, seed: int, step: tf.Tensor) -> tf.Tensor:
    # Beta(a, a) = X / (X + Y) of two gamma variables; X ~ Gamma(a) = Gamma(a + 1) U^(1/a). In
    # logarithms, for with a small alpha both are often below the smallest float.
    gamma = tf.random.stateless_gamma(
        [2], seed=order.stateless_seed(seed, "mix gamma", step), alpha=alpha + 1.0
    )
    uniform = tf.random.stateless_uniform(
        [2], seed=order.stateless_seed(seed, "mix power", step), alg="philox"
    )
    logarithms = tf.math.log(gamma) + tf.math.log(uniform + 2.0**-25) / alpha
    return tf.sigmoid(logarithms[0] - logarithms[1])


def _cutmix_box(
    weight: tf.Tensor, center: tf.Tensor, image_size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    # timm's rand_bbox: sides cut to whole pixels, the center a whole pixel inside the image.
    side = tf.floor(image_size * tf.sqrt(1.0 - weight))
    center = tf.minimum(tf.floor(center * image_size), image_size - 1.0)
    start = tf.maximum(center - tf.floor(side / 2), 0.0)
    stop = tf.minimum(center + tf.floor((side + 1) / 2), float(image_size))
    area = tf.reduce_prod(stop - start)
    return tf.concat([start, stop], 0), 1.0 - area / image_size**2


def mix_images(images: tf.Tensor, mix: tf.Tensor) -> tf.Tensor:
    """Mixes each image with its neighbor's.

    Args:
        images: uint8 or float[b, h, w, 3], b even and static.
        mix: float32[b, 6], a row for each image: its weight outside the box (inside it is 0), its
            share of the target, and the box's top, left, bottom and right in pixels, the last
            two exclusive.

    Returns:
        float32[b, h, w, 3], in the range of `images`.
    """
    images = tf.cast(images, tf.float32)
    rows = tf.range(images.shape[1], dtype=tf.float32)[None, :, None, None]
    columns = tf.range(images.shape[2], dtype=tf.float32)[None, None, :, None]
    weight, _, top, left, bottom, right = (
        mix[:, place, None, None, None] for place in range(mix.shape[1])
    )
    in_box = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    weight = tf.where(in_box, 0.0, weight)
    return weight * images + (1.0 - weight) * neighbors(images)


def mix_targets(targets: tf.Tensor, mix: tf.Tensor) -> tf.Tensor:
    """Mixes float[b, classes] targets, smoothed or not, by the shares in `mix_images`' rows."""
    share = tf.cast(mix[:, 1:2], targets.dtype)
    return share * targets + (1 - share) * neighbors(targets)


def major_labels(labels: tf.Tensor, mix: tf.Tensor) -> tf.Tensor:
    """The label, or row of labels [b, classes], with the larger share of each target."""
    own = tf.reshape(mix[:, 1] >= 0.5, [-1] + [1] * (labels.shape.rank - 1))
    return tf.where(own, labels, neighbors(labels))


def neighbors(values: tf.Tensor) -> tf.Tensor:
    """[b, …] with rows 0 and 1, 2 and 3, … exchanged; b is even and static."""
    size, *rest = values.shape
    pairs = tf.reshape(values, [size // 2, 2, *rest])
    return tf.reshape(tf.reverse(pairs, [1]), [size, *rest])
