"""Packages that a format needs and an ordinary installation does not have."""

import types

from keras_resnet.errors import UserError
from keras_resnet.weights import files


def require(module: str, extra: str, format_name: str) -> types.ModuleType:
    """Imports one; raises UserError naming the extra that brings it."""
    try:
        return files.require(module, extra, format_name)
    except ImportError as error:
        raise UserError(f"{error} ({error.__cause__})") from error
