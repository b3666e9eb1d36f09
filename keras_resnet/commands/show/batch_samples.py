"""The first batches of training and evaluation as arrays, for people to look at."""

import dataclasses

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from keras_resnet import input_pipeline
from keras_resnet.commands.show.contact_sheet import Section, caption
from keras_resnet.config import preprocessing, training_image_size
from keras_resnet.training.broken_images import explain_broken_images
from keras_resnet.training.data import open_source
from keras_resnet.training.mixing import mix_images, neighbors
from keras_resnet.training.tensorflow.precision import precision_here


@dataclasses.dataclass
class Sample:
    """What was read of one split.

    Attributes:
        section: the images to show.
        layout: how the files were found to lie, or "".
        class_names: of the split.
        labels: int32[n] of all batches that were read, without padding.
        pixels: the images shown, 0..255, float32 where training mixes them.
        normalized: `pixels` as the model gets them, float32.
    """

    section: Section
    layout: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    pixels: np.ndarray
    normalized: np.ndarray


def training_sample(config: ConfigDict, count: int) -> Sample:
    """Returns the first `count` training images of the run, from its very first batches.

    Raises:
        input_pipeline.DataError: the data set cannot be used.
    """
    source = open_source(config, config.data.train_split)
    with explain_broken_images(source):
        batches = input_pipeline.train_batches(
            source,
            batch_size=config.batch_size,
            seed=config.seed,
            num_steps=-(-count // config.batch_size),
            image_size=training_image_size(config),
            augment=config.data.augment.to_dict(),
            sampler=config.data.sampler,
        )
        labels, shown = _read(batches, count)
    return _sample(config, source, "training, as augmented", labels, shown)


def evaluation_sample(config: ConfigDict, count: int) -> Sample:
    """Returns the first `count` images of the evaluation split, or all if there are fewer.

    Raises:
        input_pipeline.DataError: the data set cannot be used.
    """
    source = open_source(config, config.data.eval_split)
    with explain_broken_images(source):
        batches = input_pipeline.evaluation_batches(
            source, batch_size=config.batch_size, preprocessing=preprocessing(config)
        )
        labels, shown = _read(batches.take(-(-count // config.batch_size)), count)
    return _sample(config, source, "evaluation", labels, shown)


def _read(batches: tf.data.Dataset, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns all labels, and of the first `count` examples what `_mixed` gives."""
    labels, parts = [], []
    even = count + count % 2  # the partner of the last one is needed too
    for batch in batches:
        if "mask" in batch:
            batch = {key: value[batch["mask"] > 0] for key, value in batch.items()}
        labels.append(batch["label"].numpy())
        parts.append(_mixed({key: value[:even] for key, value in batch.items()}))
    columns = [np.concatenate(column)[:count] for column in zip(*parts, strict=True)]
    return np.concatenate(labels), columns


def _mixed(batch: dict[str, tf.Tensor]) -> tuple[np.ndarray, ...]:
    """Returns (images, labels, labels of the partners, shares of the own labels)."""
    images, labels = batch["image"], batch["label"]
    if "mix" not in batch:
        return images.numpy(), labels.numpy(), labels.numpy(), np.ones(len(labels))
    shares = batch["mix"].numpy()[:, 1]
    images = mix_images(images, batch["mix"])
    return images.numpy(), labels.numpy(), neighbors(labels).numpy(), shares


def _sample(
    config: ConfigDict,
    source: input_pipeline.Source,
    kind: str,
    labels: np.ndarray,
    shown: list[np.ndarray],
) -> Sample:
    pixels, own, partners, shares = shown
    dtype = "bfloat16" if precision_here(config) == "mixed_bfloat16" else "float32"
    normalized = input_pipeline.normalize(pixels, preprocessing(config), dtype=dtype)
    captions = [
        caption(source.class_names, *example) for example in zip(own, partners, shares, strict=True)
    ]
    return Sample(
        section=Section(
            f"{kind}: {source.description}", np.round(pixels).astype(np.uint8), captions
        ),
        layout=source.layout,
        class_names=source.class_names,
        labels=labels,
        pixels=pixels,
        normalized=tf.cast(normalized, tf.float32).numpy(),
    )
