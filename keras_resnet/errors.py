"""Errors for the person at the keyboard: the message is complete and needs no stack trace."""


class UserError(Exception):
    """Something outside the program is wrong: files, devices, a work directory. Exit code 1."""


class Interrupted(UserError):
    """A signal ended the run, which can go on from where it is; `code` is the exit code."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class UsageError(UserError):
    """The command was given something it does not accept. Exit code 2."""


def nearest(value: str, valid) -> str:
    """Returns "; did you mean 'x'?" for the entries of `valid` closest to `value`, or ""."""
    import difflib

    lowered = {str(entry).lower(): str(entry) for entry in valid}
    close = difflib.get_close_matches(str(value).lower(), lowered, n=3, cutoff=0.5)
    if not close:
        return ""
    return "; did you mean " + " or ".join(repr(lowered[entry]) for entry in close) + "?"
