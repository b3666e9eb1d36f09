"""REGEX=NEW: how names in a file of weights become those of a library that is known here."""

import re
from collections.abc import Iterable

from keras_resnet.errors import UsageError


def parse_renamings(texts: Iterable[str], where: str) -> dict[str, str]:
    """Returns regular expressions and what takes the place of what they find, in order.

    Args:
        texts: each REGEX=NEW; the last = parts them, and NEW may be empty.
        where: what they were given to, for messages.

    Raises:
        UsageError: one has no =, nothing before it, or no regular expression.
    """
    found = {}
    for text in texts:
        pattern, equals, new = text.rpartition("=")
        if not equals or not pattern:
            raise UsageError(f"{where}={text}: should be REGEX=NEW, such as {where}='^net\\.='")
        try:
            re.compile(pattern)
        except re.error as error:
            raise UsageError(
                f"{where}={text}: {pattern!r} is no regular expression ({error})"
            ) from error
        found[pattern] = new
    return found
