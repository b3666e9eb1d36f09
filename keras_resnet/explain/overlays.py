"""Heat maps as pictures: over a photo, under a curve, on a strip of frames. NumPy only."""

import os
from typing import Any

import numpy as np

# From cold to hot: five of matplotlib's "inferno", which is read alike by color-blind people and
# in print.
_COLORS = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], "float32"
)
OPACITY = 0.7
_CURVE_SIZE = (160, 640)
_FRAMES = 8


def overlay(
    photo: Any,
    heatmap: np.ndarray,
    *,
    opacity: float = OPACITY,
    scale: float | None = None,
    model: Any = None,
) -> np.ndarray:
    """Lays a heat map over what it belongs to.

    The hotter a place, the more of its color covers the photo; what is 0 or less stays as it is.

    Args:
        photo: what the network saw. Of an image an array of pixels, uint8 [h, w, 3] or [h, w], or
            its path; of a 1-D network an array [steps, channels] or [steps], drawn as curves; of a
            3-D one [frames, h, w, channels], of which up to 8 frames are put beside each other.
        heatmap: float, [h', w'] for an image, [steps'] or [frames', h', w'], of any size: its cells
            lie evenly on the photo.
        opacity: of the hottest place, 0 to 1.
        scale: the heat of the strongest color; by default the map's greatest. Give maps that are to
            be compared the same.
        model: for a path: crops the photo as this model's `preprocessing` does, which is what heat
            maps lie on. Needs TensorFlow.

    Returns:
        uint8 [h, w, 3].

    Raises:
        ValueError: the ranks of the two do not fit, or a value is out of its range; quotes it.
        OSError: the path cannot be read.
    """
    heat = np.asarray(heatmap, "float32")
    if not 0 <= opacity <= 1:
        raise ValueError(f"`opacity` must be from 0 to 1, received {opacity!r}.")
    if scale is not None and not scale > 0:
        raise ValueError(f"`scale` must be above 0, received {scale!r}.")
    if heat.ndim not in (1, 2, 3) or not heat.size:
        raise ValueError(
            f"`heatmap` is one map of one, two or three axes, such as maps.values[0, 0]; received "
            f"the shape {heat.shape}."
        )
    pixels = _pixels(photo, model)
    _check_ranks(pixels, heat)
    strength = np.clip(heat / (scale or max(heat.max(), 1e-30)), 0, 1)
    if heat.ndim == 1:
        picture = draw_curves(pixels)
        strength = np.broadcast_to(resize(strength, picture.shape[1:2]), picture.shape[:2])
        return _blend(picture, strength, opacity, keep=picture.min(axis=-1) < 128)
    if heat.ndim == 2:
        picture = as_photo(pixels)
        return _blend(picture, resize(strength, picture.shape[:2]), opacity)
    strength = resize(strength, pixels.shape[:3])
    frames = np.unique(np.linspace(0, len(pixels) - 1, _FRAMES).round().astype(int))
    video = as_photo(pixels)
    return np.concatenate([_blend(video[i], strength[i], opacity) for i in frames], axis=1)


def _pixels(photo: Any, model: Any) -> np.ndarray:
    if model is not None:
        from keras_resnet.explain.photos import decode
        from keras_resnet.images import encode

        batch = decode(["photo"], [("photo", encode(photo))], model)
        if batch.problems:
            raise ValueError(f"The photo {batch.problems['photo']}")
        return batch.pixels[0]
    if not isinstance(photo, (str, os.PathLike)):
        return np.asarray(photo)
    import tensorflow as tf

    from keras_resnet.input_pipeline.decoding import decode_image
    from keras_resnet.input_pipeline.places import read_image

    return decode_image(tf.constant(read_image(photo))).numpy()


def _check_ranks(pixels: np.ndarray, heat: np.ndarray) -> None:
    if pixels.ndim not in (heat.ndim, heat.ndim + 1):
        raise ValueError(
            f"A heat map of the shape {heat.shape} belongs to an input of {heat.ndim} axes, with "
            f"or without one of channels; received `photo` of the shape {pixels.shape}."
        )
    if heat.ndim == 3 and pixels.ndim == 3:
        raise ValueError(
            f"A video is [frames, h, w, channels]; received `photo` of the shape {pixels.shape}."
        )


def as_photo(pixels: np.ndarray) -> np.ndarray:
    """uint8 [..., h, w, 3] of pixels of one channel, three or others, of any range.

    What is uint8 is taken as it is; other values are stretched to 0..255.
    """
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        pixels = ((pixels - low) / max(high - low, 1e-30) * 255).round().astype(np.uint8)
    if pixels.shape[-1] == 3:
        return pixels
    return np.repeat(pixels[..., :1] if pixels.shape[-1] == 1 else _mean(pixels), 3, axis=-1)


def _mean(pixels: np.ndarray) -> np.ndarray:
    return pixels.mean(axis=-1, keepdims=True).round().astype(np.uint8)


def draw_curves(signal: np.ndarray) -> np.ndarray:
    """A picture of a signal [steps, channels] or [steps]: a band of its range for each column."""
    height, width = _CURVE_SIZE
    signal = signal.reshape(len(signal), -1).astype("float32")
    picture = np.full((height, width, 3), 255, np.uint8)
    low, high = float(signal.min()), float(signal.max())
    rows = (height - 5) * (1 - (signal - low) / max(high - low, 1e-30)) + 2
    # At every border of a column the curve is a value between two samples.
    borders = np.linspace(0, len(signal) - 1, width + 1)
    column_of = np.clip(np.arange(len(signal)) * width // max(len(signal) - 1, 1), 0, width - 1)
    for channel in rows.T:
        ends = np.interp(borders, np.arange(len(signal)), channel)
        top, bottom = np.minimum(ends[:-1], ends[1:]), np.maximum(ends[:-1], ends[1:])
        np.minimum.at(top, column_of, channel)
        np.maximum.at(bottom, column_of, channel)
        lines = np.arange(height)[:, None]
        picture[(lines >= np.floor(top)) & (lines <= np.ceil(bottom))] = (30, 30, 30)
    return picture


def resize(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values of cells, spread over more or fewer places, linearly between the cells' centers."""
    for axis, size in enumerate(shape):
        count = values.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
        lower = np.floor(place).astype(int)
        share = (place - lower).astype("float32")
        share = share.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        upper = np.minimum(lower + 1, count - 1)
        values = values.take(lower, axis) * (1 - share) + values.take(upper, axis) * share
    return values


def _blend(
    picture: np.ndarray, strength: np.ndarray, opacity: float, keep: np.ndarray | None = None
) -> np.ndarray:
    places = np.linspace(0, 1, len(_COLORS))
    colors = np.stack([np.interp(strength, places, _COLORS[:, i]) for i in range(3)], axis=-1)
    share = (opacity * strength)[..., None]
    if keep is not None:  # the curve stays in front
        share = np.where(keep[..., None], 0, share)
    return (picture * (1 - share) + colors * share).round().astype(np.uint8)
