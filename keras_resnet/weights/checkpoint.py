"""What a weight file holds, whatever its format."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass
class Checkpoint:
    """Named arrays and what came with them.

    Attributes:
        origin: the file or address, for messages.
        arrays: parameters and moving statistics by the name and in the layout of their library.
        preprocessing: as `ResNet.preprocessing`, None if the file does not say.
        test_preprocessing: the same for the larger images at which timm evaluates as well.
        class_names: of the classifier, None if the file does not say.
        architecture: timm's name of the network, None if the file does not say.
    """

    origin: str
    arrays: dict[str, np.ndarray]
    preprocessing: dict[str, Any] | None = None
    test_preprocessing: dict[str, Any] | None = None
    class_names: list[str] | None = None
    architecture: str | None = None
