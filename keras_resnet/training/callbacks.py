"""What follows a run besides its own files: trackers, by one small interface.

    class Printer(Callback):
        def evaluated(self, row):
            print(row["step"], row["top1"])

    training.train(config, "runs/digits", callbacks=[Printer()])

`events.TensorBoard` is one that every run has.
"""

import contextlib
import copy
import dataclasses
import importlib
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keras_resnet.errors import Interrupted, UsageError
from keras_resnet.training.say import Say

# So many calls in a row may fail before a callback is left out.
MAX_FAILURES = 3
# What a row of metrics.jsonl has beside figures.
_NO_FIGURES = ("kind", "step", "examples", "compiles")
_OF_KIND = {"train": "trained", "eval": "evaluated", "rollback": "rolled_back"}
_METHODS = ("started", *_OF_KIND.values(), "finished", "stopped")


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What a callback is told of the run at its start.

    Attributes:
        id: 16 hexadecimal digits, drawn when the run first had a callback and the same whenever it
            resumes; "" of a run that has none.
        workdir: its folder, or gs://BUCKET/FOLDER.
        config: every key, dotted, with its value.
        step: where it starts or resumes. What a killed process has told of later steps comes again.
        total_steps: where it ends, unless it is stopped early.
        class_names: of the data.
    """

    id: str
    workdir: str
    config: dict[str, Any]
    step: int
    total_steps: int
    class_names: tuple[str, ...]


class Callback:
    """Follows a run; a tracker overrides what it needs.

    All methods are called on one host, in the thread that trains, which waits for them. What they
    raise never ends the run: a warning names callback and error, and after three failures in a row,
    or one in `started`, the callback is left out until the run resumes. They get copies: a
    callback cannot change the run.
    """

    def started(self, run: RunInfo) -> None:
        """The run starts, or resumes, at `run.step`; also one that has nothing left to train."""

    def trained(self, row: dict[str, Any]) -> None:
        """Takes a row of training: kind, step, epoch, loss, top1, learning_rate, ….

        Rows are those of metrics.jsonl; a figure that is not finite is None.
        """

    def evaluated(self, row: dict[str, Any]) -> None:
        """Takes a row of an evaluation: kind, step, epoch, loss, top1, top5, examples."""

    def rolled_back(self, row: dict[str, Any]) -> None:
        """The run went back to the step of `row` (`on_nonfinite=rollback`): later ones come again.

        The row has kind, step, failed_step and learning_rate.
        """

    def finished(self, result: dict[str, Any]) -> None:
        """The run is through; `result` is that of result.json."""

    def stopped(self, reason: str, signal: int | None) -> None:
        """The run ended before: by a signal, whose number is given, or by an error, None."""


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the figures of a row by the tags of TensorBoard: {"train/loss": …}.

    Of several, such as the norms of gradients, each has its tag: "train/gradient_norms/stem". Those
    that are None, not finite, are left out.
    """
    figures: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            figures |= {f"{name}/{part}": one for part, one in value.items()}
        elif name not in _NO_FIGURES:
            figures[name] = value
    return {f"{row['kind']}/{name}": one for name, one in figures.items() if one is not None}


@dataclasses.dataclass
class _Follower:
    name: str
    callback: Any
    failures: int = 0  # in a row


class Callbacks:
    """The callbacks of a run; as a context manager it tells them of an end by an exception.

    Args:
        say: speaks of those that fail.
    """

    def __init__(self, say: Say):
        self._followers: list[_Follower] = []
        self._say = say
        self._over = False

    def __enter__(self) -> "Callbacks":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is None or self._over:
            return
        number = error.code - 128 if isinstance(error, Interrupted) else None
        self._tell("stopped", _first_line(error) or type(error).__name__, number)

    def start(self, named: Iterable[tuple[str, Any]], run: RunInfo) -> None:
        """Begins to tell callbacks, each with its name and in this order, of the run."""
        self._followers = [_Follower(name, callback) for name, callback in named]
        self._tell("started", run)

    def record(self, row: Mapping[str, Any]) -> None:
        """Tells of a row of metrics.jsonl."""
        self._tell(_OF_KIND[row["kind"]], dict(row))

    def finished(self, result: Mapping[str, Any]) -> None:
        """Tells of the end."""
        self._over = True
        self._tell("finished", dict(result))

    def _tell(self, method: str, *arguments: Any) -> None:
        for follower in [*self._followers]:
            try:
                with _folder_kept():
                    tell = getattr(follower.callback, method, None)
                    if tell is not None:
                        tell(*copy.deepcopy(arguments))
                follower.failures = 0
            except KeyboardInterrupt:  # a second Ctrl-C ends the run at once
                raise
            except BaseException as error:  # the user's own code: SystemExit, CancelledError, …
                follower.failures += 1
                left_out = method == "started" or follower.failures >= MAX_FAILURES
                if left_out:
                    self._followers.remove(follower)
                then = "; it and the run go on"
                if left_out:
                    then = "; it is left out until the run resumes, and the run goes on"
                self._say(
                    f"warning: callback {follower.name} failed in {method} "
                    f"({type(error).__name__}: {_first_line(error)})"
                    + ("" if method in ("finished", "stopped") else then)
                )


@contextlib.contextmanager
def _folder_kept() -> Iterator[None]:
    """Goes back to the current folder at the end: a work directory may be relative to it."""
    folder = None
    with contextlib.suppress(OSError):  # of one that is gone
        folder = os.getcwd()
    try:
        yield
    finally:
        if folder is not None:
            with contextlib.suppress(OSError):
                os.chdir(folder)


def load(names: Iterable[str], say: Say) -> list[tuple[str, Any]]:
    """Imports and makes the callbacks that `training.callbacks` names.

    Only training does so: to read a config runs no code.

    Args:
        names: each "package.module:factory"; a factory takes no arguments, as a class may.
        say: speaks of those that cannot be made, which are left out.
    """
    made = []
    for name in names:
        module, _, factory = name.partition(":")
        try:
            callback = operator.attrgetter(factory)(importlib.import_module(module))()
            _check(callback)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the user's own code
            missing = isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]
            hint = " (PYTHONPATH=. finds modules of the current folder)" if missing else ""
            say(
                f"warning: callback {name} cannot be made ({type(error).__name__}: "
                f"{_first_line(error)}){hint}; the run goes on without"
            )
        else:
            made.append((name, callback))
    return made


def name_given(callbacks: Iterable[Any]) -> list[tuple[str, Any]]:
    """Returns callbacks that a program has handed in with the names of their classes.

    Raises:
        UsageError: one of them is none.
    """
    given = [*callbacks]
    for callback in given:
        try:
            _check(callback)
        except TypeError as error:
            raise UsageError(f"callbacks={given!r}: {error}") from error
    return [(type(callback).__name__, callback) for callback in given]


def _check(callback: Any) -> None:
    """Raises TypeError unless the object has a method of a callback."""
    if isinstance(callback, type):
        raise TypeError(f"{callback.__name__} is a class; give an object: {callback.__name__}()")
    if not any(callable(getattr(callback, method, None)) for method in _METHODS):
        raise TypeError(
            f"{type(callback).__name__} has no method of a callback: {', '.join(_METHODS)}"
        )


def _first_line(error: BaseException) -> str:
    try:
        text = str(error).strip()
    except Exception:  # the user's own class
        text = ""
    return (text or "no message").splitlines()[0]
