"""Which scheme the names in a file follow, whatever stands before them or in place of a word."""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_resnet.weights import schemes
from keras_resnet.weights.checkpoint import LISTED, Checkpoint, WeightsError
from keras_resnet.weights.schemes import NameScheme

_PARTS_BEFORE = r"((?:[\w-]+[./])*?)"


@dataclasses.dataclass(frozen=True)
class Naming:
    """A file's arrays under the names of a scheme.

    Attributes:
        scheme: whose names they are.
        arrays: the arrays by these names, without what is no parameter.
        original: the name in the file for each of them.
        prefix: what the file has before the names, "" for nothing.
    """

    scheme: NameScheme
    arrays: dict[str, np.ndarray]
    original: dict[str, str]
    prefix: str

    @property
    def head(self) -> str | None:
        """What the file itself calls the classifier, such as "linear"; None if it has none."""
        names = [name for new, name in self.original.items() if self._in_classifier(new)]
        if not names:
            return None
        return re.split(r"[./](?=[^./]*$)", names[0].removeprefix(self.prefix))[0]

    def _in_classifier(self, name: str) -> bool:
        return name.startswith(self.scheme.classifier)


def naming_of(checkpoint: Checkpoint) -> Naming | None:
    """The names of a checkpoint as their scheme spells them; None if it is none of ours.

    Raises:
        WeightsError: if several networks lie in the file, each with a prefix of its own, or two
            arrays mean the same parameter.
    """
    found = _scheme_and_prefix(checkpoint)
    if found is None:
        return None
    scheme, prefix = found
    spelled = {
        name: scheme.spell(name.removeprefix(prefix))
        for name in checkpoint.arrays
        if not scheme.ignores(name)
    }
    original = invert(spelled, checkpoint.origin)
    arrays = {new: checkpoint.arrays[name] for new, name in original.items()}
    return Naming(scheme, arrays, original, prefix)


def require_naming(checkpoint: Checkpoint) -> Naming:
    """As `naming_of`.

    Raises:
        WeightsError: also if the names follow no scheme.
    """
    naming = naming_of(checkpoint)
    if naming is None:
        first = ", ".join(list(checkpoint.arrays)[:5]) or "none at all"
        titles = ", ".join(known.title for known in schemes.SCHEMES)
        raise WeightsError(
            f"{checkpoint.origin} follows no naming scheme known here ({titles}); its first names: "
            f"{first}. names={{REGEX: NEW}} or --rename='REGEX=NEW' renames them."
        )
    return naming


def renamed(arrays: Mapping[str, Any], names: Mapping[str, str], origin: str) -> dict[str, Any]:
    """Arrays under names of the caller's choice.

    Args:
        arrays: arrays by name.
        names: regular expressions and what takes the place of what they find, one after the
            other as `re.sub` has it. An array whose name becomes empty is left out.
        origin: the file, for messages.

    Raises:
        WeightsError: for what is no regular expression, finds nothing, or gives two arrays the
            same name.
    """
    new = {name: name for name in arrays}
    for pattern, replacement in names.items():
        try:
            changed = {name: re.sub(pattern, replacement, now) for name, now in new.items()}
        except re.error as error:
            raise WeightsError(
                f"{pattern!r} -> {replacement!r} is no regular expression with its replacement: "
                f"{error}."
            ) from error
        if not any(re.search(pattern, now) for now in new.values()):
            first = ", ".join(list(new.values())[:LISTED])
            raise WeightsError(
                f"{pattern!r} is in no name of {origin}; its first names are then: {first}."
            )
        new = changed
    original = invert({name: now for name, now in new.items() if now}, origin)
    return {now: arrays[name] for now, name in original.items()}


def invert(names: Mapping[str, str], origin: str) -> dict[str, str]:
    """From new names to old ones.

    Raises:
        WeightsError: if two would get the same new name.
    """
    inverted: dict[str, str] = {}
    for name, new in names.items():
        if new in inverted:
            raise WeightsError(
                f"In {origin}, {inverted[new]!r} and {name!r} would both be {new!r}: leave one out "
                "with names={REGEX: ''} or --rename='REGEX='."
            )
        inverted[new] = name
    return inverted


def _scheme_and_prefix(checkpoint: Checkpoint) -> tuple[NameScheme, str] | None:
    for scheme in schemes.SCHEMES:
        prefixes = _prefixes(scheme, checkpoint.arrays)
        if "" in prefixes:
            return scheme, ""
        if len(prefixes) == 1:
            return scheme, prefixes.pop()
        if prefixes:
            prefix, *others = sorted(prefixes)
            raise WeightsError(
                f"{checkpoint.origin} holds {1 + len(others)} networks, under "
                f"{', '.join([prefix, *others])}: take one, such as names="
                f"{{'^{re.escape(others[0])}.*': ''}} or --rename='^{re.escape(others[0])}.*=' to "
                f"leave {others[0]} out."
            )
    return None


def _prefixes(scheme: NameScheme, names: Iterable[str]) -> set[str]:
    before = _PARTS_BEFORE if scheme.torch_layout else "()"
    pattern = re.compile(before + scheme.fingerprint.removeprefix("^"))
    return {match[1] for match in map(pattern.match, names) if match}
