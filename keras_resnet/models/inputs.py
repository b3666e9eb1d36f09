"""The input of a network: its shape found acceptable, and what an image has to become for it."""

import numbers
from collections.abc import Sequence

import keras

from keras_resnet.architectures import Architecture
from keras_resnet.axes import compact
from keras_resnet.models.plans import total_strides
from keras_resnet.preprocessing import Preprocessing


def default_shape(
    row: Architecture, include_top: bool, channels: int, data_format: str
) -> tuple[int | None, ...]:
    """Images of the row's native size, of any size without classifier."""
    size = row.image_size if include_top else None
    last = data_format == "channels_last"
    return (size, size, channels) if last else (channels, size, size)


def make_input(row: Architecture, input_tensor, input_shape, data_format):
    """The tensor the network starts from, once its shape is found acceptable."""
    if input_tensor is None:
        input_tensor = keras.Input(_checked_shape(row, input_shape))
    shape = tuple(input_tensor.shape[1:])
    if len(shape) not in (2, 3, 4):
        raise ValueError(
            "`input_shape` has one, two or three spatial axes and one for the channels, received "
            f"{shape}."
        )
    space = _space(shape, data_format)
    strides = total_strides(row, len(space))
    # A video's frames, the first axis of three, may be as few as there are.
    least = (1, *strides[1:]) if len(space) == 3 else strides
    if any(size is not None and size < n for size, n in zip(space, least, strict=True)):
        one = compact(strides)
        wanted = (
            f"{one} pixels along each spatial axis"
            if isinstance(one, int)
            else (f"{' × '.join(map(str, least))} pixels")
        )
        raise ValueError(
            f"{row.name} needs at least {wanted}, received the shape {shape} ({data_format})."
        )
    return input_tensor


def _checked_shape(row: Architecture, input_shape) -> tuple[int | None, ...]:
    """`input_shape` as a tuple, if it is no slip for that of an image."""
    if isinstance(input_shape, (str, bytes)) or not isinstance(input_shape, Sequence):
        size = input_shape if isinstance(input_shape, int) else row.image_size
        raise ValueError(
            "`input_shape` is a tuple with one number for each axis and one for the channels, such "
            f"as ({size}, {size}, 3); received {input_shape!r}."
        )
    shape = tuple(input_shape)
    for size in shape:
        if size is not None and (
            isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 1
        ):
            raise ValueError(
                f"`input_shape` is {shape}, where {size!r} is neither a positive integer nor None."
            )
    if len(shape) == 2 and shape[0] is not None and shape[0] == shape[1]:
        raise ValueError(
            f"`input_shape` is {shape}, a 1-D network of {shape[0]} steps and {shape[1]} channels. "
            f"For images say how many channels they have, ({shape[0]}, {shape[1]}, 3); if you mean "
            f"the 1-D network, pass input_tensor=keras.Input({shape})."
        )
    return shape


def _space(shape: tuple[int | None, ...], data_format: str) -> tuple[int | None, ...]:
    return shape[:-1] if data_format == "channels_last" else shape[1:]


def preprocessing_for(row: Architecture, inputs, data_format: str) -> Preprocessing | None:
    """The row's for the size of the network's images; None for what is no image."""
    space = _space(tuple(inputs.shape[1:]), data_format)
    if len(space) != 2:
        return None
    height, width = space
    if height is None or height != width:
        return row.preprocessing
    return row.preprocessing.replace(image_size=height)
