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
_RESTORE = (
    "put a copy of it in its place, or remove it and give --config with all that the run began with"
)


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
    version = _version_of(values, where)
    _history_in(values, where)
    values = {name: value for name, value in values.items() if name not in (_VERSION, _HISTORY)}
    if not values:
        raise UsageError(f"{where} holds no key of a config; {_RESTORE}")
    config = default_config()
    present = dict(flatten(values))
    for name, key in KEYS.items():
        if version < key.since and name not in present:
            present[name] = key.absent[version]
        if name in present and version in key.meant:
            present[name] = key.meant[version].get(present[name], present[name])
    return merge(config, present, where)


def _version_of(values: dict[str, Any], where: str) -> int:
    version = values.get(_VERSION, 1)
    if type(version) is not int or version < 1:
        raise UsageError(
            f"{where}: {_VERSION} is {version!r}, and must be an integer from 1 to "
            f"{CONFIG_VERSION}; {_RESTORE}"
        )
    if version > CONFIG_VERSION:
        raise UsageError(
            f"{where}: {_VERSION} is {version!r}, and this version of keras-resnet reads up to "
            f"{CONFIG_VERSION}; a newer one wrote it: pip install --upgrade keras-resnet-tpu"
        )
    return version


def keep_older_defaults(config: ConfigDict, text: str, where: str) -> ConfigDict:
    """Returns `config` as it would have been when the run of `text` began.

    A key that is left at its default has the default of the version that wrote `text`, if the run
    has that too: a run that an older version began goes on as it began.

    Args:
        config: what a command asks for.
        text: config.json of a run.
        where: its path.

    Raises:
        UsageError: as `from_json`.
    """
    version = _version_of(_parse(text, where), where)
    recorded = dict(flatten(from_json(text, where)))
    asked = dict(flatten(config))
    kept = {}
    for name, key in KEYS.items():
        older = key.absent if version < key.since else key.formerly
        left = version in older and asked[name] == key.default and recorded[name] == older[version]
        # A value that the older version wrote under the name of one that means another today.
        meant = key.meant.get(version, {})
        if left or (asked[name] in meant and meant[asked[name]] == recorded[name]):
            kept[name] = recorded[name]
    return merge(config.copy_and_resolve_references(), kept, where) if kept else config


def history_of(text: str, where: str) -> list[dict[str, Any]]:
    """Returns the changes recorded in what `to_json` wrote, the oldest first.

    Raises:
        UsageError: the text is no such JSON.
    """
    return _history_in(_parse(text, where), where)


def _history_in(values: dict[str, Any], where: str) -> list[dict[str, Any]]:
    history = values.get(_HISTORY, [])
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise UsageError(f"{where}: {_HISTORY} is {history!r}, not a list of changes; {_RESTORE}")
    return history


def changed_entry(changes: Changes) -> dict[str, Any]:
    """Returns an entry of the history for changes made now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"time": now, "changed": {key: list(values) for key, values in changes.items()}}


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: an integer of 5,000 digits, too
        raise UsageError(f"{where} is not JSON ({error}); {_RESTORE}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{where} is not a JSON object; {_RESTORE}")
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
            "another folder, or give --workdir alone, without --config and without these keys, to "
            f"go on with the config it began with; of a run that resumes only {may} may change"
        )
    return changed
