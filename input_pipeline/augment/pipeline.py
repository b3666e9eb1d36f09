"""The augmentations in the order they are applied, and the random numbers of each.

The order is timm's and torchvision's: crop, flip, policy, color jitter, random erasing, and
mixup or CutMix last, on the device.
"""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_resnet.input_pipeline import order
from keras_resnet.input_pipeline.augment import crop, mixing
from keras_resnet.input_pipeline.augment.settings import AUGMENTATIONS, mixes
from keras_resnet.input_pipeline.preprocessing import resize_and_center_crop


def random_numbers(
    augment: Mapping[str, Any],
    *,
    seed: int,
    step: tf.Tensor,
    batch_size: int,
    image_size: int,
) -> dict[str, tf.Tensor]:
    """The random numbers of the global batch `step`, a row for each example.

    Args:
        augment: what `check_augment` returned.
        image_size: pixels, for the boxes of CutMix.

    Returns:
        float32[batch_size, k] in [0, 1) for each augmentation of single images, and "mix", the
        rows of `mixing.mix_numbers`, where batches are mixed.
    """
    counts = {
        name: count
        for name, value in augment.items()
        if (count := AUGMENTATIONS[name].random_count(value))
    }
    numbers = {
        name: tf.random.stateless_uniform(
            [batch_size, count], seed=order.stateless_seed(seed, name, step), alg="philox"
        )
        for name, count in counts.items()
    }
    if mixes(augment):
        mix = mixing.mix_numbers(augment, seed=seed, step=step, image_size=image_size)
        numbers["mix"] = tf.tile(mix[None], [batch_size, 1])
    return numbers


def batch_extras(numbers: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What a batch carries beside images and labels: "mix" where batches are mixed."""
    if "mix" not in numbers:
        return {}
    # The values are 0 or more, so this only copies: tf.data complains with an error line for each
    # element when it batches the slices that it handed to a function again.
    return {"mix": tf.maximum(numbers["mix"], 0.0)}


def training_image(
    encoded: tf.Tensor,
    numbers: Mapping[str, tf.Tensor],
    augment: Mapping[str, Any],
    size: int,
    **decoding: Any,
) -> tf.Tensor:
    """Decodes one file to uint8[size, size, 3].

    With `random_resized_crop` that is the Inception crop, flipped where that is asked for;
    otherwise the short side is resized to `size` and the central square is taken (an image of
    that size already is left alone), and `augment_images` flips.

    Args:
        encoded: scalar string.
        numbers: this example's row of `random_numbers`.
        **decoding: upright, max_pixels, scaled_decoding and of_cache of `decode_window`.
    """
    if "random_resized_crop" in augment:
        image = crop.random_resized_crop(encoded, numbers["random_resized_crop"], size, **decoding)
        return crop.flip_one(image, numbers["flip"]) if "flip" in numbers else image
    return resize_and_center_crop(encoded, image_size=size, **decoding)


def augment_images(
    images: tf.Tensor, numbers: Mapping[str, tf.Tensor], augment: Mapping[str, Any]
) -> tf.Tensor:
    """What `training_image` left, on images of equal size: uint8[n, h, w, 3] in and out."""
    images = crop.crop_and_flip(
        images,
        padding=augment.get("crop_padding", 0),
        crop=numbers.get("crop_padding"),
        flip=None if "random_resized_crop" in augment else numbers.get("flip"),
    )
    single = [AUGMENTATIONS[name] for name in AUGMENTATIONS if name in augment]
    applied = {row.name: row.of_image for row in single if row.of_image is not None}
    if not applied:
        return images
    rows = {
        name: AUGMENTATIONS[name].prepare(augment[name], numbers[name], images.shape[1:3])
        for name in applied
    }
    shape = images.shape[1:]

    def augment_one(example: tuple[tf.Tensor, dict[str, Any]]) -> tf.Tensor:
        image, rows = example
        image = tf.ensure_shape(image, shape)
        for name, of_image in applied.items():
            image = of_image(image, augment[name], rows[name])
        return image

    if images.shape[0] == 1:  # a loop of one would still cost
        return augment_one(tf.nest.map_structure(lambda row: row[0], (images, rows)))[None]
    return tf.map_fn(
        augment_one, (images, rows), fn_output_signature=tf.TensorSpec(shape, tf.uint8)
    )
