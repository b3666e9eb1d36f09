"""The variables of a model and the arrays that they want."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_resnet.weights import schemes
from keras_resnet.weights.schemes import NameScheme


@dataclasses.dataclass
class Slot:
    """A variable of the model and the array it wants.

    Attributes:
        variable: the model's variable.
        name: the array's name in the file; None if its scheme has none for it.
        shape: the array's shape in the file's layout.
        ours: "layer/variable", for messages.
        in_classifier: whether it belongs to the layer `predictions`.
        from_torch: whether the array has PyTorch's layout of a kernel.
        takes_images: whether it is the kernel that the image's channels go into.
    """

    variable: Any
    name: str | None
    shape: tuple[int, ...]
    ours: str
    in_classifier: bool
    from_torch: bool
    takes_images: bool = False

    def value(self, array: np.ndarray) -> np.ndarray:
        """The array in our layout."""
        if self.from_torch:
            array = np.moveaxis(array, (0, 1), (-1, -2))
        return array.reshape(tuple(self.variable.shape))


def slots(model: keras.Model, scheme: NameScheme) -> list[Slot]:
    """What every variable of the network is called in a naming scheme, and its shape there.

    Layers of other names than `create_model` gives, as before an `input_tensor`, are left out.
    """
    layers = [layer for layer in flatten(model) if schemes.is_ours(layer.name)]
    pooled = any(
        layer.name.endswith("_shortcut_pool") and "AveragePooling" in type(layer).__name__
        for layer in layers
    )
    found = []
    smooth = any(layer.name == "stem_aa" for layer in layers)
    for layer in layers:
        # What follows in the same sequence of PyTorch's is counted on.
        counted = f"{layer.name}_after_aa"
        place = counted if smooth and counted in scheme.whole else layer.name
        in_classifier = layer.name == "predictions"
        for variable in layer.weights:  # without the seeds of random layers
            from_torch = scheme.torch_layout and variable.name == "kernel"
            shape = tuple(variable.shape)
            if in_classifier and scheme.classifier_is_conv and variable.name == "kernel":
                shape = (1,) * (len(model.input_shape) - 2) + shape
            if from_torch:
                shape = (*shape[:-3:-1], *shape[:-2])
            name = scheme.variable(place, variable.name, pooled)
            ours = f"{layer.name}/{variable.name}"
            takes_images = ours in ("stem_conv/kernel", "stem_conv1/kernel")
            found.append(Slot(variable, name, shape, ours, in_classifier, from_torch, takes_images))
    return found


def flatten(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from flatten(layer)
        else:
            yield layer
