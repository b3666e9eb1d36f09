"""What a weight file holds, whatever its format, and the error when it cannot be used."""

import dataclasses

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.preprocessing import Preprocessing


class WeightsError(UserError, ValueError):
    """Weights that cannot be found, read, or put into this model. The model is left unchanged."""


@dataclasses.dataclass
class Checkpoint:
    """Named arrays and what came with them.

    Attributes:
        origin: the file or address, for messages.
        arrays: parameters and moving statistics by the name and in the layout of their library.
        preprocessing: that goes with the weights, None if the file does not say.
        test_preprocessing: the same for the larger images at which timm evaluates as well.
        class_names: of the classifier, None if the file does not say.
        architecture: timm's name of the network, None if the file does not say.
    """

    origin: str
    arrays: dict[str, np.ndarray]
    preprocessing: Preprocessing | None = None
    test_preprocessing: Preprocessing | None = None
    class_names: list[str] | None = None
    architecture: str | None = None
