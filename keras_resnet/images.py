"""From image files to what a model takes, and from its outputs to class names, in one call each."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_resnet.layers.normalize_images import NormalizeImages
from keras_resnet.preprocessing import Preprocessing

__all__ = ["decode_predictions", "preprocess", "preprocessing_layer"]


def preprocess(model: keras.Model, images: Any) -> np.ndarray:
    """Images as the model takes them: resized, cropped and normalized as in its evaluation.

    Needs TensorFlow, whatever Keras' backend is: it is the one function that evaluation, prediction
    and exports use.

    Args:
        model: a network with `preprocessing`.
        images: the path of an image file, an array of RGB pixels of 0 to 255 (h, w, 3), or a
            list of those, of any sizes; an array (n, h, w, 3) is n images, and PIL's images are
            arrays.

    Returns:
        float32[n, size, size, 3], or [n, 3, size, size] for a "channels_first" model.

    Raises:
        ValueError: the model has no preprocessing, or an array holds no RGB pixels.
        OSError: a file cannot be read.
    """
    import tensorflow as tf

    from keras_resnet import input_pipeline

    preprocessing = preprocessing_of(model)
    encoded = [encode(image) for image in as_list(images)]
    evaluate = _evaluator(preprocessing)
    pixels = [evaluate(tf.constant(file)).numpy() for file in encoded]
    size = preprocessing.image_size
    batch = np.stack(pixels) if pixels else np.zeros((0, size, size, 3), np.uint8)
    batch = input_pipeline.normalize(batch, preprocessing).numpy()
    return batch if data_format_of(model) == "channels_last" else np.moveaxis(batch, -1, 1)


def preprocessing_layer(model: keras.Model) -> NormalizeImages:
    """The normalization that the model wants, as a layer to be saved with it.

        inputs = keras.Input((224, 224, 3), dtype="uint8")
        whole = keras.Model(inputs, model(preprocessing_layer(model)(inputs)))

    It takes RGB pixels of 0 to 255 of the size that the model takes, and does not resize.

    Raises:
        ValueError: the model has no preprocessing.
    """
    wanted = preprocessing_of(model)
    return NormalizeImages(
        wanted.mean, wanted.std, wanted.channel_order, data_format_of(model), name="preprocessing"
    )


def decode_predictions(
    model: keras.Model, probabilities: Any, top: int = 5
) -> list[list[tuple[int, str, float]]]:
    """The most probable classes of each image, the most probable first.

    Args:
        model: whose `class_names` name the classes; without them the numbers do.
        probabilities: float[n, classes], what the model returned.
        top: how many classes; all if there are fewer.

    Returns:
        For each image a list of (number of the class, its name, probability).

    Raises:
        ValueError: `probabilities` are not of the model's classes, or `top` is not positive.
    """
    values = np.asarray(keras.ops.convert_to_numpy(probabilities), "float32")
    classes = model.output_shape[-1]
    if values.ndim != 2 or values.shape[1] != classes:
        raise ValueError(
            f"`probabilities` are what {model.name!r} returns, of shape (images, {classes}); "
            f"received the shape {values.shape}."
        )
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise ValueError(f"`top` must be a positive integer, received {top!r}.")
    names: Sequence[str] = getattr(model, "class_names", None) or [str(n) for n in range(classes)]
    order = np.argsort(-values, axis=1, kind="stable")[:, :top]
    return [
        [(int(label), names[label], float(row[label])) for label in labels]
        for row, labels in zip(values, order, strict=True)
    ]


@functools.lru_cache(maxsize=8)
def _evaluator(preprocessing: Preprocessing) -> Callable[[Any], Any]:
    """`evaluation_image`, built once: that takes longer than preparing a photo."""
    import tensorflow as tf

    from keras_resnet import input_pipeline

    return tf.function(lambda file: input_pipeline.evaluation_image(file, preprocessing))


def preprocessing_of(model: keras.Model) -> Preprocessing:
    """The model's preprocessing; raises ValueError if it has none."""
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is None:
        raise ValueError(
            f"{model.name!r} does not say how its images are prepared; set model.preprocessing "
            "(see keras_resnet.preprocessing.Preprocessing)."
        )
    return preprocessing


def data_format_of(model: keras.Model) -> str:
    """Whether a network of RGB images takes them "channels_first" or "channels_last"."""
    last, first = model.input_shape[-1], model.input_shape[1]
    return "channels_first" if first == 3 and last != 3 else "channels_last"


def as_list(images: Any) -> Sequence[Any]:
    """One image, or several, as `preprocess` takes them, as several."""
    if isinstance(images, (str, os.PathLike)):
        return [images]
    many = isinstance(images, (list, tuple)) or getattr(images, "ndim", 3) == 4
    return images if many else [images]


def encode(image: Any) -> bytes:
    """The bytes of an image file: of a path its own, of an array those of a PNG, without loss."""
    if isinstance(image, (str, os.PathLike)):
        from keras_resnet.input_pipeline.other_formats import as_png
        from keras_resnet.input_pipeline.places import read_image

        return as_png(read_image(image))
    import tensorflow as tf

    pixels = np.asarray(image)
    rgb = pixels.ndim == 3 and pixels.shape[-1] == 3 and pixels.size
    # As `keras.utils.img_to_array` gives them, floats are whole numbers too.
    if not (rgb and pixels.dtype.kind in "fiu" and np.isin(pixels, np.arange(256)).all()):
        values = f", from {pixels.min()} to {pixels.max()}" if rgb else ""
        raise ValueError(
            "An image is a path or an array of RGB pixels (height, width, 3), whole numbers of 0 "
            f"to 255; received {type(image).__name__} of shape {pixels.shape} and dtype "
            f"{pixels.dtype}{values}."
        )
    return tf.io.encode_png(pixels.astype(np.uint8)).numpy()
