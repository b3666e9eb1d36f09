"""The one exception of the input pipeline. Standard library only."""

import difflib
import re
from collections.abc import Iterable


class DataError(ValueError):
    """A problem with the data or with how it was asked for; the message is ready for the user."""


def did_you_mean(value: str, known: Iterable[str]) -> str:
    """' Did you mean 'flip'?' when a known name is near `value`, else an empty string."""
    near = difflib.get_close_matches(str(value), list(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


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
