"""Errors for the person at the keyboard: the message is complete and needs no stack trace."""

import re
from collections.abc import Iterable


class UserError(Exception):
    """Something outside the program is wrong: files, devices, a work directory. Exit code 1."""


class Interrupted(UserError):
    """A signal ended the run, which can go on from where it is; `code` is the exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class UsageError(UserError):
    """The command was given something it does not accept. Exit code 2."""


def close_names(value: str, valid: Iterable) -> list[str]:
    """Returns up to three entries of `valid` that `value` may have meant, the closest first.

    First come those that `value` begins, then those that differ in their numbers only: of ResNet49,
    ResNet50.
    """
    import difflib

    def rank(entry: str) -> tuple[bool, bool, int]:
        alike = _letters(entry) == _letters(given)
        distance = abs(_first_number(entry) - _first_number(given)) if alike else 0
        return not entry.startswith(given), not alike, distance

    given = str(value).lower()
    lowered = {str(entry).lower(): str(entry) for entry in valid}
    close = difflib.get_close_matches(given, lowered, n=max(len(lowered), 1), cutoff=0.5)
    return [lowered[entry] for entry in sorted(close, key=rank)[:3]]


def nearest(value: str, valid: Iterable) -> str:
    """Returns "; did you mean 'x'?" for the entries of `valid` closest to `value`, or ""."""
    close = close_names(value, valid)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _letters(name: str) -> str:
    return re.sub(r"\d+", "", name)


def _first_number(name: str) -> int:
    return int((re.findall(r"\d+", name) or [0])[0])
