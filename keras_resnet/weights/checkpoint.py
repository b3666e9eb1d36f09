"""What a weight file holds, whatever its format, and the error when it cannot be used."""

import dataclasses
import warnings
from typing import Any

import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.preprocessing import Preprocessing

LISTED = 10  # names per list in a message


class WeightsError(UserError, ValueError):
    """Weights that cannot be found, read, or put into this model. The model is left unchanged.

    Args:
        message: a sentence or two.
        details: a table that follows on lines of its own, "" for none.
    """

    def __init__(self, message: str, details: str = ""):
        super().__init__(message)
        self.details = details

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message}\n{self.details}" if self.details else message


class WeightsNote(UserWarning):
    """What was decided about weights where there was a choice."""


def note(text: str) -> None:
    """Says what was decided; a command prints it, elsewhere it is a warning."""
    warnings.warn(text, WeightsNote, stacklevel=2)


@dataclasses.dataclass
class Checkpoint:
    """Named arrays and what came with them.

    Attributes:
        origin: the file or address, for messages.
        arrays: parameters and moving statistics by the name and in the layout of their library,
            in the order of the file.
        preprocessing: that goes with the weights, None if the file does not say.
        test_preprocessing: the same for the larger images at which timm evaluates as well.
        class_names: of the classifier, None if the file does not say.
        architecture: timm's name of the network, None if the file does not say.
        network: what the file says of its network: fields of `Architecture`, with `name` for the
            row they differ from; empty if it does not say.
        channels: of the images, None if the file does not say.
        match: "names", or "order" if the arrays go to their places by order and shape.
        ordered: whether the order of the arrays is that in which the network was written down.
    """

    origin: str
    arrays: dict[str, np.ndarray]
    preprocessing: Preprocessing | None = None
    test_preprocessing: Preprocessing | None = None
    class_names: list[str] | None = None
    architecture: str | None = None
    network: dict[str, Any] = dataclasses.field(default_factory=dict)
    channels: int | None = None
    match: str = "names"
    ordered: bool = True
