"""Weights for images of some channels in networks for images of others."""

import numpy as np

from keras_resnet.weights.checkpoint import note
from keras_resnet.weights.slots import Slot

RGB = 3


def adapt_channels(
    wanted: list[Slot], arrays: dict[str, np.ndarray], origin: str
) -> dict[str, np.ndarray]:
    """Gives the first kernel of weights for RGB as many input channels as the model has.

    As timm's `adapt_input_conv` has it: for one channel the three are summed; for another number
    they are repeated in turn, R G B R ..., and scaled by 3 / channels.

    Args:
        wanted: what the model's variables are called in the file, and their shapes there.
        arrays: the arrays by these names.
        origin: the file, for messages.

    Returns:
        `arrays`, the kernel replaced where its number of channels differs.
    """
    for slot in wanted:
        kernel = arrays.get(str(slot.name))
        if not slot.takes_images or kernel is None or kernel.ndim != len(slot.shape):
            continue
        axis = 1 if slot.from_torch else kernel.ndim - 2
        channels = slot.shape[axis]
        fits = (*kernel.shape[:axis], channels, *kernel.shape[axis + 1 :]) == slot.shape
        if not fits or kernel.shape[axis] != RGB or channels == RGB:
            continue
        how = "the sum of the three" if channels == 1 else "the three repeated and scaled"
        note(
            f"{origin} is for RGB, the model for images of {channels} "
            f"channel{'s' if channels > 1 else ''}: its first kernel gets {how}."
        )
        return {**arrays, str(slot.name): _adapted(kernel.astype("float32"), axis, channels)}
    return arrays


def _adapted(kernel: np.ndarray, axis: int, channels: int) -> np.ndarray:
    if channels == 1:
        return kernel.sum(axis, keepdims=True)
    repeated = np.take(kernel, np.arange(channels) % RGB, axis)
    return repeated * np.float32(RGB / channels)
