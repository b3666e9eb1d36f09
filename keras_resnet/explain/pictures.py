"""Shots as pictures of a handy size. Making them loads TensorFlow."""

import numpy as np

from keras_resnet.explain.gallery import Shot
from keras_resnet.explain.label_set_gallery import Answer
from keras_resnet.explain.overlays import overlay

# Smaller photos are enlarged by a whole factor, so that their heat maps are smooth.
SIDE = 144


def sized(photo: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A square photo of about `side` pixels, uint8."""
    size = len(photo)
    if size <= side:
        factor = side // size
        return photo.repeat(factor, axis=0).repeat(factor, axis=1)
    import tensorflow as tf

    smaller = tf.image.resize(photo, (side, side), antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(smaller, 0, 255)), tf.uint8).numpy()


def with_heat(shot: Shot, heat: np.ndarray | None) -> np.ndarray:
    """The photo under a heat map, on the scale of the hotter one of the shot."""
    photo = sized(shot.photo)
    if heat is None:
        return photo
    both = [one.max() for one in (shot.heat_of_prediction, shot.heat_of_label) if one is not None]
    return overlay(photo, heat, scale=float(max(both)) or None)


def answer_with_heat(answer: Answer) -> np.ndarray:
    """The photo of an answer under what speaks for its class."""
    return overlay(sized(answer.photo), answer.heat)


def as_jpeg(photo: np.ndarray) -> bytes:
    """A JPEG file of uint8 [h, w, 3]."""
    import tensorflow as tf

    return tf.io.encode_jpeg(photo, quality=85).numpy()
