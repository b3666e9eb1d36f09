"""What a weight file holds, whatever its format, and the error when it cannot be used."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.bounds import RefusedError, one_line
from keras_resnet.errors import UserError
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.weights.keras_graph import KerasLayer

LISTED = 10  # names per list in a message
# What to do about numbers of a kind that does not load.
PLAIN = "save the weights as float32, float16 or bfloat16."


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


@contextlib.contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Whatever a library makes of what a stranger wrote becomes a line that names the file.

    Raises:
        WeightsError: something was raised that is no error of ours, or a file was refused.
    """
    try:
        yield
    except (WeightsError, ImportError):
        raise
    except RefusedError as error:
        raise WeightsError(str(error)) from error
    except Exception as error:  # KeyError, TypeError, RecursionError, MemoryError, ...
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise WeightsError(f"{path} is broken, or not what its name says ({reason}).") from error


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
        graph: the layers of a Keras model and how they are connected, empty if the file does not
            say.
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
    graph: dict[str, KerasLayer] = dataclasses.field(default_factory=dict)
