"""Answers to calls with arguments that a function does not take."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from keras_resnet.errors import did_you_mean

Function = TypeVar("Function", bound=Callable[..., Any])


def explain_arguments(function: Function) -> Function:
    """Has a function say in full which arguments it does not take; type checkers see it as it is.

    The messages are for Python 3.11 and 3.12 too, whose own do not name the nearest argument.
    """
    parameters = list(inspect.signature(function).parameters.values())
    known = [p.name for p in parameters]
    positional = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    method = known[0] == "self"

    @functools.wraps(function)
    def explained(*args: Any, **kwargs: Any) -> Any:
        caller = args[0].name if method else function.__name__
        if len(args) > len(positional):
            names = positional[method:]
            raise TypeError(
                f"{caller} takes at most {len(names)} positional arguments ({', '.join(names)}), "
                f"received {len(args) - method}."
            )
        for key in kwargs:
            if key in positional[: len(args)]:
                raise TypeError(f"{caller} got {key!r} twice, by position and by name.")
            if key not in known:
                near = did_you_mean(key, known[method:])
                raise TypeError(f"{caller} takes no argument {key!r}.{near}")
        return function(*args, **kwargs)

    return explained  # type: ignore[return-value]
