"""config.json: the resolved config of a run with its version, and what was changed since.

{"config_version": 1, "history": [{"time": "2026-01-31T12:00:00+00:00",
 "changed": {"data.path": ["/old", "/new"]}}], "seed": 0, ...}
"""

import datetime
import json
from typing import Any

from ml_collections import ConfigDict

from keras_resnet.config.key import FREELY, NO, NOTED
from keras_resnet.config.loading import merge
from keras_resnet.config.schema import CONFIG_VERSION, KEYS, default_config, flatten
from keras_resnet.errors import UsageError, UserError

# Key -> (value so far, new value).
Changes = dict[str, tuple[Any, Any]]

_VERSION, _HISTORY = "config_version", "history"


def to_json(config: ConfigDict, history: list[dict[str, Any]] | None = None) -> str:
    """Returns the config as readable JSON; `from_json` and `history_of` read it."""
    record = {_VERSION: CONFIG_VERSION, **({_HISTORY: history} if history else {})}
    return json.dumps({**record, **config.to_dict()}, indent=2) + "\n"


def from_json(text: str, where: str) -> ConfigDict:
    """Reads what `to_json` wrote, of this version or an older one.

    A key that an older version did not have gets the value that its absence meant there, and a
    value that meant something else gets the name it has today.

    Raises:
        UsageError: the text is no such JSON, of a newer version, or holds a key that does not
            exist.
    """
    values = _parse(text, where)
    version = values.pop(_VERSION, 1)
    values.pop(_HISTORY, None)
    if type(version) is not int or not 1 <= version <= CONFIG_VERSION:
        raise UsageError(
            f"{where}: {_VERSION} is {version!r}, and this version of keras-resnet reads up to "
            f"{CONFIG_VERSION}; a newer one wrote it: pip install --upgrade keras-resnet-tpu"
        )
    config = default_config()
    present = dict(flatten(values))
    for name, key in KEYS.items():
        if version < key.since and name not in present:
            present[name] = key.absent[version]
        if name in present and version in key.meant:
            present[name] = key.meant[version].get(present[name], present[name])
    return merge(config, present, where)


def history_of(text: str, where: str) -> list[dict[str, Any]]:
    """Returns the changes recorded in what `to_json` wrote, the oldest first."""
    return _parse(text, where).get(_HISTORY, [])


def changed_entry(changes: Changes) -> dict[str, Any]:
    """Returns an entry of the history for changes made now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"time": now, "changed": {key: list(values) for key, values in changes.items()}}


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{where} is not JSON ({error}); restore the file or start elsewhere"
        ) from error
    if not isinstance(values, dict):
        raise UsageError(f"{where} is not a JSON object; restore the file or start elsewhere")
    return values


def changes(recorded: ConfigDict, config: ConfigDict) -> Changes:
    """Returns every key whose value differs, with the recorded and the new value."""
    before, now = dict(flatten(recorded)), dict(flatten(config))
    return {key: (before[key], now[key]) for key in now if before[key] != now[key]}


def describe_changes(changed: Changes) -> str:
    """Returns "epochs: 2 -> 3; seed: 0 -> 1"."""
    return "; ".join(f"{key}: {old!r} -> {new!r}" for key, (old, new) in changed.items())


def select_changes(changed: Changes, resume: str) -> Changes:
    """Returns those of the keys whose policy at a resumption is `resume`."""
    return {key: values for key, values in changed.items() if KEYS[key].resume == resume}


def check_resumption(recorded: ConfigDict, config: ConfigDict, where: str) -> Changes:
    """Returns what a run that resumes with `config` changes.

    Raises:
        UserError: it changes a key that may not change in a run; names those that may.
    """
    changed = changes(recorded, config)
    if refused := select_changes(changed, NO):
        may = ", ".join(key for key, row in KEYS.items() if row.resume in (NOTED, FREELY))
        raise UserError(
            f"{where} belongs to a run with another config: {describe_changes(refused)}. Take "
            f"another folder, or the config it started with; of a run that resumes only {may} "
            "may change"
        )
    return changed
