"""Standard input, output and error as a command finds and leaves them: closed, full or broken."""

import contextlib
import io
import os
import signal
import sys

from keras_resnet.printing import printable_lines

BROKEN_PIPE = 128 + signal.SIGPIPE  # what shells report of a command that SIGPIPE ends


def open_missing() -> None:
    """Opens the null device in place of each standard stream that is closed.

    Else the next file that is opened, such as a checkpoint, gets the descriptor of standard output,
    and what libraries print goes into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.dup2(descriptor, number)
            if descriptor != number:
                os.close(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def escape_the_rest() -> None:
    """Has escapes printed for what the encoding of standard output or error does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_error(text: str) -> None:
    """Prints on standard error, if that can be, and nothing that controls a terminal."""
    with contextlib.suppress(OSError):
        print(printable_lines(text), file=sys.stderr)
        sys.stderr.flush()


def failure_of_output() -> OSError | None:
    """Returns why standard output cannot take what was printed, None if it could."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return error
    return None


def give_up() -> None:
    """Drops what standard output or error cannot take, which Python would complain of at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):  # no descriptor
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
                stream.flush()
