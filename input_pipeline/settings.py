"""What can be set about the data, a row for each setting, and the checks of values.

The rows stand where they are obeyed: `augment.settings`, `sources` and the module of each source.
The keys of a configuration, their choices and their help are read from there. Standard library
only, so that a wrong value is answered before TensorFlow is imported.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from keras_resnet.input_pipeline.errors import DataError, unknown_name

# In which order training takes the examples; `augment.repeats.training_ids` says what they are.
SAMPLERS = ("shuffle", "balanced")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """A value that configurations and the functions of this package take.

    Attributes:
        name: of the keyword argument, and of the key in a configuration.
        default: its type is the setting's type.
        help: what it does, one sentence.
        accepts: whether a value can be used; it may raise DataError itself, to say why not.
        accepted: the values that can be used, to follow "it must be".
        choices: the words that it may be, if it is one of a few.
    """

    name: str
    default: Any
    help: str
    accepts: Callable[[Any], bool] = lambda value: True
    accepted: str = ""
    choices: tuple[str, ...] = ()

    def check(self, value: Any, what: str = "") -> None:
        """Raises DataError, in which `what` stands before the name, unless `value` can be used."""
        if self.choices and value not in self.choices:
            raise unknown_name(self.name, value, self.choices)
        if not self.accepts(value):
            raise DataError(f"{what}{self.name} is {value!r}; it must be {self.accepted}.")


def is_switch(value: Any) -> bool:
    """Whether it is True or False."""
    return type(value) is bool


def is_number(value: Any) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_share(value: Any) -> bool:
    """Whether it is a number in 0..1."""
    return is_number(value) and 0 <= value <= 1


def is_not_negative(value: Any) -> bool:
    """Whether it is a number of 0 or more."""
    return is_number(value) and value >= 0


def is_count(value: Any) -> bool:
    """Whether it is a whole number of 0 or more."""
    return type(value) is int and value >= 0
