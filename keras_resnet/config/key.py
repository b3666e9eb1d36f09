"""What one key of a configuration is: its type, what it may be set to, and how text becomes it."""

import ast
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from keras_resnet.config.registries import Registry
from keras_resnet.errors import UsageError, did_you_mean

# What happens to a key when a run resumes with another value.
NO = "no"  # it changes the mathematics of the run: refused
NOTED = "noted"  # it may change the numbers a little: written into the history of config.json
FREELY = "freely"  # it changes what is kept or how long things take

_MANY = 12  # more choices than these are not listed in an error


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, either of which an open end leaves out."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.open_low else 'at least'} {_in_words(self.low)}"
        high = f"{'below' if self.open_high else 'at most'} {_in_words(self.high)}"
        ends = ((low, self.low), (high, self.high))
        return " and ".join(text for text, end in ends if math.isfinite(end))


def _in_words(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


@dataclasses.dataclass(frozen=True)
class Key:
    """A row of the table in `schema`.

    Attributes:
        name: dotted, such as "optimizer.learning_rate".
        default: the value where no config sets it; by it the key's type. None: the choice is left
            to the code, and `kind` is the type of a value.
        help: one sentence in plain words.
        choices: the values it may have, or the registry whose names they are; () for no such list.
        range: what a number must be; None for no limit.
        accepted: what it must be in words, for a key that the pipeline checks.
        resume: NO, NOTED or FREELY.
        per_host: whether the hosts of one run may have different values.
        kind: the type, if `default` does not show it.
        texts: whether the entries of a tuple are texts, not numbers.
        words: what may stand for a value of its type, too.
        reads: of a number that a text may stand for, such as a schedule, what reads that text, and
            raises ValueError, which says what is wrong with it. A text that is a number is that.
        example: a value for messages, where the default is none.
        since: the first version of config.json that has the key.
        absent: for each older version what the absence of the key means in its files.
        formerly: for each older version the default that it had, where it was another.
        meant: for each older version its values that mean something else today, and what they are
            called today.
    """

    name: str
    default: Any
    help: str
    choices: tuple[str, ...] | Registry = ()
    range: Range | None = None
    accepted: str = ""
    resume: str = NO
    per_host: bool = False
    kind: type | None = None
    texts: bool = False
    words: tuple[str, ...] = ()
    reads: Callable[[str], Any] | None = None
    example: Any = None
    since: int = 1
    absent: Mapping[int, Any] = dataclasses.field(default_factory=dict)
    formerly: Mapping[int, Any] = dataclasses.field(default_factory=dict)
    meant: Mapping[int, Mapping[Any, Any]] = dataclasses.field(default_factory=dict)

    @property
    def type(self) -> type:
        """bool, int, float, str or tuple."""
        return self.kind or type(self.default)

    def accepts(self) -> str:
        """Returns in words what it may be set to, "" if every value of its type."""
        if allowed := self.allowed():
            return f"one of {', '.join(choice or repr(choice) for choice in allowed)}"
        if self.words:
            return f"{_PARSERS[self.type][1]}, or {' or '.join(self.words)}"
        return self.accepted if self.type is not bool and self.accepted else str(self.range or "")

    def allowed(self) -> tuple[str, ...]:
        """Returns the values it may have, () if it is not one of a few words."""
        return self.choices.names() if isinstance(self.choices, Registry) else self.choices

    def accept(self, value: Any, where: str) -> Any:
        """Returns a value of Python or JSON in the key's type: a list as tuple, an int as float.

        Raises:
            UsageError: it has another type; `where` says whose value it is.
        """
        if self.words and isinstance(value, str):
            return value  # `check` says whether it is one of them
        if self.reads and isinstance(value, str):
            return self._number_or_text(value)
        if self.type is tuple and isinstance(value, list):
            value = tuple(value)
        if self.type is float and type(value) is int:
            value = float(value) if abs(value) < 2**63 else math.inf
        if type(value) is not self.type and not (value is None and self.default is None):
            raise UsageError(
                f"{where}: {self.name}={value!r} is {type(value).__name__}, but it takes "
                f"{self.type.__name__}, for example {self._example()!r}"
            )
        if isinstance(value, tuple) and not (_are_texts if self.texts else _are_numbers)(value):
            what = "texts" if self.texts else "numbers"
            raise UsageError(
                f"{where}: {self.name}={value!r} takes {what}, for example {self._example()!r}"
            )
        return value

    def parse(self, text: str) -> Any:
        """Returns the value that `text`, of a command line, means.

        Raises:
            UsageError: it is not of the key's type.
        """
        if self.default is None and text.lower() == "none":
            return None
        if self.words and text.strip().isidentifier():
            return text.strip()
        if self.reads:
            return self._number_or_text(text)
        parse, what = (_parse_texts, "a list of texts") if self.texts else _PARSERS[self.type]
        try:
            return parse(text)
        except (ValueError, KeyError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            example = ",".join(self._example()) if self.texts else str(self._example())
            raise UsageError(
                f"config.{self.name}={text!r} is not {what}; for example "
                f"--config.{self.name}={repr(example) if ' ' in example else example}"
            ) from error

    def check(self, value: Any) -> None:
        """Raises UsageError unless `value`, which has the key's type, can be used."""
        if value is None and self.default is None:
            return
        if isinstance(value, str) and self.words:
            self._check_word(value)
            return
        if isinstance(value, str) and self.reads:
            self._read(value)
            return
        given = f"config.{self.name}={value!r}"
        if not self._is_choice(value):
            allowed = self.allowed()
            few = ", ".join(choice or repr(choice) for choice in allowed)
            which = few if len(allowed) <= _MANY else f"the {len(allowed)} that there are"
            hint = did_you_mean(value, allowed)
            if not hint and len(allowed) > _MANY:
                hint = f" `keras-resnet config {self.name}` has them."
            raise UsageError(f"{given} is not one of {which}.{hint}")
        entries = value if isinstance(value, tuple) else (value,)
        if not all(math.isfinite(entry) for entry in entries if isinstance(entry, float)):
            raise UsageError(f"{given} is not a finite number")
        if self.range is not None and value not in self.range:
            raise UsageError(f"{given} must be {self.range}")

    def _is_choice(self, value: Any) -> bool:
        """Whether it is one of the choices, if there are some."""
        if isinstance(self.choices, Registry):
            return self.choices.has(value)
        return not self.choices or value in self.choices

    def _number_or_text(self, text: str) -> Any:
        try:
            return _PARSERS[self.type][0](text)
        except ValueError:
            return self._read(text)

    def _read(self, text: str) -> str:
        """Returns a text that stands for a number, if it can be read."""
        assert self.reads is not None
        try:
            self.reads(text)
        except ValueError as error:
            raise UsageError(f"config.{self.name}={text!r}: {error}") from error
        return text

    def _check_word(self, value: str) -> None:
        if value not in self.words:
            raise UsageError(
                f"config.{self.name}={value!r} is not {_PARSERS[self.type][1]}, for example "
                f"'{self._example()}', nor {' or '.join(self.words)}."
                f"{did_you_mean(value, self.words)}"
            )

    def _example(self) -> Any:
        return self.default if self.example is None else self.example


def _parse_bool(text: str) -> bool:
    return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}[
        text.lower()
    ]


def _parse_tuple(text: str) -> tuple:
    value = ast.literal_eval(text) if text.strip() else ()
    value = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not _are_numbers(value):
        raise ValueError("not all of it is numbers")
    return value


def _parse_texts(text: str) -> tuple[str, ...]:
    """Reads "a,b", or a list or tuple as Python writes it."""
    if text.strip()[:1] in ("(", "["):
        value = ast.literal_eval(text)
        entries = tuple(value) if isinstance(value, list | tuple) else (value,)
    else:
        entries = tuple(entry.strip() for entry in text.split(",")) if text.strip() else ()
    if not _are_texts(entries) or "" in entries:
        raise ValueError("not all of it is texts")
    return entries


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(entry, str) for entry in values)


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(entry, int | float) and type(entry) is not bool for entry in values)


# Type -> (how text becomes a value, what it is called).
_PARSERS: dict[type, tuple[Any, str]] = {
    bool: (_parse_bool, "true or false"),
    int: (int, "an integer"),
    float: (float, "a number"),
    str: (str, "a text"),
    tuple: (_parse_tuple, "a list of numbers"),
}
