"""mixup and CutMix: the pipeline draws the numbers, and whoever trains mixes.

The images stay uint8 up to the device, where `keras_resnet.training.mixing` does it.
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
    """The numbers of batch `step`: float32[6].

    The weight of an image outside the box (inside it is 0, the rest is its partner's), its share of
    the target, and the box's top, left, bottom and right in pixels, the last two exclusive.

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
