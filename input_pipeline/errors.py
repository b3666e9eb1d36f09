"""The one exception of the input pipeline. Standard library only."""

import re
from collections.abc import Iterable

from keras_resnet.errors import UserError, did_you_mean

__all__ = ["DataError", "did_you_mean", "reason", "unknown_name"]


class DataError(UserError, ValueError):
    """A problem with the data or with how it was asked for; the message is ready for the user."""


def unknown_name(kind: str, value: str, known: Iterable[str]) -> DataError:
    """The error for a misspelled name: quotes it, names the nearest and lists what exists."""
    known = sorted(known)
    return DataError(
        f"Unknown {kind} {value!r}.{did_you_mean(value, known)} Known: {', '.join(known)}."
    )


def reason(error: Exception) -> str:
    """What an error says, in one line and without what TensorFlow puts around it."""
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    return re.sub(r"\{\{.*?\}\}|\[Op:.*|\n.*", "", message, flags=re.DOTALL).strip(" .")
